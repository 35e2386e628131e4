use burn::tensor::Tensor;

#[cfg(feature = "cube")]
use crate::cube;
#[cfg(feature = "host")]
use crate::host;
use crate::portable;

/// GELU in its tanh form (arXiv:1606.08415), `gelu_new` in GPT-2's configuration.
///
/// `y = x / 2 * (1 + tanh(z))` with `z = sqrt(2 / pi) * (x + 0.044715 * x^3)`, which is also `x * sigmoid(2 z)`.
///
/// # Shapes
///
/// - x, output: the same shape
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "host")]
    if host::takes(&x) {
        return host::gelu(host::Gelu::Tanh, x);
    }
    #[cfg(feature = "cube")]
    if cube::takes(&x) {
        return cube::gelu(cube::Gelu::Tanh, x);
    }
    portable::gelu_tanh(x)
}

/// GELU (arXiv:1606.08415), `gelu` in BERT's configuration.
///
/// `y = x / 2 * (1 + erf(x / sqrt(2)))`
///
/// # Shapes
///
/// - x, output: the same shape
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "host")]
    if host::takes(&x) {
        return host::gelu(host::Gelu::Exact, x);
    }
    #[cfg(feature = "cube")]
    if cube::takes(&x) {
        return cube::gelu(cube::Gelu::Exact, x);
    }
    portable::gelu(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_values, device};

    fn reference(x: f32) -> f32 {
        let z = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        0.5 * x * (1.0 + z.tanh())
    }

    #[test]
    fn equals_the_tanh_form() {
        let xs = [-8.0, -1.5, -0.1, 0.0, 0.3, 2.0, 9.0];
        let x = Tensor::<1>::from_floats(xs, &device());
        assert_values(gelu_tanh(x), &xs.map(reference));
    }

    #[test]
    fn gradient_equals_a_difference_quotient() {
        let x = Tensor::<1>::from_floats([0.7], &device()).require_grad();
        let grads = gelu_tanh(x.clone()).sum().backward();
        let grad: f32 = x.grad(&grads).expect("x is tracked").into_scalar();
        let h = 1e-2;
        let quotient = (reference(0.7 + h) - reference(0.7 - h)) / (2.0 * h);
        assert!((grad - quotient).abs() < 1e-3, "{grad} against {quotient}");
    }
}
