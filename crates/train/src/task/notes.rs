use burn::tensor::{Tensor, TensorReadError};

/// What a task notes of a batch for its metrics, before it is read from the device.
///
/// One a batch and soon read, so the size of its variants does not matter.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant)]
pub enum Notes {
    /// Numbers that the model made, `[n, width]`, and those that were wanted, any number for each row.
    Numbers {
        /// On the device.
        made: Tensor<2>,
        /// Row by row.
        wanted: Vec<f32>,
    },
    /// Texts: what was made and what was wanted.
    Texts(Vec<[String; 2]>),
}

/// [`Notes`] on the host.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// Row by row.
    Numbers {
        /// Of the model.
        made: Vec<f32>,
        /// Numbers in each row of `made`.
        width: usize,
        /// Wanted.
        wanted: Vec<f32>,
    },
    /// What was made and what was wanted.
    Texts(Vec<[String; 2]>),
}

impl Notes {
    /// Reads them from the device.
    ///
    /// # Errors
    /// When the device fails.
    pub fn read(self) -> Result<Told, TensorReadError> {
        Ok(match self {
            Self::Numbers { made, wanted } => {
                let width = made.dims()[1];
                Told::Numbers {
                    made: made.try_into_vec_as::<f32>()?,
                    width,
                    wanted,
                }
            }
            Self::Texts(texts) => Told::Texts(texts),
        })
    }
}

impl Told {
    /// The numbers made, row by row; none of texts.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        let (made, width) = match self {
            Self::Numbers { made, width, .. } => (&made[..], *width),
            Self::Texts(_) => (&[][..], 1),
        };
        made.chunks_exact(width)
    }

    /// The numbers wanted.
    pub fn wanted(&self) -> &[f32] {
        match self {
            Self::Numbers { wanted, .. } => wanted,
            Self::Texts(_) => &[],
        }
    }

    /// The texts made, each with the one wanted.
    pub fn texts(&self) -> &[[String; 2]] {
        match self {
            Self::Numbers { .. } => &[],
            Self::Texts(texts) => texts,
        }
    }
}
