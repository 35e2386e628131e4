//! Low-rank adapters as numbers on the host, apart from any module: what is combined, extracted, converted and exchanged.

mod combine;
mod convert;
mod extract;
mod module;
mod portable;
mod prune;
pub(crate) mod reading;
mod saving;

use std::collections::BTreeMap;

use burn_lora_linalg::Matrix;

pub use combine::{Combination, CombinationMethod, combine};
pub(crate) use convert::plain_layer;
pub use convert::to_plain;
pub use extract::{ExtractRank, Extracted, NamedPair, extract, extract_layer};
pub(crate) use module::host;
pub use prune::MajoritySign;

/// The change of one weight: `scale A B`.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors {
    /// Down-projection, `[d_in, rank]`.
    pub a: Matrix,
    /// Up-projection, `[rank, d_out]`.
    pub b: Matrix,
    /// What the product is multiplied by.
    pub scale: f64,
}

impl Factors {
    /// The inner dimension.
    pub fn rank(&self) -> usize {
        self.a.columns()
    }

    /// `[d_in, d_out]`
    pub fn shape(&self) -> [usize; 2] {
        [self.a.rows(), self.b.columns()]
    }

    /// The dense change, `[d_in, d_out]`.
    pub fn delta(&self) -> Matrix {
        (&self.a * &self.b).scaled(self.scale)
    }

    /// Whether no number is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        self.a.is_finite() && self.b.is_finite() && self.scale.is_finite()
    }
}

/// A LoRA adapter: the factors of each layer by the layer's path (`model.layers.0.self_attn.q_proj`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FactorSet {
    /// By path.
    pub layers: BTreeMap<String, Factors>,
}

impl FactorSet {
    /// The factors of a layer.
    pub fn get(&self, path: &str) -> Option<&Factors> {
        self.layers.get(path)
    }
}

impl FromIterator<(String, Factors)> for FactorSet {
    fn from_iter<I: IntoIterator<Item = (String, Factors)>>(layers: I) -> Self {
        Self {
            layers: layers.into_iter().collect(),
        }
    }
}
