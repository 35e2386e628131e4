use burn_lora_kernels::{Rope, RopeScaling};

use super::family::{Family, base, divisors, even, llama_shape, multiple};
use super::schema::schema;
use crate::activation::Activation;
use crate::decoder::names::LLAMA;
use crate::decoder::plan::{AttentionPlan, MlpForm, MlpPlan, Plan, QkvForm};

schema! {
    /// `config.json` of Phi-3 (arXiv:2404.14219), Phi-3.5-mini, Phi-4 and Phi-4-mini: a Llama with one projection for query,
    /// key and value and one for gate and up. Its fields have the names they have there.
    pub struct Phi3Config {
        /// Tokens in the embedding.
        vocab_size: usize = 32_064, required;
        /// Width of the hidden states.
        hidden_size: usize = 3072, required;
        /// Width of the gated layer.
        intermediate_size: usize = 8192, required;
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
        max_position_embeddings: usize = 4096;
        /// The epsilon of the norms.
        rms_norm_eps: f64 = 1e-5;
        /// The base of the rotary frequencies.
        rope_theta: f64 = 10_000.0;
        /// How the rotary frequencies are scaled.
        rope_scaling: RopeScaling = RopeScaling::None;
        /// The part of a head that is rotated.
        partial_rotary_factor: f64 = 1.0;
        /// How many tokens a token sees; all before it where there is none.
        sliding_window: Option<usize> = None;
        /// Whether the head is the transposed embedding.
        tie_word_embeddings: bool = false;
        /// Standard deviation of fresh weights.
        initializer_range: f64 = 0.02;
    }
}

impl Phi3Config {
    fn rotated(&self) -> usize {
        (self.head_dim as f64 * self.partial_rotary_factor) as usize
    }
}

impl Family for Phi3Config {
    const MODEL_TYPE: &'static str = "phi3";
    const ARCHITECTURE: &'static str = "Phi3ForCausalLM";
    const CLASSIFIER: &'static str = "Phi3ForSequenceClassification";
    const TARGETS: &'static [&'static str] = &["qkv_proj"];
    const HEADS_SHARE_WIDTH: bool = true;

    fn contradictions(&self) -> Vec<String> {
        let heads = ("num_attention_heads", self.num_attention_heads);
        let kv_heads = ("num_key_value_heads", self.num_key_value_heads);
        let part = self.partial_rotary_factor;
        let more = (part > 1.0).then(|| format!("`partial_rotary_factor` {part} is above 1"));
        let problems = [
            multiple(heads, kv_heads),
            even("head_dim * partial_rotary_factor", self.rotated()),
            base("rope_theta", self.rope_theta),
            divisors(&self.rope_scaling, self.rotated()),
            more,
        ];
        problems.into_iter().flatten().collect()
    }

    fn plan(&self) -> Plan {
        let plan = llama_shape!(self, &LLAMA, self.hidden_act, |_| self.sliding_window).plan();
        let rope = Rope::new(self.rotated(), self.rope_theta, self.rope_scaling.clone());
        Plan {
            attention: AttentionPlan {
                qkv: QkvForm::Concatenated,
                ..plan.attention
            },
            mlp: MlpPlan {
                form: MlpForm::GatedFused,
                ..plan.mlp
            },
            ropes: vec![rope],
            ..plan
        }
    }
}
