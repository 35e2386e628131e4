//! The decoder of the Llama family: pre-norm blocks with grouped-query attention, rotary positions and a gated layer.

use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Int, Tensor};
use burn_lora_adapter::project;
use burn_lora_kernels::{AttentionMask, Rope, RopeTables, attention, projection, silu_mul};

use crate::cache::{KvCache, LayerWriter};
use crate::config::LlamaConfig;
use crate::norm::RmsNorm;
use crate::positions::Positions;
use crate::verify::Leniency;
use crate::weights::Weights;

/// Llama (arXiv:2302.13971) and the models that differ from it in data only.
#[derive(Module, Debug)]
pub struct Llama {
    /// Embedding, blocks and the last norm.
    pub model: LlamaModel,
    /// The head, unless it is the transposed embedding.
    pub lm_head: Option<Linear>,
    #[module(skip)]
    config: LlamaConfig,
}

/// All of [`Llama`] but the head.
#[derive(Module, Debug)]
pub struct LlamaModel {
    /// `[vocab, hidden]`
    pub embed_tokens: Embedding,
    /// The blocks.
    pub layers: Vec<LlamaLayer>,
    /// Before the head.
    pub norm: RmsNorm,
    #[module(skip)]
    rope: Rope,
}

/// One block: `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Module, Debug)]
pub struct LlamaLayer {
    /// Before attention.
    pub input_layernorm: RmsNorm,
    /// Attention.
    pub self_attn: LlamaAttention,
    /// Before the gated layer.
    pub post_attention_layernorm: RmsNorm,
    /// The gated layer.
    pub mlp: LlamaMlp,
}

/// Grouped-query attention over rotated queries and keys.
#[derive(Module, Debug)]
pub struct LlamaAttention {
    /// `[hidden, heads * d_head]`
    pub q_proj: Linear,
    /// `[hidden, kv_heads * d_head]`
    pub k_proj: Linear,
    /// `[hidden, kv_heads * d_head]`
    pub v_proj: Linear,
    /// `[heads * d_head, hidden]`
    pub o_proj: Linear,
    d_head: usize,
}

/// SwiGLU (arXiv:2002.05202): `down(silu(gate(x)) * up(x))`.
#[derive(Module, Debug)]
pub struct LlamaMlp {
    /// `[hidden, intermediate]`
    pub gate_proj: Linear,
    /// `[hidden, intermediate]`
    pub up_proj: Linear,
    /// `[intermediate, hidden]`
    pub down_proj: Linear,
}

impl Llama {
    pub(crate) fn build(config: &LlamaConfig, weights: &mut Weights<'_>) -> Self {
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let embed_tokens = weights.embedding("model.embed_tokens", vocab, hidden);
        let layers = (0..config.num_hidden_layers)
            .map(|index| LlamaLayer::build(config, &format!("model.layers.{index}"), weights))
            .collect();
        let norm = weights.rms_norm("model.norm", hidden, config.rms_norm_eps);
        let untied = !config.tie_word_embeddings;
        Self {
            model: LlamaModel {
                embed_tokens,
                layers,
                norm,
                rope: Rope::new(config.head_dim, config.rope_theta, config.rope_scaling),
            },
            lm_head: untied.then(|| weights.linear("lm_head", hidden, vocab, false)),
            config: config.clone(),
        }
    }

    pub(crate) fn leniency(config: &LlamaConfig) -> Leniency {
        Leniency {
            prefix: "model.",
            harmless: &["rotary_emb.inv_freq"],
            tied_to: config
                .tie_word_embeddings
                .then_some("model.embed_tokens.weight"),
            ..Leniency::default()
        }
    }

    /// The configuration.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    pub(crate) fn hidden(
        &self,
        ids: Tensor<2, Int>,
        positions: &Positions<'_>,
        mut cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let device = ids.device();
        let mut x = self.model.embed_tokens.forward(ids); // [batch, seq, hidden]
        let mask = positions.mask(&device);
        let rope =
            self.model
                .rope
                .tables(&positions.values(), positions.rows(), x.dtype(), &device);
        for (index, layer) in self.model.layers.iter().enumerate() {
            let cache = cache.as_deref_mut().map(|cache| cache.layer(index));
            x = layer.forward(x, &rope, &mask, cache);
        }
        self.model.norm.forward(x)
    }

    pub(crate) fn logits<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        match &self.lm_head {
            Some(head) => project(head, hidden),
            None => tied_head(&self.model.embed_tokens, hidden),
        }
    }
}

