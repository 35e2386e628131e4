use burn::tensor::Tensor;

#[cfg(feature = "cube")]
use crate::cube;
#[cfg(feature = "host")]
use crate::host;
use crate::portable;

/// Root mean square normalization over the last dimension (arXiv:1910.07467).
///
/// `y = x / sqrt(mean(x^2) + eps) * weight`
///
/// Computed in `f32`, returned in the dtype of `x`. A weight wider than `x` is applied before rounding.
///
/// # Shapes
///
/// - x: `[..., d]`
/// - weight: `[d]`
/// - output: `[..., d]`
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f64) -> Tensor<D> {
    #[cfg(feature = "host")]
    if host::takes(&x) {
        return host::rms_norm(x, weight, eps);
    }
    #[cfg(feature = "cube")]
    if cube::takes(&x) {
        return cube::rms_norm(x, weight, eps);
    }
    portable::rms_norm(x, weight, eps)
}

/// A residual stream with what is added to it, and its [`rms_norm`]: one pass over memory, forward and backward, where the two
/// would be separate otherwise.
///
/// # Shapes
///
/// - x, change: `[..., d]`
/// - weight: `[d]`
/// - output: `x + change`, and its norm, `[..., d]` each
pub fn residual_rms_norm<const D: usize>(
    x: Tensor<D>,
    change: Option<Tensor<D>>,
    weight: Tensor<1>,
    eps: f64,
) -> [Tensor<D>; 2] {
    #[cfg(feature = "cube")]
    if cube::takes_residual(&x, change.as_ref()) {
        return cube::residual_rms_norm(x, change, weight, eps);
    }
    let sum = added(x, change);
    [sum.clone(), rms_norm(sum, weight, eps)]
}

/// A residual stream with what is added to it.
pub(crate) fn added<const D: usize>(x: Tensor<D>, change: Option<Tensor<D>>) -> Tensor<D> {
    match change {
        Some(change) => x + change,
        None => x,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_values, device};
    use burn::tensor::DType;

    #[test]
    fn normalizes_each_row_by_its_root_mean_square() {
        let device = device();
        let x = Tensor::<2>::from_floats([[3.0, 4.0], [1.0, 1.0]], &device);
        let weight = Tensor::<1>::from_floats([1.0, 2.0], &device);
        // Row 0: mean(x^2) = 12.5.
        let r = 12.5f32.sqrt();
        let y = rms_norm(x, weight, 0.0);
        assert_values(y, &[3.0 / r, 8.0 / r, 1.0, 2.0]);
    }

    #[test]
    fn gradient_is_orthogonal_to_the_input_without_epsilon() {
        let device = device();
        let x = Tensor::<2>::from_floats([[3.0, 4.0]], &device).require_grad();
        let weight = Tensor::<1>::from_floats([1.0, 2.0], &device);
        let grads = rms_norm(x.clone(), weight, 0.0).sum().backward();
        // dy/dx_i = w_i / r - x_i * (sum_j w_j x_j) / (d r^3), here with sum = 11 and r^2 = 12.5.
        let r = 12.5f32.sqrt();
        let expected = [
            1.0 / r - 3.0 * 11.0 / (2.0 * r * r * r),
            2.0 / r - 4.0 * 11.0 / (2.0 * r * r * r),
        ];
        let grad = x.grad(&grads).expect("x is tracked");
        assert_values(grad, &expected);
    }

    #[test]
    fn statistics_of_low_precision_input_do_not_overflow() {
        let device = device();
        // 300^2 exceeds the largest f16.
        let x = Tensor::<2>::from_floats([[300.0, 300.0]], &device).cast(DType::F16);
        let weight = Tensor::<1>::from_floats([1.0, 1.0], &device).cast(DType::F16);
        let y = rms_norm(x, weight, 1e-6);
        assert_eq!(y.dtype(), DType::F16);
        assert_values(y.cast(DType::F32), &[1.0, 1.0]);
    }
}
