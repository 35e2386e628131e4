use serde_json::{Map, Value, json};

use super::fields::Fields;

/// `config.json` of GPT-2, its fields under the names they have there.
///
/// [`Default`] gives the smallest published GPT-2, to be changed by struct update. The dropout of pretraining
/// (`attn_pdrop`, `embd_pdrop`, `resid_pdrop`) is not applied: a frozen base needs no regularization of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Gpt2Config {
    /// Tokens in the embedding.
    pub vocab_size: usize,
    /// Learned positions.
    pub n_positions: usize,
    /// Width of the hidden states.
    pub n_embd: usize,
    /// Number of blocks.
    pub n_layer: usize,
    /// Attention heads.
    pub n_head: usize,
    /// Width of the inner layer; four times `n_embd` unless the file says otherwise.
    pub n_inner: usize,
    /// The epsilon of the norms.
    pub layer_norm_epsilon: f64,
    /// Whether the head is the transposed embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// The fields of the file that mean nothing here, kept for writing.
    pub extra: Map<String, Value>,
}

impl Default for Gpt2Config {
    fn default() -> Self {
        Self {
            vocab_size: 50_257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: 3072,
            layer_norm_epsilon: 1e-5,
            tie_word_embeddings: true,
            initializer_range: 0.02,
            extra: Map::new(),
        }
    }
}

impl Gpt2Config {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let _ = fields.value("model_type");
        let n_embd = fields.required_size("n_embd");
        fields.one_of(
            "activation_function",
            "gelu_new",
            &["gelu_new", "gelu_pytorch_tanh"],
        );
        if !fields.flag("scale_attn_weights", true) {
            fields.refuse("`scale_attn_weights` false is not built");
        }
        if fields.flag("scale_attn_by_inverse_layer_idx", false) {
            fields.refuse("`scale_attn_by_inverse_layer_idx` true is not built");
        }
        if fields.flag("add_cross_attention", false) {
            fields.refuse("`add_cross_attention` true is not built");
        }
        if fields.value("quantization_config").is_some() {
            fields.refuse("`quantization_config`: quantized checkpoints are not read");
        }
        Self {
            vocab_size: fields.required_size("vocab_size"),
            n_positions: fields.size("n_positions").unwrap_or(1024),
            n_embd,
            n_layer: fields.required_size("n_layer"),
            n_head: fields.required_size("n_head"),
            n_inner: fields.size("n_inner").unwrap_or(4 * n_embd),
            layer_norm_epsilon: fields.number("layer_norm_epsilon", 1e-5),
            tie_word_embeddings: fields.flag("tie_word_embeddings", true),
            initializer_range: fields.number("initializer_range", 0.02),
            extra: fields.rest(),
        }
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("n_positions", self.n_positions),
            ("n_embd", self.n_embd),
            ("n_layer", self.n_layer),
            ("n_head", self.n_head),
            ("n_inner", self.n_inner),
        ];
        let zero = sizes.iter().filter(|(_, size)| *size == 0);
        let mut problems: Vec<String> = zero.map(|(name, _)| format!("`{name}` is 0")).collect();
        if self.n_head > 0 && !self.n_embd.is_multiple_of(self.n_head) {
            problems.push(format!(
                "`n_embd` {} is not a multiple of `n_head` {}",
                self.n_embd, self.n_head
            ));
        }
        problems
    }

    pub(super) fn to_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        let mut put = |name: &str, value: Value| map.insert(name.to_owned(), value);
        put("architectures", json!(["GPT2LMHeadModel"]));
        put("model_type", json!("gpt2"));
        put("vocab_size", json!(self.vocab_size));
        put("n_positions", json!(self.n_positions));
        put("n_embd", json!(self.n_embd));
        put("n_layer", json!(self.n_layer));
        put("n_head", json!(self.n_head));
        put("n_inner", json!(self.n_inner));
        put("activation_function", json!("gelu_new"));
        put("layer_norm_epsilon", json!(self.layer_norm_epsilon));
        put("tie_word_embeddings", json!(self.tie_word_embeddings));
        put("initializer_range", json!(self.initializer_range));
        for (name, value) in &self.extra {
            map.entry(name.clone()).or_insert_with(|| value.clone());
        }
        map
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
            "activation_function": "relu", "scale_attn_by_inverse_layer_idx": true}"#;
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
