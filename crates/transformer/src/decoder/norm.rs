use burn::tensor::{DType, Tensor};
use burn_lora_kernels::{residual_rms_norm, rms_norm};

use crate::named::one_of;
use crate::norm::{LayerNorm, RmsNorm};

/// Which norm a family has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// Root mean square.
    Rms,
    /// Root mean square, with a weight that is stored as its difference from 1 (Gemma).
    RmsFromOne,
    /// Mean and variance, with a bias.
    Layer,
}

/// The norm of whichever kind the family has.
#[derive(Debug, Clone)]
pub(crate) enum Norm {
    Rms(RmsNorm),
    RmsFromOne(RmsNorm),
    Layer(LayerNorm),
}

one_of!(Norm {
    Rms,
    RmsFromOne,
    Layer,
});

impl Norm {
    /// # Shapes
    ///
    /// - x: `[..., d]`
    /// - output: `[..., d]`
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Rms(norm) => norm.forward(x),
            Self::Layer(norm) => norm.forward(x),
            Self::RmsFromOne(norm) => rms_norm(x, from_one(norm), norm.eps),
        }
    }

    /// The residual stream with what is added to it, and its norm.
    ///
    /// # Shapes
    ///
    /// - x, change: `[..., d]`
    /// - output: `[..., d]` each
    pub(crate) fn residual<const D: usize>(
        &self,
        x: Tensor<D>,
        change: Option<Tensor<D>>,
    ) -> [Tensor<D>; 2] {
        match self {
            Self::Rms(norm) => norm.residual(x, change),
            Self::Layer(norm) => norm.residual(x, change),
            Self::RmsFromOne(norm) => residual_rms_norm(x, change, from_one(norm), norm.eps),
        }
    }
}

/// In f32: beside a 1, bf16 keeps next to nothing of a small difference from it.
fn from_one(norm: &RmsNorm) -> Tensor<1> {
    norm.weight.val().cast(DType::F32) + 1.0
}
