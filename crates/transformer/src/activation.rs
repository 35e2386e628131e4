use burn::tensor::{Tensor, activation};
use burn_lora_kernels::{gelu, gelu_tanh};

/// The nonlinearity of an inner layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Activation {
    Gelu,
    GeluTanh,
    Relu,
    Silu,
    Tanh,
}

impl Activation {
    /// The names that configurations have for them, one written by us first.
    const NAMES: [(Self, &'static [&'static str]); 5] = [
        (Self::Gelu, &["gelu", "gelu_python"]),
        (
            Self::GeluTanh,
            &["gelu_new", "gelu_pytorch_tanh", "gelu_fast"],
        ),
        (Self::Relu, &["relu"]),
        (Self::Silu, &["silu", "swish"]),
        (Self::Tanh, &["tanh"]),
    ];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let mut known = Self::NAMES.into_iter();
        known.find_map(|(activation, names)| names.contains(&name).then_some(activation))
    }

    /// All names, for an error.
    pub(crate) fn known() -> String {
        let names: Vec<&str> = Self::NAMES
            .iter()
            .flat_map(|(_, names)| *names)
            .copied()
            .collect();
        names.join(", ")
    }

    /// # Shapes
    ///
    /// - x, output: the same shape
    pub(crate) fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => gelu(x),
            Self::GeluTanh => gelu_tanh(x),
            Self::Relu => activation::relu(x),
            Self::Silu => activation::silu(x),
            Self::Tanh => x.tanh(),
        }
    }
}
