use burn::tensor::{DType, Tensor};

use crate::clip::TINY;

/// See [`crate::clip_norm`].
pub fn clip_norm(gradients: Vec<Tensor<1>>, max_norm: f64) -> Vec<Tensor<1>> {
    // Squares overflow f16 and lose bf16's few digits.
    let squares = gradients
        .iter()
        .map(|gradient| gradient.clone().cast(DType::F32).square().sum());
    let Some(sum) = squares.reduce(|sum, squares| sum + squares) else {
        return gradients;
    };
    let scale = sum
        .sqrt()
        .add_scalar(TINY)
        .recip()
        .mul_scalar(max_norm)
        .clamp_max(1.0);
    let scaled = |gradient: Tensor<1>| {
        let scale = scale.clone().cast(gradient.dtype());
        gradient * scale
    };
    gradients.into_iter().map(scaled).collect()
}
