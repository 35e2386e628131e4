//! BERT: post-norm blocks over a whole sequence, seen from both sides, with learned positions, LayerNorm and a bias on
//! every linear layer.

use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Int, Tensor};
use burn_lora_adapter::project;
use burn_lora_kernels::{AttentionMask, attention, gelu};

use crate::config::BertConfig;
use crate::norm::LayerNorm;
use crate::verify::Leniency;
use crate::weights::Weights;

/// BERT (arXiv:1810.04805) without a head.
#[derive(Module, Debug)]
pub struct Bert {
    /// Tokens, positions and segments.
    pub embeddings: BertEmbeddings,
    /// The blocks.
    pub encoder: BertEncoder,
    /// What makes one vector of a sequence.
    pub pooler: BertDense,
}

/// `norm(word + position + segment)`.
#[derive(Debug, Clone)]
pub struct BertEmbeddings {
    /// Tokens, `[vocab, hidden]`.
    pub word_embeddings: Embedding,
    /// Positions, `[positions, hidden]`.
    pub position_embeddings: Embedding,
    /// Segments, `[segments, hidden]`; only the first is used.
    pub token_type_embeddings: Embedding,
    /// Over the sum; `LayerNorm` in paths.
    pub norm: LayerNorm,
}

/// The blocks under the name that the checkpoint gives them.
#[derive(Module, Debug)]
pub struct BertEncoder {
    /// The blocks.
    pub layer: Vec<BertLayer>,
}

/// One block: attention, then the inner layer, each added to its input and normalized.
#[derive(Module, Debug)]
pub struct BertLayer {
    /// Attention.
    pub attention: BertAttention,
    /// `[hidden, intermediate]`
    pub intermediate: BertDense,
    /// `[intermediate, hidden]`
    pub output: BertOutput,
}

/// Attention and what brings it back into the residual stream.
#[derive(Debug, Clone)]
pub struct BertAttention {
    /// The heads; `self` in paths.
    pub heads: BertHeads,
    /// `[hidden, hidden]`
    pub output: BertOutput,
}

/// Multi-head attention without its output projection.
#[derive(Module, Debug)]
pub struct BertHeads {
    /// `[hidden, hidden]`
    pub query: Linear,
    /// `[hidden, hidden]`
    pub key: Linear,
    /// `[hidden, hidden]`
    pub value: Linear,
    n_heads: usize,
}

/// `norm(dense(y) + x)`, x being the residual stream.
#[derive(Debug, Clone)]
pub struct BertOutput {
    /// Onto the width of the residual stream.
    pub dense: Linear,
    /// Over the sum; `LayerNorm` in paths.
    pub norm: LayerNorm,
}

/// A linear layer that stands alone under its name.
#[derive(Module, Debug)]
pub struct BertDense {
    /// The layer.
    pub dense: Linear,
}

/// What checkpoints of BERT and of its heads may do differently.
pub(crate) const LENIENCY: Leniency = Leniency {
    // A plain encoder leaves it out.
    prefix: "bert.",
    // The numbers from 0 on, which older libraries stored beside the weights.
    harmless: &["embeddings.position_ids"],
    tied_to: None,
    // The head of pretraining.
    other_heads: &["cls."],
    renamed: &[
        (".LayerNorm.weight", ".LayerNorm.gamma"),
        (".LayerNorm.bias", ".LayerNorm.beta"),
    ],
    optional: &["bert.pooler", "classifier"],
};

impl Bert {
    pub(crate) fn build(config: &BertConfig, weights: &mut Weights<'_>) -> Self {
        let d = config.hidden_size;
        let embeddings = BertEmbeddings::build(config, "bert.embeddings", weights);
        let layer = (0..config.num_hidden_layers)
            .map(|index| BertLayer::build(config, &format!("bert.encoder.layer.{index}"), weights))
            .collect();
        Self {
            embeddings,
            encoder: BertEncoder { layer },
            pooler: BertDense::build("bert.pooler", [d, d], weights),
        }
    }

    /// # Shapes
    ///
    /// - ids: `[batch, seq]`
    /// - output: `[batch, seq, hidden]`
    pub(crate) fn hidden(&self, ids: Tensor<2, Int>, mask: &AttentionMask) -> Tensor<3> {
        let x = self.embeddings.forward(ids);
        let layers = self.encoder.layer.iter();
        layers.fold(x, |x, layer| layer.forward(x, mask))
    }

