use burn_lora_kernels::RopeScaling;

use super::family::{Family, llama_contradictions, llama_shape, routed, too_many};
use super::schema::schema;
use crate::activation::Activation;
use crate::decoder::names::LLAMA;
use crate::decoder::plan::{AttentionPlan, ExpertsPlan, Plan};

schema! {
    /// `config.json` of Qwen3-MoE: a Qwen3 with experts in the place of most inner layers, its fields under the names they have
    /// there.
    pub struct Qwen3MoeConfig {
        /// Tokens in the embedding.
        vocab_size: usize = 151_936, required;
        /// Width of the hidden states.
        hidden_size: usize = 2048, required;
        /// Width of an inner layer that is not routed.
        intermediate_size: usize = 6144, required;
        /// Number of blocks.
        num_hidden_layers: usize = 24, required;
        /// Query heads.
        num_attention_heads: usize = 32, required;
        /// Key and value heads.
        num_key_value_heads: usize = 4;
        /// Width of a head.
        head_dim: usize = hidden_size / num_attention_heads.max(1);
        /// The activation of the gated layer.
        hidden_act: Activation = Activation::Silu;
        /// Positions of pretraining.
        max_position_embeddings: usize = 32_768;
        /// The epsilon of the norms.
        rms_norm_eps: f64 = 1e-6;
        /// The base of the rotary frequencies.
        rope_theta: f64 = 10_000.0;
        /// How the rotary frequencies are scaled.
        rope_scaling: RopeScaling = RopeScaling::None;
        /// A bias on all four projections of attention.
        attention_bias: bool = false;
        /// Whether the layers have a sliding window.
        use_sliding_window: bool = false;
        /// How many tokens a token sees in it.
        sliding_window: Option<usize> = Some(4096);
        /// Experts in a layer.
        num_experts: usize = 128;
        /// Experts that a token goes to.
        num_experts_per_tok: usize = 8;
        /// Width of an expert.
        moe_intermediate_size: usize = 768;
        /// Whether the weights of a token's experts are made to add up to 1.
        norm_topk_prob: bool = false;
        /// Every so many layers one is routed.
        decoder_sparse_step: usize = 1;
        /// Layers that are not routed whatever the step says.
        mlp_only_layers: Vec<usize> = Vec::new();
        /// Whether the head is the transposed embedding.
        tie_word_embeddings: bool = false;
        /// Standard deviation of fresh weights.
        initializer_range: f64 = 0.02;
    }
}

impl Family for Qwen3MoeConfig {
    const MODEL_TYPE: &'static str = "qwen3_moe";
    const ARCHITECTURE: &'static str = "Qwen3MoeForCausalLM";
    const CLASSIFIER: &'static str = "Qwen3MoeForSequenceClassification";
    const TARGETS: &'static [&'static str] = &["q_proj", "v_proj"];
    const HEADS_SHARE_WIDTH: bool = true;
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("num_local_experts", "num_experts")];

    fn contradictions(&self) -> Vec<String> {
        let experts = (self.num_experts_per_tok, self.num_experts);
        let mut problems = llama_contradictions!(self);
        problems.extend(too_many(experts, "num_experts"));
        problems
    }

    fn plan(&self) -> Plan {
        let window = self.sliding_window.filter(|_| self.use_sliding_window);
        let plan = llama_shape!(self, &LLAMA, self.hidden_act, |_| window).plan();
        Plan {
            attention: AttentionPlan {
                qkv_bias: self.attention_bias,
                out_bias: self.attention_bias,
                head_norms: true,
                ..plan.attention
            },
            experts: Some(ExpertsPlan {
                n: self.num_experts,
                top_k: self.num_experts_per_tok,
                normalize: self.norm_topk_prob,
                d_inner: self.moe_intermediate_size,
            }),
            layers: routed(plan.layers, |index| {
                (index + 1).is_multiple_of(self.decoder_sparse_step)
                    && !self.mlp_only_layers.contains(&index)
            }),
            ..plan
        }
    }
}
