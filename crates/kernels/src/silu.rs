use burn::tensor::Tensor;

#[cfg(feature = "cube")]
use crate::cube;
#[cfg(feature = "host")]
use crate::host;
use crate::portable;

/// The gated activation of SwiGLU (arXiv:2002.05202).
///
/// `y = gate * sigmoid(gate) * up`
///
/// # Shapes
///
/// - gate, up, output: the same shape
pub fn silu_mul<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "host")]
    if host::takes(&gate) {
        return host::silu_mul(gate, up);
    }
    #[cfg(feature = "cube")]
    if cube::takes(&gate) {
        return cube::silu_mul(gate, up);
    }
    portable::silu_mul(gate, up)
}

/// [`silu_mul`] of a gate and an up that one projection made: the first and the second half of each row.
///
/// # Shapes
///
/// - x: `[..., 2 * d]`
/// - output: `[..., d]`
///
/// # Panics
///
/// If a row has no two halves.
pub fn silu_mul_halves<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let width = x.dims()[D - 1];
    assert!(width.is_multiple_of(2), "{width} numbers have no halves");
    #[cfg(feature = "cube")]
    if cube::takes(&x) {
        return cube::silu_mul_halves(x);
    }
    let half = width / 2;
    let gate = x.clone().narrow(D - 1, 0, half);
    silu_mul(gate, x.narrow(D - 1, half, half))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_values, device};

    #[test]
    fn gates_the_second_operand() {
        let device = device();
        let gate = Tensor::<1>::from_floats([0.0, 1.0, -2.0], &device);
        let up = Tensor::<1>::from_floats([5.0, 2.0, 3.0], &device);
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        assert_values(
            silu_mul(gate, up),
            &[0.0, 2.0 * sigmoid(1.0), -6.0 * sigmoid(-2.0)],
        );
    }

    #[test]
    fn gradient_of_the_gate() {
        let device = device();
        let gate = Tensor::<1>::from_floats([0.5], &device).require_grad();
        let up = Tensor::<1>::from_floats([2.0], &device);
        let grads = silu_mul(gate.clone(), up).sum().backward();
        let s = 1.0 / (1.0 + (-0.5f32).exp());
        let expected = 2.0 * (s + 0.5 * s * (1.0 - s));
        assert_values(gate.grad(&grads).expect("gate is tracked"), &[expected]);
    }
}
