use burn_lora_kernels::Scores;

use super::family::{Family, layers, multiple};
use super::fields::Fields;
use super::schema::schema;
use crate::activation::Activation;
use crate::decoder::names::{BlockNames, LLAMA, LLAMA_BLOCK, Names};
use crate::decoder::norm::NormKind;
use crate::decoder::plan::{
    AttentionPlan, LayerPlan, LinearForm, MlpForm, MlpPlan, NormPlan, Plan, QkvForm, Residual,
};

const NAMES: Names = Names {
    prefix: "transformer.",
    tokens: "wte",
    tokens_weight: "transformer.wte.weight",
    positions: "wpe",
    blocks: "h",
    last_norm: "ln_f",
    block: BlockNames {
        norm_1: "ln_1",
        attention: "attn",
        qkv: "c_attn",
        attention_out: "c_proj",
        norm_2: "ln_2",
        up: "c_fc",
        down: "c_proj",
        ..LLAMA_BLOCK
    },
    // The causal mask, which older libraries stored beside the weights.
    harmless: &[".attn.bias", ".attn.masked_bias"],
    ..LLAMA
};

schema! {
    /// `config.json` of GPT-2 (Radford et al., 2019), its fields under the names they have there.
    ///
    /// [`Default`] gives the smallest published GPT-2, to be changed by struct update. The dropout of pretraining
    /// (`attn_pdrop`, `embd_pdrop`, `resid_pdrop`) is not applied: a frozen base needs no regularization of its own.
    pub struct Gpt2Config {
        /// Tokens in the embedding.
        vocab_size: usize = 50_257, required;
        /// Learned positions.
        n_positions: usize = 1024;
        /// Width of the hidden states.
        n_embd: usize = 768, required;
        /// Number of blocks.
        n_layer: usize = 12, required;
        /// Attention heads.
        n_head: usize = 12, required;
        /// Width of the inner layer; four times `n_embd` unless the file says otherwise.
        n_inner: usize = n_embd.saturating_mul(4);
        /// The activation of the inner layer.
        activation_function: Activation = Activation::GeluNew;
        /// The epsilon of the norms.
        layer_norm_epsilon: f64 = 1e-5;
        /// Whether the head is the transposed embedding.
        tie_word_embeddings: bool = true;
        /// Standard deviation of fresh weights.
        initializer_range: f64 = 0.02;
    }
}

impl Family for Gpt2Config {
    const MODEL_TYPE: &'static str = "gpt2";
    const ARCHITECTURE: &'static str = "GPT2LMHeadModel";
    const CLASSIFIER: &'static str = "GPT2ForSequenceClassification";
    const TARGETS: &'static [&'static str] = &["c_attn"];

    fn refuse(fields: &mut Fields<'_>) {
        if !fields.flag("scale_attn_weights", true) {
            fields.refuse("`scale_attn_weights` false is not built");
        }
        for name in ["scale_attn_by_inverse_layer_idx", "add_cross_attention"] {
            if fields.flag(name, false) {
                fields.refuse(format!("`{name}` true is not built"));
            }
        }
    }

    fn contradictions(&self) -> Vec<String> {
        let problem = multiple(("n_embd", self.n_embd), ("n_head", self.n_head));
        problem.into_iter().collect()
    }

    fn plan(&self) -> Plan {
        let d_head = self.n_embd / self.n_head.max(1);
        let layers = layers(self.n_layer, |_| None).into_iter();
        Plan {
            names: &NAMES,
            vocab_size: self.vocab_size,
            d_model: self.n_embd,
            max_positions: self.n_positions,
            learned_positions: true,
            embedding_scale: None,
            norm: NormPlan {
                kind: NormKind::Layer,
                eps: self.layer_norm_epsilon,
            },
            // Two projections of each layer write into the residual stream.
            linear: LinearForm::Conv1d {
                shrink: (2.0 * self.n_layer as f64).powf(-0.5),
            },
            residual: Residual::Sequential,
            attention: AttentionPlan {
                n_heads: self.n_head,
                n_kv_heads: self.n_head,
                d_head,
                qkv: QkvForm::Concatenated,
                qkv_bias: true,
                out_bias: true,
                head_norms: false,
                scores: Scores::of_width(d_head),
            },
            ropes: Vec::new(),
            mlp: MlpPlan {
                d_inner: self.n_inner,
                form: MlpForm::Plain,
                activation: self.activation_function,
                bias: true,
            },
            experts: None,
            layers: layers
                .map(|layer| LayerPlan {
                    rope: None,
                    ..layer
                })
                .collect(),
            tied: self.tie_word_embeddings,
            logit_softcap: None,
            initializer_range: self.initializer_range,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::DecoderConfig;

    #[test]
    fn reads_the_published_form() {
        let text = r#"{"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12,
            "n_ctx": 1024, "resid_pdrop": 0.1, "bos_token_id": 50256, "n_inner": null}"#;
        let config = DecoderConfig::from_json(text).expect("valid");
        assert_eq!(config.max_positions(), 1024);
        assert!(config.is_tied());
        let again = config.to_json();
        assert!(again.contains("\"n_inner\": 3072"), "{again}");
        assert!(again.contains("\"bos_token_id\": 50256"), "{again}");
    }

    #[test]
    fn all_that_is_not_built_is_refused_at_once() {
        let text = r#"{"model_type": "gpt2", "vocab_size": 10, "n_embd": 8, "n_head": 3,
            "activation_function": "mish", "scale_attn_by_inverse_layer_idx": true}"#;
        let text = DecoderConfig::from_json(text)
            .expect_err("refused")
            .to_string();
        for part in [
            "activation_function",
            "scale_attn_by_inverse_layer_idx",
            "`n_layer` is missing",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
