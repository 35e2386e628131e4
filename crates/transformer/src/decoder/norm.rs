use burn::tensor::{DType, Tensor};
use burn_lora_kernels::rms_norm;

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
            Self::RmsFromOne(norm) => {
                // In f32: beside a 1, bf16 keeps next to nothing of a small difference from it.
                let weight = norm.weight.val().cast(DType::F32) + 1.0;
                rms_norm(x, weight, norm.eps)
            }
        }
    }
}
