use burn_lora_kernels::RopeScaling;

use super::family::{Family, llama_contradictions, llama_shape};
use super::fields::Fields;
use super::schema::schema;
use crate::activation::Activation;
use crate::decoder::names::LLAMA;
use crate::decoder::plan::Plan;

schema! {
    /// `config.json` of Mistral: a Llama whose tokens see a sliding window, its fields under the names they have there.
    pub struct MistralConfig {
        /// Tokens in the embedding.
        vocab_size: usize = 32_000, required;
        /// Width of the hidden states.
        hidden_size: usize = 4096, required;
        /// Width of the gated layer.
        intermediate_size: usize = 14_336, required;
        /// Number of blocks.
        num_hidden_layers: usize = 32, required;
        /// Query heads.
        num_attention_heads: usize = 32, required;
        /// Key and value heads.
        num_key_value_heads: usize = 8;
        /// Width of a head.
        head_dim: usize = hidden_size / num_attention_heads.max(1);
        /// The activation of the gated layer.
        hidden_act: Activation = Activation::Silu;
        /// Positions of pretraining.
        max_position_embeddings: usize = 131_072;
        /// The epsilon of the norms.
        rms_norm_eps: f64 = 1e-6;
        /// The base of the rotary frequencies.
        rope_theta: f64 = 10_000.0;
        /// How the rotary frequencies are scaled.
        rope_scaling: RopeScaling = RopeScaling::None;
        /// How many tokens a token sees; all before it where there is none.
        sliding_window: Option<usize> = Some(4096);
        /// Whether the head is the transposed embedding.
        tie_word_embeddings: bool = false;
        /// Standard deviation of fresh weights.
        initializer_range: f64 = 0.02;
    }
}

impl Family for MistralConfig {
    const MODEL_TYPE: &'static str = "mistral";
    const ARCHITECTURE: &'static str = "MistralForCausalLM";
    const CLASSIFIER: &'static str = "MistralForSequenceClassification";
    const TARGETS: &'static [&'static str] = &["q_proj", "v_proj"];
    const HEADS_SHARE_WIDTH: bool = true;

    fn refuse(fields: &mut Fields<'_>) {
        if fields.value("layer_types").is_some() {
            // Transformers gives all layers the window, whatever the kinds say.
            fields.refuse("`layer_types` of mistral is not built");
        }
    }

    fn contradictions(&self) -> Vec<String> {
        llama_contradictions!(self)
    }

    fn plan(&self) -> Plan {
        llama_shape!(self, &LLAMA, self.hidden_act, |_| self.sliding_window).plan()
    }
}
