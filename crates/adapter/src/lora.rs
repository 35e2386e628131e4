use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{DType, Distribution, Tensor};

use crate::factors::Factors;

/// A low-rank change of one weight (Hu et al., 2021, "LoRA: Low-Rank Adaptation of Large Language Models").
///
/// `y = x W + s (dropout(x) A) B`, with `s = alpha / r`, or `alpha / sqrt(r)` for rsLoRA (Kalajdzievski, 2023). The
/// factors are f32 whatever the dtype of `W`.
#[derive(Module, Debug)]
pub struct Lora {
    /// Down-projection, shape `[d_in, rank]`.
    pub a: Param<Tensor<2>>,
    /// Up-projection, shape `[rank, d_out]`.
    pub b: Param<Tensor<2>>,
    /// The numerator of the scale.
    pub alpha: f64,
    /// What the low-rank product is multiplied by.
    pub scale: f64,
    /// Probability that an input of the adapter is dropped while its factors are trained.
    pub dropout: f64,
    /// The factors that it started from, where the weight lost them ([`Initialization::changes_base`]). A file then has the
    /// difference from them, which is a LoRA for the weight as it was.
    ///
    /// [`Initialization::changes_base`]: crate::Initialization::changes_base
    #[module(skip)]
    pub start: Option<Arc<Factors>>,
}

impl Lora {
    /// The inner dimension of the two factors.
    pub fn rank(&self) -> usize {
        self.b.lazy_shape()[0]
    }

    /// How many parameters the adapter trains: `r (d_in + d_out)`.
    pub fn num_parameters(&self) -> usize {
        self.a.lazy_shape().num_elements() + self.b.lazy_shape().num_elements()
    }

    /// The dense change of the weight, `s A B`, in the factors' dtype.
    ///
    /// # Shapes
    /// - output: `[d_in, d_out]`
    pub fn delta(&self) -> Tensor<2> {
        self.a.val().matmul(self.b.val()).mul_scalar(self.scale)
    }
}

/// Whether gradients are wanted for a parameter. During the first forward of a recomputation its value is out of the
/// graph, and only the parameter's own setting tells.
pub(crate) fn is_trained(param: &Param<Tensor<2>>) -> bool {
    let value = param.base();
    value.is_require_grad() || value.is_autodiff() && param.valid().train().base().is_require_grad()
}

/// Casts where the dtype differs: Burn does not promote, and a cast to the same dtype would still be an operation.
pub(crate) fn cast<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    if x.dtype() == dtype { x } else { x.cast(dtype) }
}

/// Inverted dropout (Srivastava et al., 2014): what is kept is scaled by `1 / (1 - p)`.
pub(crate) fn drop_inputs<const D: usize>(x: Tensor<D>, probability: f64) -> Tensor<D> {
    let keep = 1.0 - probability;
    let mask = x.random_like(Distribution::Bernoulli(keep));
    x.mul(mask).div_scalar(keep)
}
