//! The activations of inner layers, under the names they have in `config.json`.

use burn::tensor::{Tensor, activation};
use burn_lora_kernels::{gelu, gelu_tanh, silu_mul};

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
    /// [`gelu_tanh()`]
    GeluNew,
    /// As [`GeluNew`](Self::GeluNew).
    GeluFast,
    /// As [`GeluNew`](Self::GeluNew).
    GeluPytorchTanh,
    /// `max(x, 0)`
    Relu,
}

const NAMES: [(&str, Activation); 7] = [
    ("silu", Activation::Silu),
    ("swish", Activation::Swish),
    ("gelu", Activation::Gelu),
    ("gelu_new", Activation::GeluNew),
    ("gelu_fast", Activation::GeluFast),
    ("gelu_pytorch_tanh", Activation::GeluPytorchTanh),
    ("relu", Activation::Relu),
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

    pub(crate) fn names() -> Vec<&'static str> {
        NAMES.iter().map(|(name, _)| *name).collect()
    }

    /// # Shapes
    ///
    /// - x, output: the same shape
    pub(crate) fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Silu | Self::Swish => activation::silu(x),
            Self::Gelu => gelu(x),
            Self::GeluNew | Self::GeluFast | Self::GeluPytorchTanh => gelu_tanh(x),
            Self::Relu => activation::relu(x),
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_its_own() {
        for name in Activation::names() {
            let activation = Activation::from_name(name).expect(name);
            assert_eq!(activation.name(), name);
        }
        assert_eq!(Activation::from_name("mish"), None);
    }
}
