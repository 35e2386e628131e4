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
    cross_entropy(linear(hidden, weight, None), targets, weights)
}
