use burn_lora_kernels::RopeScaling;
use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::rope;

/// A model that has Llama's layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LlamaVariant {
    /// Llama 1 to 3, SmolLM, TinyLlama and others under this `model_type`.
    #[default]
    Llama,
    /// Mistral: a sliding window, here a limit on the length.
    Mistral,
    /// Qwen2 and Qwen2.5: a bias on query, key and value.
    Qwen2,
}

impl LlamaVariant {
    pub(crate) fn from_model_type(name: &str) -> Option<Self> {
        [Self::Llama, Self::Mistral, Self::Qwen2]
            .into_iter()
            .find(|variant| variant.model_type() == name)
    }

    /// The `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
        }
    }

    fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
        }
    }
}

/// `config.json` of the Llama family, its fields under the names they have there.
///
/// [`Default`] gives a Llama of 7B shape, to be changed by struct update.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Which member of the family.
    pub variant: LlamaVariant,
    /// Tokens in the embedding.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width of the gated layer.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head; `hidden_size / num_attention_heads` unless the file says otherwise.
    pub head_dim: usize,
    /// Positions of pretraining.
    pub max_position_embeddings: usize,
    /// The epsilon of the norms.
    pub rms_norm_eps: f64,
    /// The base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are scaled.
    pub rope_scaling: RopeScaling,
    /// The window of attention, where there is one.
    pub sliding_window: Option<usize>,
    /// A bias on all four projections of attention. Qwen2 has one on query, key and value whatever this says.
    pub attention_bias: bool,
    /// A bias on the three projections of the gated layer.
    pub mlp_bias: bool,
    /// Whether the head is the transposed embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// The fields of the file that mean nothing here, kept for writing.
    pub extra: Map<String, Value>,
}

impl Default for LlamaConfig {
    fn default() -> Self {
        Self {
            variant: LlamaVariant::Llama,
            vocab_size: 32_000,
            hidden_size: 4096,
            intermediate_size: 11_008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: 32,
            head_dim: 128,
            max_position_embeddings: 2048,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::None,
            sliding_window: None,
            attention_bias: false,
            mlp_bias: false,
            tie_word_embeddings: false,
            initializer_range: 0.02,
            extra: Map::new(),
        }
    }
}

impl LlamaConfig {
    pub(super) fn read(variant: LlamaVariant, fields: &mut Fields<'_>) -> Self {
        let _ = fields.value("model_type");
        let hidden_size = fields.required_size("hidden_size");
        let num_attention_heads = fields.required_size("num_attention_heads");
        let max_position_embeddings = fields.size("max_position_embeddings").unwrap_or(
            // The defaults of the family's configuration classes in Transformers.
            match variant {
                LlamaVariant::Llama => 2048,
                LlamaVariant::Mistral => 131_072,
                LlamaVariant::Qwen2 => 32_768,
            },
        );
        let (rope_theta, rope_scaling) = rope::read(fields, max_position_embeddings);

        fields.one_of("hidden_act", "silu", &["silu", "swish"]);
        if fields.number("pretraining_tp", 1.0) > 1.0 {
            // Transformers splits its matmuls then; the product is the same up to rounding, the intent is not known.
            fields.refuse("`pretraining_tp` above 1 is not built");
        }
        if fields.value("quantization_config").is_some() {
            fields.refuse("`quantization_config`: quantized checkpoints are not read");
        }

        Self {
            variant,
            vocab_size: fields.required_size("vocab_size"),
            hidden_size,
            intermediate_size: fields.required_size("intermediate_size"),
            num_hidden_layers: fields.required_size("num_hidden_layers"),
            num_attention_heads,
            num_key_value_heads: fields.size("num_key_value_heads").unwrap_or(match variant {
                LlamaVariant::Mistral => 8,
                LlamaVariant::Qwen2 => 32,
                LlamaVariant::Llama => num_attention_heads,
            }),
            head_dim: Self::read_head_dim(fields, hidden_size, num_attention_heads),
            max_position_embeddings,
            rms_norm_eps: fields.number("rms_norm_eps", 1e-6),
            rope_theta,
            rope_scaling,
            sliding_window: Self::read_window(variant, fields),
            attention_bias: variant == LlamaVariant::Llama && fields.flag("attention_bias", false),
            mlp_bias: variant == LlamaVariant::Llama && fields.flag("mlp_bias", false),
            tie_word_embeddings: fields.flag("tie_word_embeddings", false),
            initializer_range: fields.number("initializer_range", 0.02),
            extra: fields.rest(),
        }
    }

    fn read_head_dim(fields: &mut Fields<'_>, hidden_size: usize, heads: usize) -> usize {
        fields.size("head_dim").unwrap_or_else(|| {
            if heads > 0 && !hidden_size.is_multiple_of(heads) {
                fields.refuse(format!(
                    "`hidden_size` {hidden_size} is not a multiple of `num_attention_heads` {heads}, and there is no \
                     `head_dim`"
                ));
            }
            hidden_size / heads.max(1)
        })
    }

    fn read_window(variant: LlamaVariant, fields: &mut Fields<'_>) -> Option<usize> {
        match variant {
            LlamaVariant::Llama => None,
            // An absent field means 4096 to Transformers, null means no window.
            LlamaVariant::Mistral if !fields.has("sliding_window") => Some(4096),
            LlamaVariant::Mistral => fields.size("sliding_window"),
            LlamaVariant::Qwen2 => {
                let window = fields.size("sliding_window").unwrap_or(4096);
                fields.flag("use_sliding_window", false).then_some(window)
            }
        }
    }

    /// The longest sequence. Inside a sliding window attention is plain causal attention, so the window is the limit.
    pub fn max_positions(&self) -> usize {
        let window = self.sliding_window.unwrap_or(usize::MAX);
        self.max_position_embeddings.min(window)
    }

