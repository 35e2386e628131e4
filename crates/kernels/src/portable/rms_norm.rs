use burn::tensor::Tensor;

use crate::precision::accumulator;

/// See [`crate::rms_norm`].
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f64) -> Tensor<D> {
    let dtype = x.dtype();
    let x = x.cast(accumulator(dtype));
    // Multiplying by a reciprocal rather than dividing: the backward of a division by a row statistic builds four
    // full-size temporaries, that of a product two.
    let inverse = (x.clone().square().mean_dim(D - 1) + eps).sqrt().recip();
    if weight.dtype() == dtype {
        return (x * inverse).cast(dtype) * weight.unsqueeze();
    }
    (x * inverse * weight.cast(accumulator(dtype)).unsqueeze()).cast(dtype)
}
