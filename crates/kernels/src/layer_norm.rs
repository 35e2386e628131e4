use burn::tensor::Tensor;

#[cfg(feature = "cube")]
use crate::cube;
#[cfg(feature = "host")]
use crate::host;
use crate::portable;
use crate::rms_norm::added;

/// Layer normalization over the last dimension (arXiv:1607.06450), with the biased variance.
///
/// `y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias`
///
/// Computed in `f32`, returned in the dtype of `x`.
///
/// # Shapes
///
/// - x: `[..., d]`
/// - weight, bias: `[d]`
/// - output: `[..., d]`
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    #[cfg(feature = "host")]
    if host::takes(&x) {
        return host::layer_norm(x, weight, bias, eps);
    }
    #[cfg(feature = "cube")]
    if cube::takes(&x) {
        return cube::layer_norm(x, weight, bias, eps);
    }
    portable::layer_norm(x, weight, bias, eps)
}

/// As [`residual_rms_norm`](crate::residual_rms_norm), by [`layer_norm`].
///
/// # Shapes
///
/// - x, change: `[..., d]`
/// - weight, bias: `[d]`
/// - output: `x + change`, and its norm, `[..., d]` each
pub fn residual_layer_norm<const D: usize>(
    x: Tensor<D>,
    change: Option<Tensor<D>>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> [Tensor<D>; 2] {
    #[cfg(feature = "cube")]
    if cube::takes_residual(&x, change.as_ref()) {
        return cube::residual_layer_norm(x, change, weight, bias, eps);
    }
    let sum = added(x, change);
    [sum.clone(), layer_norm(sum, weight, bias, eps)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_values, device};
    use burn::tensor::DType;

    #[test]
    fn centers_and_scales_each_row() {
        let device = device();
        let x = Tensor::<2>::from_floats([[1.0, 3.0], [-2.0, 2.0]], &device);
        let weight = Tensor::<1>::from_floats([2.0, 1.0], &device);
        let bias = Tensor::<1>::from_floats([0.5, -1.0], &device);
        let y = layer_norm(x, weight, bias, 0.0);
        assert_values(y, &[-1.5, 0.0, -1.5, 0.0]);
    }

    #[test]
    fn gradient_of_a_plain_sum_vanishes() {
        let device = device();
        let x = Tensor::<2>::from_floats([[1.0, 3.0, 7.0]], &device).require_grad();
        let ones = Tensor::<1>::ones([3], &device);
        let zeros = Tensor::<1>::zeros([3], &device);
        // The normalized row always sums to zero, whatever x is.
        let grads = layer_norm(x.clone(), ones, zeros, 1e-5).sum().backward();
        assert_values(x.grad(&grads).expect("x is tracked"), &[0.0, 0.0, 0.0]);
    }

    #[test]
    fn keeps_the_dtype() {
        let device = device();
        let x = Tensor::<2>::from_floats([[1.0, 3.0]], &device).cast(DType::BF16);
        let ones = Tensor::<1>::ones([2], &device).cast(DType::BF16);
        let y = layer_norm(x, ones.clone(), ones, 0.0);
        assert_eq!(y.dtype(), DType::BF16);
        assert_values(y.cast(DType::F32), &[0.0, 2.0]);
    }
}
