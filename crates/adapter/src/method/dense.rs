use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::AdapterMethod;

/// A change of every number of a weight, or of a bias: full fine-tuning as an adapter, which can be switched off, merged and
/// put aside as any other, and BitFit (Ben Zaken et al., 2021, arXiv:2106.10199) where it is on biases only.
///
/// `W' = W + s D`. It is the bias of LoRA's up-projection, too (`lora_bias`), where s is LoRA's scale; else s is 1. Weight
/// decay pulls D to 0, and so the weight to where it started.
#[derive(Module, Debug)]
pub struct Dense {
    /// The change, `[d_in, d_out]` or `[1, n]`; starts at 0.
    pub delta: Param<Tensor<2>>,
    /// What it is multiplied by.
    pub scale: f64,
    /// Whether it is the bias of LoRA's up-projection.
    pub of_lora: bool,
}

impl AdapterMethod for Dense {
    fn parameters(&self) -> Vec<&Param<Tensor<2>>> {
        vec![&self.delta]
    }

    fn delta(&self) -> Option<Tensor<2>> {
        Some(match self.scale == 1.0 {
            true => self.delta.val(),
            false => self.delta.val().mul_scalar(self.scale),
        })
    }

    fn scale(&self) -> Option<f64> {
        Some(self.scale)
    }
}
