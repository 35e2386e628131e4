use burn_lora_kernels::{RopeScaling, Scores};

use super::family::{Family, kinds_of, llama_contradictions, llama_shape, sliding};
use super::fields::Fields;
use super::schema::{LayerType, schema};
use crate::activation::Activation;
use crate::decoder::names::GEMMA;
use crate::decoder::norm::NormKind;
use crate::decoder::plan::{AttentionPlan, NormPlan, Plan, Residual};

schema! {
    /// `config.json` of Gemma 2 (arXiv:2408.00118), its fields under the names they have there.
    pub struct Gemma2Config {
        /// Tokens in the embedding.
        vocab_size: usize = 256_000, required;
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
        max_position_embeddings: usize = 8192;
        /// The epsilon of the norms.
        rms_norm_eps: f64 = 1e-6;
        /// The base of the rotary frequencies.
        rope_theta: f64 = 10_000.0;
        /// How the rotary frequencies are scaled.
        rope_scaling: RopeScaling = RopeScaling::None;
        /// A bias on all four projections of attention.
        attention_bias: bool = false;
        /// Scores of attention are divided by its root.
        query_pre_attn_scalar: usize = 256;
        /// Bounds the scores of attention.
        attn_logit_softcapping: Option<f64> = Some(50.0);
        /// Bounds the logits.
        final_logit_softcapping: Option<f64> = Some(30.0);
        /// How many tokens a token sees in the layers with a window.
        sliding_window: Option<usize> = Some(4096);
        /// The kind of each layer; every other one has the window, from the first on, unless the file says otherwise.
        layer_types: Option<Vec<LayerType>> = None;
        /// Whether the head is the transposed embedding.
        tie_word_embeddings: bool = true;
        /// Standard deviation of fresh weights.
        initializer_range: f64 = 0.02;
    }
}

impl Family for Gemma2Config {
    const MODEL_TYPE: &'static str = "gemma2";
    const ARCHITECTURE: &'static str = "Gemma2ForCausalLM";
    const CLASSIFIER: &'static str = "Gemma2ForSequenceClassification";
    const TARGETS: &'static [&'static str] = &["q_proj", "v_proj"];

    fn refuse(fields: &mut Fields<'_>) {
        if fields.flag("use_bidirectional_attention", false) {
            fields.refuse("`use_bidirectional_attention` true is not built");
        }
    }

    fn contradictions(&self) -> Vec<String> {
        let kinds = kinds_of(
            self.layer_types.as_deref(),
            self.num_hidden_layers,
            self.sliding_window,
        );
        let mut problems = llama_contradictions!(self);
        problems.extend(kinds);
        problems
    }

    fn plan(&self) -> Plan {
        let window = sliding(
            self.layer_types.as_deref(),
            |index| match index % 2 {
                0 => LayerType::Sliding,
                _ => LayerType::Full,
            },
            self.sliding_window,
        );
        let plan = llama_shape!(self, &GEMMA, self.hidden_activation, window).plan();
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
                scores: Scores {
                    scale: (self.query_pre_attn_scalar as f64).powf(-0.5),
                    softcap: self.attn_logit_softcapping,
                },
                ..plan.attention
            },
            logit_softcap: self.final_logit_softcapping,
            ..plan
        }
    }
}