    pub(crate) fn has_qkv_bias(&self) -> bool {
        self.attention_bias || self.variant == LlamaVariant::Qwen2
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        for (name, size) in sizes {
            if size == 0 {
                problems.push(format!("`{name}` is 0"));
            }
        }
        if !problems.is_empty() {
            return problems;
        }
        if !self
            .num_attention_heads
            .is_multiple_of(self.num_key_value_heads)
        {
            problems.push(format!(
                "`num_attention_heads` {} is not a multiple of `num_key_value_heads` {}",
                self.num_attention_heads, self.num_key_value_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            problems.push(format!("`head_dim` {} is odd", self.head_dim));
        }
        problems
    }

    pub(super) fn to_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        let mut put = |name: &str, value: Value| map.insert(name.to_owned(), value);
        put("architectures", json!([self.variant.architecture()]));
        put("model_type", json!(self.variant.model_type()));
        put("vocab_size", json!(self.vocab_size));
        put("hidden_size", json!(self.hidden_size));
        put("intermediate_size", json!(self.intermediate_size));
        put("num_hidden_layers", json!(self.num_hidden_layers));
        put("num_attention_heads", json!(self.num_attention_heads));
        put("num_key_value_heads", json!(self.num_key_value_heads));
        put("head_dim", json!(self.head_dim));
        put("hidden_act", json!("silu"));
        put(
            "max_position_embeddings",
            json!(self.max_position_embeddings),
        );
        put("rms_norm_eps", json!(self.rms_norm_eps));
        put("rope_theta", json!(self.rope_theta));
        put("rope_scaling", rope::scaling_to_json(self.rope_scaling));
        match self.variant {
            LlamaVariant::Llama => {
                put("attention_bias", json!(self.attention_bias));
                put("mlp_bias", json!(self.mlp_bias));
            }
            LlamaVariant::Mistral => {
                put("sliding_window", json!(self.sliding_window));
            }
            LlamaVariant::Qwen2 => {
                put("use_sliding_window", json!(self.sliding_window.is_some()));
                put("sliding_window", json!(self.sliding_window));
            }
        }
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
    use super::*;
    use crate::error::ConfigError;

    fn parse(model_type: &str, more: Value) -> Result<LlamaConfig, ConfigError> {
        let mut map = json!({
            "model_type": model_type, "vocab_size": 100, "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2,
        });
        for (name, value) in more.as_object().expect("an object") {
            map[name] = value.clone();
        }
        match DecoderConfig::from_json(&map.to_string())? {
            DecoderConfig::Llama(config) => Ok(config),
            DecoderConfig::Gpt2(_) => unreachable!("a Llama variant"),
        }
    }

    fn problem(model_type: &str, more: Value) -> String {
        parse(model_type, more).expect_err("refused").to_string()
    }

    #[test]
    fn absent_fields_have_the_defaults_of_transformers() {
        let config = parse("llama", json!({})).expect("valid");
        assert_eq!(config.head_dim, 8);
        assert_eq!(config.max_positions(), 2048);
        assert_eq!(config.rope_theta, 10_000.0);
        assert!(!config.tie_word_embeddings);
    }

    #[test]
    fn both_spellings_of_rope_are_read() {
        let four = json!({"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}});
        let five = json!({"rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}});
        let (four, five) = (parse("llama", four), parse("llama", five));
        let (four, five) = (four.expect("valid"), five.expect("valid"));
        assert_eq!(four.rope_theta, 5e5);
        assert_eq!(four.rope_scaling, five.rope_scaling);
        assert_eq!(four.rope_theta, five.rope_theta);
    }

    #[test]
    fn all_that_is_not_built_is_refused_at_once() {
        let text = problem(
            "llama",
            json!({"hidden_act": "gelu", "rope_scaling": {"type": "yarn", "factor": 2.0},
                "quantization_config": {"bits": 4}, "vocab_size": "many"}),
        );
        for part in ["hidden_act", "yarn", "quantization_config", "vocab_size"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_missing_field_names_a_similar_one() {
        let text = problem("llama", json!({"hidden_size": null, "hidden_sizes": 64}));
        assert!(
            text.contains("`hidden_size` is missing (nearest: `hidden_sizes`)"),
            "{text}"
        );
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        assert!(problem("llama", json!({"num_key_value_heads": 3})).contains("not a multiple"));
        assert!(problem("llama", json!({"head_dim": 7})).contains("odd"));
        assert!(problem("llama", json!({"vocab_size": 0})).contains("`vocab_size` is 0"));
    }

    #[test]
    fn a_sliding_window_limits_the_length() {
        let window = |more| parse("mistral", more).expect("valid").max_positions();
        assert_eq!(window(json!({"max_position_embeddings": 32768})), 4096);
        assert_eq!(
            window(json!({"max_position_embeddings": 32768, "sliding_window": null})),
            32768
        );
        let qwen = parse("qwen2", json!({"sliding_window": 100})).expect("valid");
        assert_eq!(qwen.max_positions(), 32_768);
        assert!(qwen.has_qkv_bias());
    }

    #[test]
    fn writing_and_reading_keeps_everything() {
        let more = json!({"bos_token_id": 1, "eos_token_id": [2, 3], "tie_word_embeddings": true,
            "rope_scaling": {"rope_type": "linear", "factor": 2.0}, "sliding_window": 512});
        for variant in ["llama", "mistral", "qwen2"] {
            let config = DecoderConfig::from(parse(variant, more.clone()).expect("valid"));
            let again = DecoderConfig::from_json(&config.to_json()).expect("valid");
            assert_eq!(again.to_json(), config.to_json());
            assert!(again.to_json().contains("eos_token_id"));
            assert!(again.is_tied());
        }
    }
}
