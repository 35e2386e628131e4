//! The activations of inner layers, under the names they have in `config.json`.

use burn::tensor::{Tensor, activation};
use burn_lora_kernels::{gelu, gelu_tanh, silu_mul, silu_mul_halves};

/// An activation. Names that differ for the same function are kept apart, so that a file is written as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// `x sigmoid(x)`
    Silu,
    /// As [`Silu`](Self::Silu).
    Swish,
    /// [`gelu()`]
    Gelu,
    /// As [`Gelu`](Self::Gelu).
    GeluPython,
    /// [`gelu_tanh()`]
    GeluNew,
    /// As [`GeluNew`](Self::GeluNew).
    GeluFast,
    /// As [`GeluNew`](Self::GeluNew).
    GeluPytorchTanh,
    /// `max(x, 0)`
    Relu,
    /// `tanh(x)`
    Tanh,
}

const NAMES: [(&str, Activation); 9] = [
    ("silu", Activation::Silu),
    ("swish", Activation::Swish),
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::GeluPython),
    ("gelu_new", Activation::GeluNew),
    ("gelu_fast", Activation::GeluFast),
    ("gelu_pytorch_tanh", Activation::GeluPytorchTanh),
    ("relu", Activation::Relu),
    ("tanh", Activation::Tanh),
];

impl Activation {
    /// The activation of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let known = NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, activation)| *activation)
    }

    /// Its name in `config.json`.
    pub fn name(self) -> &'static str {
        let known = NAMES.iter().find(|(_, known)| *known == self);
        known.map_or("", |(name, _)| name)
    }

    /// All names.
    pub fn names() -> [&'static str; NAMES.len()] {
        NAMES.map(|(name, _)| name)
    }

    /// All names, for an error.
    pub(crate) fn known() -> String {
        NAMES.map(|(name, _)| name).join(", ")
    }

    /// # Shapes
    ///
    /// - x, output: the same shape
    pub(crate) fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Silu | Self::Swish => activation::silu(x),
            Self::Gelu | Self::GeluPython => gelu(x),
            Self::GeluNew | Self::GeluFast | Self::GeluPytorchTanh => gelu_tanh(x),
            Self::Relu => activation::relu(x),
            Self::Tanh => x.tanh(),
        }
    }

    /// `apply(gate) * up`, the gated layer of arXiv:2002.05202.
    ///
    /// # Shapes
    ///
    /// - gate, up, output: the same shape
    pub(crate) fn gate<const D: usize>(self, gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Silu | Self::Swish => silu_mul(gate, up),
            other => other.apply(gate) * up,
        }
    }

    /// [`gate`](Self::gate) of the two halves of each row.
    ///
    /// # Shapes
    ///
    /// - x: `[..., 2 * d]`
    /// - output: `[..., d]`
    pub(crate) fn gate_halves<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        if self.has_halves() {
            return silu_mul_halves(x);
        }
        let half = x.dims()[D - 1] / 2;
        let gate = x.clone().narrow(D - 1, 0, half);
        self.gate(gate, x.narrow(D - 1, half, half))
    }

    /// Whether [`gate_halves`](Self::gate_halves) costs no more than [`gate`](Self::gate).
    pub(crate) fn has_halves(self) -> bool {
        matches!(self, Self::Silu | Self::Swish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_its_own() {
        for (name, activation) in NAMES {
            assert_eq!(Activation::from_name(name), Some(activation));
            assert_eq!(activation.name(), name);
        }
        assert_eq!(Activation::from_name("mish"), None);
    }
}
