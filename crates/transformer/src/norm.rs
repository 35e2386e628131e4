//! Norms with the parameter names of Hugging Face checkpoints.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn_lora_kernels::{layer_norm, rms_norm};

/// Root mean square normalization, [`burn_lora_kernels::rms_norm`] with its weight.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[d]`
    pub weight: Param<Tensor<1>>,
    /// Added to the mean square.
    pub eps: f64,
}

impl RmsNorm {
    /// # Shapes
    ///
    /// - x: `[..., d]`
    /// - output: `[..., d]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        rms_norm(x, self.weight.val(), self.eps)
    }
}

/// Layer normalization, [`burn_lora_kernels::layer_norm`] with its weight and bias.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[d]`
    pub weight: Param<Tensor<1>>,
    /// `[d]`, where it has one.
    pub bias: Option<Param<Tensor<1>>>,
    /// Added to the variance.
    pub eps: f64,
}

impl LayerNorm {
    /// # Shapes
    ///
    /// - x: `[..., d]`
    /// - output: `[..., d]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let weight = self.weight.val();
        let bias = match &self.bias {
            Some(bias) => bias.val(),
            None => {
                let device = weight.device().without_autodiff();
                Tensor::zeros(weight.dims(), (&device, weight.dtype()))
            }
        };
        layer_norm(x, weight, bias, self.eps)
    }
}
