//! What a decoder is made of, as data. Every family's configuration says it in these terms; nothing else in the decoder
//! knows of families.

use burn_lora_kernels::{Rope, Scores};

use super::names::Names;
use super::norm::NormKind;
use crate::activation::Activation;
use crate::verify::Leniency;

/// A decoder: `head(norm(block_n(... block_1(embedding(ids)))))`.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) names: &'static Names,
    pub(crate) vocab_size: usize,
    /// Width of the residual stream.
    pub(crate) d_model: usize,
    /// The longest sequence.
    pub(crate) max_positions: usize,
    /// Whether positions are an embedding of their own.
    pub(crate) learned_positions: bool,
    /// What the embedding of tokens is multiplied by.
    pub(crate) embedding_scale: Option<f64>,
    pub(crate) norm: NormPlan,
    pub(crate) linear: LinearForm,
    pub(crate) residual: Residual,
    pub(crate) attention: AttentionPlan,
    /// The rotations that layers choose from.
    pub(crate) ropes: Vec<Rope>,
    pub(crate) mlp: MlpPlan,
    /// In the place of the inner layer, where a layer is routed.
    pub(crate) experts: Option<ExpertsPlan>,
    pub(crate) layers: Vec<LayerPlan>,
    /// Whether the head is the transposed embedding.
    pub(crate) tied: bool,
    /// Bounds the logits: `c tanh(logit / c)`.
    pub(crate) logit_softcap: Option<f64>,
    /// Standard deviation of fresh matrices.
    pub(crate) initializer_range: f64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct NormPlan {
    pub(crate) kind: NormKind,
    pub(crate) eps: f64,
}

/// How checkpoints store the linear layers of blocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum LinearForm {
    /// `[d_out, d_in]`, as PyTorch's `nn.Linear`.
    Linear,
    /// `[d_in, d_out]` with a bias, as GPT-2's `Conv1D`. Fresh projections into the residual stream are `shrink` times
    /// as large as others.
    Conv1d { shrink: f64 },
}

/// How attention and inner layer meet the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Residual {
    /// `x + attention(norm(x))`, then `x + mlp(norm(x))`.
    Sequential,
    /// As [`Sequential`](Self::Sequential), and what is added is normalized too.
    Sandwich,
    /// `x + attention(norm(x)) + mlp(norm'(x))`
    Parallel,
}

#[derive(Debug, Clone)]
pub(crate) struct AttentionPlan {
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) d_head: usize,
    pub(crate) qkv: QkvForm,
    /// A bias on what makes queries, keys and values.
    pub(crate) qkv_bias: bool,
    /// A bias on the way out.
    pub(crate) out_bias: bool,
    /// Norms over each head of queries and keys.
    pub(crate) head_norms: bool,
    pub(crate) scores: Scores,
}

/// How many projections make queries, keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QkvForm {
    /// Three.
    Separate,
    /// One, all queries first, then all keys, then all values.
    Concatenated,
    /// One, and in it for each head its query, its key and its value.
    PerHead,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct MlpPlan {
    pub(crate) d_inner: usize,
    pub(crate) form: MlpForm,
    pub(crate) activation: Activation,
    pub(crate) bias: bool,
}

/// What stands between the residual stream and the activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MlpForm {
    /// `down(activation(up(x)))`
    Plain,
    /// `down(activation(gate(x)) * up(x))`
    Gated,
    /// As [`Gated`](Self::Gated), with one projection for gate and up, in this order.
    GatedFused,
}

/// A mixture of experts (arXiv:1701.06538, arXiv:2401.04088).
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpertsPlan {
    pub(crate) n: usize,
    /// How many experts a token goes to.
    pub(crate) top_k: usize,
    /// Whether their weights are made to add up to 1.
    pub(crate) normalize: bool,
    pub(crate) d_inner: usize,
}

/// In what a layer differs from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerPlan {
    /// Its rotation, if it has one.
    pub(crate) rope: Option<usize>,
    /// Its sliding window, if it has one.
    pub(crate) window: Option<usize>,
    /// Whether experts take the place of its inner layer.
    pub(crate) routed: bool,
}

impl Plan {
    /// The windows that occur, each once.
    pub(crate) fn windows(&self) -> Vec<Option<usize>> {
        let mut windows: Vec<Option<usize>> = Vec::new();
        for layer in &self.layers {
            if !windows.contains(&layer.window) {
                windows.push(layer.window);
            }
        }
        windows
    }

    /// Inner layers in all, each expert being one: a checkpoint has at least a tensor for each.
    pub(crate) fn n_inner_layers(&self) -> usize {
        let experts = self.experts.map_or(1, |experts| experts.n);
        let of_layer = |layer: &LayerPlan| if layer.routed { experts } else { 1 };
        self.layers.iter().map(of_layer).sum()
    }

    pub(crate) fn leniency(&self) -> Leniency {
        Leniency {
            prefix: self.names.prefix,
            harmless: self.names.harmless,
            tied_to: self.tied.then_some(self.names.tokens_weight),
            renamed: self.names.renamed,
            ..Leniency::default()
        }
    }
}
