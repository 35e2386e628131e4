//! Norms with the parameter names of Hugging Face checkpoints.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn_lora_kernels::{layer_norm, residual_layer_norm, residual_rms_norm, rms_norm};

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

    /// [`residual_rms_norm`] with its weight.
    ///
    /// # Shapes
    ///
    /// - x, change: `[..., d]`
    /// - output: `x + change`, and its norm
    pub fn residual<const D: usize>(
        &self,
        x: Tensor<D>,
        change: Option<Tensor<D>>,
    ) -> [Tensor<D>; 2] {
        residual_rms_norm(x, change, self.weight.val(), self.eps)
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
        layer_norm(x, self.weight.val(), self.bias(), self.eps)
    }

    /// [`residual_layer_norm`] with its weight and bias.
    ///
    /// # Shapes
    ///
    /// - x, change: `[..., d]`
    /// - output: `x + change`, and its norm
    pub fn residual<const D: usize>(
        &self,
        x: Tensor<D>,
        change: Option<Tensor<D>>,
    ) -> [Tensor<D>; 2] {
        residual_layer_norm(x, change, self.weight.val(), self.bias(), self.eps)
    }

    /// The bias, or one of 0.
    fn bias(&self) -> Tensor<1> {
        match &self.bias {
            Some(bias) => bias.val(),
            None => {
                let weight = self.weight.val();
                let device = weight.device().without_autodiff();
                Tensor::zeros(weight.dims(), (&device, weight.dtype()))
            }
        }
    }
}
