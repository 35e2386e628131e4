use burn::tensor::{DType, Tensor};

use crate::clip::{Clipped, TINY};

/// See [`crate::clip_norm`].
pub fn clip_norm(gradients: Vec<Tensor<1>>, max_norm: Option<f64>) -> Clipped {
    // Squares overflow f16 and lose bf16's few digits.
    let squares = gradients
        .iter()
        .map(|gradient| gradient.clone().cast(DType::F32).square().sum());
    let norm = squares
        .reduce(|sum, squares| sum + squares)
        .map(Tensor::sqrt);
    let (Some(max_norm), Some(known)) = (max_norm, norm.clone()) else {
        return Clipped { gradients, norm };
    };
    let scale = known
        .add_scalar(TINY)
        .recip()
        .mul_scalar(max_norm)
        .clamp_max(1.0);
    let scaled = |gradient: Tensor<1>| {
        let scale = scale.clone().cast(gradient.dtype());
        gradient * scale
    };
    let gradients = gradients.into_iter().map(scaled).collect();
    Clipped { gradients, norm }
}
