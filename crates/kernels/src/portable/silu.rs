use burn::tensor::{Tensor, activation};

/// See [`crate::silu_mul`].
pub fn silu_mul<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    activation::silu(gate) * up
}
