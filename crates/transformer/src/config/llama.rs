use burn_lora_kernels::RopeScaling;

use super::family::{Family, llama_contradictions, llama_shape};
use super::fields::Fields;
use super::schema::schema;
use crate::activation::Activation;
use crate::decoder::names::LLAMA;
use crate::decoder::plan::{AttentionPlan, MlpPlan, Plan};

schema! {
    /// `config.json` of Llama 1 to 3, SmolLM, TinyLlama and others under this `model_type`, its fields under the names they have
    /// there.
    ///
    /// [`Default`] gives a Llama of 7B shape, to be changed by struct update.
    pub struct LlamaConfig {
        /// Tokens in the embedding.
        vocab_size: usize = 32_000, required;
        /// Width of the hidden states.
        hidden_size: usize = 4096, required;
        /// Width of the gated layer.
        intermediate_size: usize = 11_008, required;
        /// Number of blocks.
        num_hidden_layers: usize = 32, required;
        /// Query heads.
        num_attention_heads: usize = 32, required;
        /// Key and value heads.
        num_key_value_heads: usize = num_attention_heads;
        /// Width of a head.
        head_dim: usize = hidden_size / num_attention_heads.max(1);
        /// The activation of the gated layer.
        hidden_act: Activation = Activation::Silu;
        /// Positions of pretraining.
        max_position_embeddings: usize = 2048;
        /// The epsilon of the norms.
        rms_norm_eps: f64 = 1e-6;
        /// The base of the rotary frequencies.
        rope_theta: f64 = 10_000.0;
        /// How the rotary frequencies are scaled.
        rope_scaling: RopeScaling = RopeScaling::None;
        /// A bias on all four projections of attention.
        attention_bias: bool = false;
        /// A bias on the three projections of the gated layer.
        mlp_bias: bool = false;
        /// Whether the head is the transposed embedding.
        tie_word_embeddings: bool = false;
        /// Standard deviation of fresh weights.
        initializer_range: f64 = 0.02;
    }
}

impl Family for LlamaConfig {
    const MODEL_TYPE: &'static str = "llama";
    const ARCHITECTURE: &'static str = "LlamaForCausalLM";
    const CLASSIFIER: &'static str = "LlamaForSequenceClassification";
    const TARGETS: &'static [&'static str] = &["q_proj", "v_proj"];
    const HEADS_SHARE_WIDTH: bool = true;

    fn refuse(fields: &mut Fields<'_>) {
        if fields.number("pretraining_tp", 1.0) > 1.0 {
            // Transformers splits its matmuls then; the product is the same up to rounding, the intent is not known.
            fields.refuse("`pretraining_tp` above 1 is not built");
        }
    }

    fn contradictions(&self) -> Vec<String> {
        llama_contradictions!(self)
    }

    fn plan(&self) -> Plan {
        let plan = llama_shape!(self, &LLAMA, self.hidden_act, |_| None).plan();
        Plan {
            attention: AttentionPlan {
                qkv_bias: self.attention_bias,
                out_bias: self.attention_bias,
                ..plan.attention
            },
            mlp: MlpPlan {
                bias: self.mlp_bias,
                ..plan.mlp
            },
            ..plan
        }
    }
}