    /// `tanh(dense(x))` of the first token.
    ///
    /// # Shapes
    ///
    /// - hidden: `[batch, seq, hidden]`
    /// - output: `[batch, hidden]`
    pub(crate) fn pooled(&self, hidden: Tensor<3>) -> Tensor<2> {
        let [batch, _, d] = hidden.dims();
        let first = hidden.slice([0..batch, 0..1]).reshape([batch, d]);
        project(&self.pooler.dense, first).tanh()
    }
}

impl BertEmbeddings {
    fn build(config: &BertConfig, path: &str, weights: &mut Weights<'_>) -> Self {
        let d = config.hidden_size;
        let mut embedding =
            |name: &str, n: usize| weights.embedding(&format!("{path}.{name}"), n, d);
        Self {
            word_embeddings: embedding("word_embeddings", config.vocab_size),
            position_embeddings: embedding("position_embeddings", config.max_position_embeddings),
            token_type_embeddings: embedding("token_type_embeddings", config.type_vocab_size),
            norm: weights.layer_norm(&format!("{path}.LayerNorm"), d, config.layer_norm_eps),
        }
    }

    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [_, seq] = ids.dims();
        let words = self.word_embeddings.forward(ids); // [batch, seq, hidden]
        let places = self.position_embeddings.weight.val().narrow(0, 0, seq); // [seq, hidden]
        let segment = self.token_type_embeddings.weight.val().narrow(0, 0, 1); // [1, hidden]
        self.norm
            .forward(words + (places + segment).unsqueeze::<3>())
    }
}

impl BertLayer {
    fn build(config: &BertConfig, path: &str, weights: &mut Weights<'_>) -> Self {
        let (d, inner) = (config.hidden_size, config.intermediate_size);
        let (attention, output) = (format!("{path}.attention"), format!("{path}.output"));
        Self {
            attention: BertAttention::build(config, &attention, weights),
            intermediate: BertDense::build(&format!("{path}.intermediate"), [d, inner], weights),
            output: BertOutput::build(config, &output, inner, weights),
        }
    }

    fn forward(&self, x: Tensor<3>, mask: &AttentionMask) -> Tensor<3> {
        let y = self.attention.heads.forward(x.clone(), mask);
        let x = self.attention.output.forward(y, x);
        let y = gelu(project(&self.intermediate.dense, x.clone())); // [batch, seq, intermediate]
        self.output.forward(y, x)
    }
}

impl BertAttention {
    fn build(config: &BertConfig, path: &str, weights: &mut Weights<'_>) -> Self {
        let d = config.hidden_size;
        let mut linear = |name: &str| weights.linear(&format!("{path}.self.{name}"), d, d, true);
        Self {
            heads: BertHeads {
                query: linear("query"),
                key: linear("key"),
                value: linear("value"),
                n_heads: config.num_attention_heads,
            },
            output: BertOutput::build(config, &format!("{path}.output"), d, weights),
        }
    }
}

impl BertHeads {
    fn forward(&self, x: Tensor<3>, mask: &AttentionMask) -> Tensor<3> {
        let [batch, seq, d] = x.dims();
        let heads = |layer: &Linear, x: Tensor<3>| -> Tensor<4> {
            project(layer, x)
                .reshape([batch, seq, self.n_heads, d / self.n_heads])
                .swap_dims(1, 2) // [batch, heads, seq, d_head]
        };
        let q = heads(&self.query, x.clone());
        let k = heads(&self.key, x.clone());
        let v = heads(&self.value, x);
        let y = attention(q, k, v, mask).swap_dims(1, 2); // [batch, seq, heads, d_head]
        y.reshape([batch, seq, d])
    }
}

impl BertOutput {
    fn build(config: &BertConfig, path: &str, d_in: usize, weights: &mut Weights<'_>) -> Self {
        let (d, eps) = (config.hidden_size, config.layer_norm_eps);
        Self {
            dense: weights.linear(&format!("{path}.dense"), d_in, d, true),
            norm: weights.layer_norm(&format!("{path}.LayerNorm"), d, eps),
        }
    }

    fn forward(&self, y: Tensor<3>, x: Tensor<3>) -> Tensor<3> {
        self.norm.forward(project(&self.dense, y) + x)
    }
}

impl BertDense {
    fn build(path: &str, [d_in, d_out]: [usize; 2], weights: &mut Weights<'_>) -> Self {
        Self {
            dense: weights.linear(&format!("{path}.dense"), d_in, d_out, true),
        }
    }
}
