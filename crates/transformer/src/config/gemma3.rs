use burn_lora_kernels::{Rope, RopeScaling, Scores};

use super::family::{Family, base, kinds_of, llama_contradictions, llama_shape, sliding};
use super::fields::Fields;
use super::rope::RopeNames;
use super::schema::{LayerType, schema};
use crate::activation::Activation;
use crate::decoder::names::GEMMA;
use crate::decoder::norm::NormKind;
use crate::decoder::plan::{AttentionPlan, LayerPlan, NormPlan, Plan, Residual};

schema! {
    /// `config.json` of Gemma 3 without images (arXiv:2503.19786), its fields under the names they have there.
    pub struct Gemma3TextConfig {
        /// Tokens in the embedding.
        vocab_size: usize = 262_208, required;
        /// Width of the hidden states.
        hidden_size: usize = 2304, required;
        /// Width of the gated layer.
        intermediate_size: usize = 9216, required;
        /// Number of blocks.
        num_hidden_layers: usize = 26, required;
        /// Query heads.
        num_attention_heads: usize = 8, required;
        /// Key and value heads.
        num_key_value_heads: usize = 4;
        /// Width of a head.
        head_dim: usize = 256;
        /// The activation of the gated layer.
        hidden_activation: Activation = Activation::GeluPytorchTanh;
        /// Positions of pretraining.
        max_position_embeddings: usize = 131_072;
        /// The epsilon of the norms.
        rms_norm_eps: f64 = 1e-6;
        /// The base of the rotary frequencies in layers without a window.
        rope_theta: f64 = 1_000_000.0;
        /// How these frequencies are scaled.
        rope_scaling: RopeScaling = RopeScaling::None;
        /// The base of the rotary frequencies in layers with a window.
        rope_local_base_freq: f64 = 10_000.0;
        /// A bias on all four projections of attention.
        attention_bias: bool = false;
        /// Scores of attention are divided by its root.
        query_pre_attn_scalar: usize = 256;
        /// Bounds the logits.
        final_logit_softcapping: Option<f64> = None;
        /// How many tokens a token sees in the layers with a window.
        sliding_window: Option<usize> = Some(4096);
        /// Every so many layers one is without the window, unless `layer_types` says otherwise.
        sliding_window_pattern: usize = 6;
        /// The kind of each layer.
        layer_types: Option<Vec<LayerType>> = None;
        /// Whether the head is the transposed embedding.
        tie_word_embeddings: bool = true;
        /// Standard deviation of fresh weights.
        initializer_range: f64 = 0.02;
    }
}

impl Family for Gemma3TextConfig {
    const MODEL_TYPE: &'static str = "gemma3_text";
    const ARCHITECTURE: &'static str = "Gemma3ForCausalLM";
    const CLASSIFIER: &'static str = "Gemma3TextForSequenceClassification";
    const TARGETS: &'static [&'static str] = &["q_proj", "v_proj"];
    const ROPE: RopeNames = RopeNames {
        theta: "rope_theta",
        partial: "partial_rotary_factor",
        local_theta: Some("rope_local_base_freq"),
    };
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("_sliding_window_pattern", "sliding_window_pattern")];

    fn refuse(fields: &mut Fields<'_>) {
        if fields.flag("use_bidirectional_attention", false) {
            fields.refuse("`use_bidirectional_attention` true is not built");
        }
        if fields.value("attn_logit_softcapping").is_some() {
            // Transformers reads the field and does not apply it: what is meant is not known.
            fields.refuse("`attn_logit_softcapping` of gemma3_text is not built");
        }
    }

    fn contradictions(&self) -> Vec<String> {
        let kinds = kinds_of(
            self.layer_types.as_deref(),
            self.num_hidden_layers,
            self.sliding_window,
        );
        let mut problems = llama_contradictions!(self);
        problems.extend(base("rope_local_base_freq", self.rope_local_base_freq));
        problems.extend(kinds);
        problems
    }

    fn plan(&self) -> Plan {
        let pattern = self.sliding_window_pattern;
        let window = sliding(
            self.layer_types.as_deref(),
            |index| match (index + 1).is_multiple_of(pattern) {
                true => LayerType::Full,
                false => LayerType::Sliding,
            },
            self.sliding_window,
        );
        let plan = llama_shape!(self, &GEMMA, self.hidden_activation, window).plan();
        let local = Rope::new(self.head_dim, self.rope_local_base_freq, RopeScaling::None);
        let layers = plan.layers.iter().map(|layer| LayerPlan {
            rope: Some(usize::from(layer.window.is_some())),
            ..*layer
        });
        Plan {
            embedding_scale: Some((self.hidden_size as f64).sqrt()),
            norm: NormPlan {
                kind: NormKind::RmsFromOne,
                ..plan.norm
            },
            residual: Residual::Sandwich,
            attention: AttentionPlan {
                qkv_bias: self.attention_bias,
                out_bias: self.attention_bias,
                head_norms: true,
                scores: Scores {
                    scale: (self.query_pre_attn_scalar as f64).powf(-0.5),
                    softcap: None,
                },
                ..plan.attention
            },
            layers: layers.collect(),
            ropes: plan.ropes.iter().cloned().chain([local]).collect(),
            logit_softcap: self.final_logit_softcapping,
            ..plan
        }
    }
}
