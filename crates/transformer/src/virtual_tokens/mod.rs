//! Virtual tokens: what is trained stands in front of every sequence, and the model stays as it is.

mod config;
mod error;
mod files;
mod front;
mod host;
mod p_tuning;
mod prefix;
mod prompt;
mod row_tokens;
mod slot;

use burn::tensor::Tensor;

pub use config::{PromptEncoderKind, PromptInit, VirtualTokensConfig};
pub use error::VirtualTokensError;
pub(crate) use front::{Front, LayerPrefix};
pub use host::WithVirtualTokens;
pub(crate) use host::{Host, Sizes};
pub use p_tuning::{PTuning, PromptEncoder};
pub use prefix::{PrefixProjection, PrefixTuning};
pub use prompt::PromptTuning;
pub(crate) use row_tokens::{RowTokens, behind, padding_with, with_places};
pub(crate) use slot::TokenSlot;

use crate::named::one_of;

/// One of the methods, as a part of a model ([`WithVirtualTokens`]).
///
/// The tokens are at the positions before a row's first one, and every token sees them.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there are few in each model")]
pub enum VirtualTokens {
    /// Embeddings.
    Prompt(PromptTuning),
    /// Embeddings that a small network makes.
    PTuning(PTuning),
    /// Keys and values of every layer.
    Prefix(PrefixTuning),
}

one_of!(VirtualTokens {
    Prompt,
    PTuning,
    Prefix
});

impl VirtualTokens {
    /// How many they are.
    pub fn count(&self) -> usize {
        let embedding = match self {
            Self::Prompt(prompt) => &prompt.embedding,
            Self::PTuning(prompt) => &prompt.embedding,
            Self::Prefix(prefix) => &prefix.embedding,
        };
        embedding.lazy_shape()[0]
    }

    pub(crate) fn is_prefix(&self) -> bool {
        matches!(self, Self::Prefix(_))
    }

    /// Everything that keeps them from standing in front of this model's tokens.
    pub(crate) fn faults(&self, sizes: Sizes) -> Vec<String> {
        let (count, max_positions) = (self.count(), sizes.max_positions);
        let mut faults = Vec::new();
        if count == 0 {
            faults.push("there are 0 of them".to_string());
        }
        if count >= max_positions {
            faults.push(format!(
                "{count} of them leave no room in {max_positions} positions"
            ));
        }
        let expected = sizes.columns(self.is_prefix());
        let found = self.flattened().dims()[1];
        if found != expected {
            faults.push(format!(
                "each has {found} numbers, the model needs {expected}"
            ));
        }
        faults
    }

    /// What stands in front of a batch, and what a file of PEFT holds.
    ///
    /// # Shapes
    ///
    /// - output: `[count, d_model]`, of a prefix `[count, layers * 2 * kv_heads * d_head]`
    pub fn flattened(&self) -> Tensor<2> {
        match self {
            Self::Prompt(prompt) => prompt.embedding.val(),
            Self::PTuning(prompt) => prompt.forward(),
            Self::Prefix(prefix) => prefix.forward(),
        }
    }
}
