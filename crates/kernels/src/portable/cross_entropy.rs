use burn::tensor::module::linear;
use burn::tensor::{Int, Tensor};

use crate::cross_entropy::cross_entropy;

/// See [`crate::linear_cross_entropy`].
pub fn linear_cross_entropy(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
) -> Tensor<1> {
    linear_cross_entropy_with(hidden, weight, targets, weights, None)
}

/// See [`crate::linear_cross_entropy_with`].
pub fn linear_cross_entropy_with(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
    softcap: Option<f64>,
) -> Tensor<1> {
    let logits = linear(hidden, weight, None);
    let logits = match softcap {
        Some(cap) => (logits / cap).tanh() * cap,
        None => logits,
    };
    cross_entropy(logits, targets, weights)
}
