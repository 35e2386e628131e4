//! GPT-2: pre-norm blocks with learned positions, LayerNorm, and linear layers stored as `[d_in, d_out]`.

use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Int, Tensor};
use burn_lora_adapter::project;
use burn_lora_kernels::{AttentionMask, attention, gelu_tanh};

use crate::cache::{KvCache, LayerWriter};
use crate::config::Gpt2Config;
use crate::llama::tied_head;
use crate::norm::LayerNorm;
use crate::positions::Positions;
use crate::verify::Leniency;
use crate::weights::Weights;

/// GPT-2 (Radford et al., 2019).
#[derive(Module, Debug)]
pub struct Gpt2 {
    /// Embeddings, blocks and the last norm.
    pub transformer: Gpt2Model,
    /// The head, unless it is the transposed embedding.
    pub lm_head: Option<Linear>,
    #[module(skip)]
    config: Gpt2Config,
}

/// All of [`Gpt2`] but the head.
#[derive(Module, Debug)]
pub struct Gpt2Model {
    /// Tokens, `[vocab, n_embd]`.
    pub wte: Embedding,
    /// Positions, `[n_positions, n_embd]`.
    pub wpe: Embedding,
    /// The blocks.
    pub h: Vec<Gpt2Block>,
    /// Before the head.
    pub ln_f: LayerNorm,
}

/// One block: `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Module, Debug)]
pub struct Gpt2Block {
    /// Before attention.
    pub ln_1: LayerNorm,
    /// Attention.
    pub attn: Gpt2Attention,
    /// Before the inner layer.
    pub ln_2: LayerNorm,
    /// The inner layer.
    pub mlp: Gpt2Mlp,
}

/// Multi-head attention with one projection for query, key and value.
#[derive(Module, Debug)]
pub struct Gpt2Attention {
    /// `[n_embd, 3 * n_embd]`
    pub c_attn: Linear,
    /// `[n_embd, n_embd]`
    pub c_proj: Linear,
    n_heads: usize,
}

/// `c_proj(gelu(c_fc(x)))`.
#[derive(Module, Debug)]
pub struct Gpt2Mlp {
    /// `[n_embd, n_inner]`
    pub c_fc: Linear,
    /// `[n_inner, n_embd]`
    pub c_proj: Linear,
}

impl Gpt2 {
    pub(crate) fn build(config: &Gpt2Config, weights: &mut Weights<'_>) -> Self {
        let (vocab, d) = (config.vocab_size, config.n_embd);
        let wte = weights.embedding("transformer.wte", vocab, d);
        let wpe = weights.embedding("transformer.wpe", config.n_positions, d);
        let h = (0..config.n_layer)
            .map(|index| Gpt2Block::build(config, &format!("transformer.h.{index}"), weights))
            .collect();
        let ln_f = weights.layer_norm("transformer.ln_f", d, config.layer_norm_epsilon);
        let untied = !config.tie_word_embeddings;
        Self {
            transformer: Gpt2Model { wte, wpe, h, ln_f },
            lm_head: untied.then(|| weights.linear("lm_head", d, vocab, false)),
            config: config.clone(),
        }
    }

    pub(crate) fn leniency(config: &Gpt2Config) -> Leniency {
        Leniency {
            prefix: "transformer.",
            // The causal mask, which older libraries stored beside the weights.
            harmless: &[".attn.bias", ".attn.masked_bias"],
            tied_to: config
                .tie_word_embeddings
                .then_some("transformer.wte.weight"),
            ..Leniency::default()
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Gpt2Config {
        &self.config
    }

    pub(crate) fn hidden(
        &self,
        ids: Tensor<2, Int>,
        positions: &Positions<'_>,
        mut cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let device = ids.device();
        let tokens = self.transformer.wte.forward(ids); // [batch, seq, n_embd]
        let places = self.transformer.wpe.forward(positions.tensor(&device)); // [batch or 1, seq, n_embd]
        let mut x = tokens + places;
        let mask = positions.mask(&device);
        for (index, block) in self.transformer.h.iter().enumerate() {
            let cache = cache.as_deref_mut().map(|cache| cache.layer(index));
            x = block.forward(x, &mask, cache);
        }
        self.transformer.ln_f.forward(x)
    }

    pub(crate) fn logits<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        match &self.lm_head {
            Some(head) => project(head, hidden),
            None => tied_head(&self.transformer.wte, hidden),
        }
    }
}

impl Gpt2Block {
    fn build(config: &Gpt2Config, path: &str, weights: &mut Weights<'_>) -> Self {
        let (d, eps) = (config.n_embd, config.layer_norm_epsilon);
        Self {
            ln_1: weights.layer_norm(&format!("{path}.ln_1"), d, eps),
            attn: Gpt2Attention::build(config, &format!("{path}.attn"), weights),
            ln_2: weights.layer_norm(&format!("{path}.ln_2"), d, eps),
            mlp: Gpt2Mlp::build(config, &format!("{path}.mlp"), weights),
        }
    }

    fn forward(
        &self,
        x: Tensor<3>,
        mask: &AttentionMask,
        cache: Option<LayerWriter<'_>>,
    ) -> Tensor<3> {
        let normed = self.ln_1.forward(x.clone());
        let x = x + self.attn.forward(normed, mask, cache);
        let normed = self.ln_2.forward(x.clone());
        x + self.mlp.forward(normed)
    }
}

/// Projections that write into the residual stream start smaller, by the number of them.
fn residual_std(config: &Gpt2Config, weights: &Weights<'_>) -> f64 {
    weights.std() / (2.0 * config.n_layer as f64).sqrt()
}

impl Gpt2Attention {
    fn build(config: &Gpt2Config, path: &str, weights: &mut Weights<'_>) -> Self {
        let d = config.n_embd;
        let std = (weights.std(), residual_std(config, weights));
        Self {
            c_attn: weights.conv1d(&format!("{path}.c_attn"), d, 3 * d, std.0),
            c_proj: weights.conv1d(&format!("{path}.c_proj"), d, d, std.1),
            n_heads: config.n_head,
        }
    }

    fn forward(
        &self,
        x: Tensor<3>,
        mask: &AttentionMask,
        cache: Option<LayerWriter<'_>>,
    ) -> Tensor<3> {
        let [batch, seq, d] = x.dims();
        let qkv = project(&self.c_attn, x); // [batch, seq, 3 * n_embd]
        let heads = |part: usize| -> Tensor<4> {
            qkv.clone()
                .slice([0..batch, 0..seq, part * d..(part + 1) * d])
                .reshape([batch, seq, self.n_heads, d / self.n_heads])
                .swap_dims(1, 2) // [batch, heads, seq, d_head]
        };
        let (q, k, v) = (heads(0), heads(1), heads(2));
        let (k, v) = match cache {
            Some(cache) => cache.append(k, v),
            None => (k, v),
        };
        let y = attention(q, k, v, mask).swap_dims(1, 2); // [batch, seq, heads, d_head]
        project(&self.c_proj, y.reshape([batch, seq, d]))
    }
}

impl Gpt2Mlp {
    fn build(config: &Gpt2Config, path: &str, weights: &mut Weights<'_>) -> Self {
        let (d, inner) = (config.n_embd, config.n_inner);
        let std = (weights.std(), residual_std(config, weights));
        Self {
            c_fc: weights.conv1d(&format!("{path}.c_fc"), d, inner, std.0),
            c_proj: weights.conv1d(&format!("{path}.c_proj"), inner, d, std.1),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        project(&self.c_proj, gelu_tanh(project(&self.c_fc, x)))
    }
}
