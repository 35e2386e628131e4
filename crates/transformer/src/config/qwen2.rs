use burn_lora_kernels::RopeScaling;

use super::family::{Family, kinds_of, llama_contradictions, llama_shape, sliding_from};
use super::schema::{LayerType, schema};
use crate::activation::Activation;
use crate::decoder::names::LLAMA;
use crate::decoder::plan::{AttentionPlan, Plan};

schema! {
    /// `config.json` of Qwen2 and Qwen2.5: a Llama with a bias on query, key and value, its fields under the names they have
    /// there.
    pub struct Qwen2Config {
        /// Tokens in the embedding.
        vocab_size: usize = 151_936, required;
        /// Width of the hidden states.
        hidden_size: usize = 4096, required;
        /// Width of the gated layer.
        intermediate_size: usize = 22_016, required;
        /// Number of blocks.
        num_hidden_layers: usize = 32, required;
        /// Query heads.
        num_attention_heads: usize = 32, required;
        /// Key and value heads.
        num_key_value_heads: usize = 32;
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
        /// Whether some layers have a sliding window.
        use_sliding_window: bool = false;
        /// How many tokens a token sees in those layers.
        sliding_window: Option<usize> = Some(4096);
        /// The layers from this one on have the window, unless `layer_types` says otherwise.
        max_window_layers: Option<usize> = Some(28);
        /// The kind of each layer.
        layer_types: Option<Vec<LayerType>> = None;
        /// Whether the head is the transposed embedding.
        tie_word_embeddings: bool = false;
        /// Standard deviation of fresh weights.
        initializer_range: f64 = 0.02;
    }
}

impl Family for Qwen2Config {
    const MODEL_TYPE: &'static str = "qwen2";
    const ARCHITECTURE: &'static str = "Qwen2ForCausalLM";
    const CLASSIFIER: &'static str = "Qwen2ForSequenceClassification";
    const TARGETS: &'static [&'static str] = &["q_proj", "v_proj"];
    const HEADS_SHARE_WIDTH: bool = true;

    fn contradictions(&self) -> Vec<String> {
        let kinds = kinds_of(
            self.layer_types.as_deref(),
            self.num_hidden_layers,
            self.sliding_window.filter(|_| self.use_sliding_window),
        );
        let mut problems = llama_contradictions!(self);
        problems.extend(kinds);
        problems
    }

    fn plan(&self) -> Plan {
        let window = sliding_from(
            self.max_window_layers,
            self.layer_types.as_deref(),
            self.sliding_window.filter(|_| self.use_sliding_window),
        );
        let plan = llama_shape!(self, &LLAMA, self.hidden_act, window).plan();
        Plan {
            attention: AttentionPlan {
                qkv_bias: true,
                ..plan.attention
            },
            ..plan
        }
    }
}
