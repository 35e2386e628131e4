//! Initializations that look at the weights, at activations or at gradients. Each is a file.

mod attach;
mod corda;
mod eva;
mod gradients;
mod loftq;
mod lora_ga;
mod observer;
mod olora;
mod orthogonal;
mod pissa;
mod plain;
mod table;
mod word;

use std::collections::BTreeMap;

use burn_lora_linalg::{LinalgError, Matrix};

use crate::factors::Factors;

pub use attach::{Initialized, attach_initialized};
pub use corda::CordaMethod;
pub use eva::Eva;
pub use gradients::weight_gradients;
pub use loftq::{LoftQ, Quantizer};
pub use lora_ga::{Direction, GradientScale, LoraGa};
pub use observer::Observer;
pub(crate) use observer::{InputStatistics, observe};
pub(crate) use plain::{Plain, plain_of, start_of, started_over};
pub use table::{INITIALIZATIONS, InitializationInfo};

/// How factors start that are not drawn independently of everything ([`LoraInit`](crate::LoraInit) has those that are).
#[derive(Clone, Debug, PartialEq)]
pub enum Initialization {
    /// Both factors random, their product zero. The base stays.
    Orthogonal,
    /// The largest singular values of the weight, which loses them: exact, or by a sketch with this many power iterations.
    Pissa {
        /// Of the sketch; `None` is exact.
        iterations: Option<usize>,
    },
    /// The first columns of a QR decomposition of the weight, which loses them.
    Olora,
    /// What quantizing the weight loses; the weight becomes the quantized one.
    LoftQ(LoftQ),
    /// A has the directions in which the layer's inputs vary, B is zero. The base stays.
    Eva(Eva),
    /// The singular values of the weight as its inputs see it; the weight loses them.
    Corda(CordaMethod),
    /// The singular vectors of the weight's gradient; the weight loses the product.
    LoraGa(LoraGa),
}

/// What an initialization has to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The weights only.
    Weights,
    /// The inputs of the layers, by an [`Observer`].
    Inputs,
    /// The gradients of the weights, by [`weight_gradients`].
    Gradients,
}

impl Initialization {
    /// What has to be gathered before.
    pub fn needs(&self) -> Needs {
        match self {
            Self::Orthogonal | Self::Pissa { .. } | Self::Olora | Self::LoftQ(_) => Needs::Weights,
            Self::Eva(_) | Self::Corda(_) => Needs::Inputs,
            Self::LoraGa(_) => Needs::Gradients,
        }
    }

    /// Whether the base is another one afterwards, so that the adapter alone does not say what was trained
    /// ([`to_plain`](crate::to_plain) makes one that does, and [`peft::save`](crate::peft::save) writes it). A LoftQ adapter is for the
    /// quantized base.
    pub fn changes_base(&self) -> bool {
        !matches!(self, Self::Orthogonal | Self::Eva(_))
    }

    /// Whether the base and the factors together are the weight as it was: not for LoftQ, whose base is a quantized one, and stays
    /// that to the end.
    pub(crate) fn takes_out(&self) -> bool {
        self.changes_base() && !matches!(self, Self::LoftQ(_))
    }
}

/// What was seen of each layer, by its path.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    pub(crate) inputs: BTreeMap<String, InputStatistics>,
    pub(crate) gradients: BTreeMap<String, Matrix>,
}

/// The layer that is to be adapted, as an initialization sees it.
struct Layer<'a> {
    /// `[d_in, d_out]`
    weight: &'a Matrix,
    rank: usize,
    scale: f64,
    seed: u64,
    /// Numbers the stream of random values.
    index: u64,
}

/// How a layer starts.
struct Beginning {
    factors: Factors,
    /// The weight that takes the place of the base's.
    base: Option<Matrix>,
}

impl Layer<'_> {
    /// Starts with these factors, which the weight loses, so that the layer computes what it did.
    ///
    /// The factors will be f32, so the weight loses what they are then.
    fn taken_out(&self, a: Matrix, b: Matrix) -> Beginning {
        let factors = self.rounded(a, b);
        let base = self.weight - &factors.delta();
        Beginning {
            factors,
            base: Some(base),
        }
    }

    /// Starts with these factors over the base as it is.
    fn beside(&self, a: Matrix, b: Matrix) -> Beginning {
        Beginning {
            factors: self.rounded(a, b),
            base: None,
        }
    }

    fn rounded(&self, a: Matrix, b: Matrix) -> Factors {
        let single = |value: f64| f64::from(value as f32);
        Factors {
            a: a.map(single),
            b: b.map(single),
            scale: self.scale,
        }
    }

    /// Both factors with the roots of these singular values, divided by the scale.
    fn roots(&self, s: &[f64]) -> Vec<f64> {
        s.iter().map(|s| (s / self.scale).sqrt()).collect()
    }
}

type Begun = Result<Beginning, LinalgError>;