/// The head that is the transposed embedding: a view, never a copy.
pub(crate) fn tied_head<const D: usize>(embedding: &Embedding, hidden: Tensor<D>) -> Tensor<D> {
    projection(hidden, embedding.weight.val().transpose(), None, None)
}

impl LlamaLayer {
    fn build(config: &LlamaConfig, path: &str, weights: &mut Weights<'_>) -> Self {
        let (hidden, eps) = (config.hidden_size, config.rms_norm_eps);
        let input_layernorm = weights.rms_norm(&format!("{path}.input_layernorm"), hidden, eps);
        let self_attn = LlamaAttention::build(config, &format!("{path}.self_attn"), weights);
        let post = format!("{path}.post_attention_layernorm");
        Self {
            input_layernorm,
            self_attn,
            post_attention_layernorm: weights.rms_norm(&post, hidden, eps),
            mlp: LlamaMlp::build(config, &format!("{path}.mlp"), weights),
        }
    }

    fn forward(
        &self,
        x: Tensor<3>,
        rope: &RopeTables,
        mask: &AttentionMask,
        cache: Option<LayerWriter<'_>>,
    ) -> Tensor<3> {
        let normed = self.input_layernorm.forward(x.clone());
        let x = x + self.self_attn.forward(normed, rope, mask, cache);
        let normed = self.post_attention_layernorm.forward(x.clone());
        x + self.mlp.forward(normed)
    }
}

impl LlamaAttention {
    fn build(config: &LlamaConfig, path: &str, weights: &mut Weights<'_>) -> Self {
        let (hidden, d_head) = (config.hidden_size, config.head_dim);
        let d_q = config.num_attention_heads * d_head;
        let d_kv = config.num_key_value_heads * d_head;
        let bias = config.has_qkv_bias();
        Self {
            q_proj: weights.linear(&format!("{path}.q_proj"), hidden, d_q, bias),
            k_proj: weights.linear(&format!("{path}.k_proj"), hidden, d_kv, bias),
            v_proj: weights.linear(&format!("{path}.v_proj"), hidden, d_kv, bias),
            o_proj: weights.linear(
                &format!("{path}.o_proj"),
                d_q,
                hidden,
                config.attention_bias,
            ),
            d_head,
        }
    }

    fn forward(
        &self,
        x: Tensor<3>,
        rope: &RopeTables,
        mask: &AttentionMask,
        cache: Option<LayerWriter<'_>>,
    ) -> Tensor<3> {
        let [batch, seq, _] = x.dims();
        let split = |x: Tensor<3>| -> Tensor<4> {
            let heads = x.dims()[2] / self.d_head;
            x.reshape([batch, seq, heads, self.d_head])
        };
        let q = rope.apply(split(project(&self.q_proj, x.clone())));
        let k = rope.apply(split(project(&self.k_proj, x.clone())));
        let v = split(project(&self.v_proj, x));

        let q = q.swap_dims(1, 2); // [batch, heads, seq, d_head]
        let (k, v) = (k.swap_dims(1, 2), v.swap_dims(1, 2)); // [batch, kv_heads, seq, d_head]
        let (k, v) = match cache {
            Some(cache) => cache.append(k, v),
            None => (k, v),
        };
        let y = attention(q, k, v, mask).swap_dims(1, 2); // [batch, seq, heads, d_head]
        let d_q = y.dims()[2] * self.d_head;
        project(&self.o_proj, y.reshape([batch, seq, d_q]))
    }
}

impl LlamaMlp {
    fn build(config: &LlamaConfig, path: &str, weights: &mut Weights<'_>) -> Self {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let bias = config.mlp_bias;
        Self {
            gate_proj: weights.linear(&format!("{path}.gate_proj"), hidden, inner, bias),
            up_proj: weights.linear(&format!("{path}.up_proj"), hidden, inner, bias),
            down_proj: weights.linear(&format!("{path}.down_proj"), inner, hidden, bias),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let gate = project(&self.gate_proj, x.clone());
        let up = project(&self.up_proj, x);
        project(&self.down_proj, silu_mul(gate, up))
    }
}
