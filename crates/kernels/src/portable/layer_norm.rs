use burn::tensor::Tensor;

use crate::precision::accumulator;

/// See [`crate::layer_norm`].
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    let dtype = x.dtype();
    let wide = accumulator(dtype);
    let x = x.cast(wide);
    let mean = x.clone().mean_dim(D - 1);
    let centered = x - mean;
    let inverse = (centered.clone().square().mean_dim(D - 1) + eps)
        .sqrt()
        .recip();
    let y = centered * inverse * weight.cast(wide).unsqueeze() + bias.cast(wide).unsqueeze();
    y.cast(dtype)
}
