use std::path::Path;

use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::{check, parse, read_folder, to_text};
use crate::error::ConfigError;
use crate::nearest::nearest;

const MODEL_TYPE: &str = "bert";

/// `config.json` of BERT and what is built like it (MiniLM, sentence encoders), its fields under the names they have
/// there.
///
/// [`Default`] gives the base BERT with two labels, to be changed by struct update. The dropout of pretraining
/// (`hidden_dropout_prob`, `attention_probs_dropout_prob`, `classifier_dropout`) is not applied: a frozen base needs no
/// regularization of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct BertConfig {
    /// Tokens in the embedding.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of the inner layer.
    pub intermediate_size: usize,
    /// Learned positions.
    pub max_position_embeddings: usize,
    /// Learned kinds of segments. All tokens are taken to be of the first.
    pub type_vocab_size: usize,
    /// The epsilon of the norms.
    pub layer_norm_eps: f64,
    /// The token to pad rows with.
    pub pad_token_id: usize,
    /// Classes of the head: `num_labels` of the file, or the number of names under `id2label`, or 2.
    pub num_labels: usize,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// The fields of the file that mean nothing here, kept for writing; the names of the labels are among them.
    pub extra: Map<String, Value>,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30_522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            pad_token_id: 0,
            num_labels: 2,
            initializer_range: 0.02,
            extra: Map::new(),
        }
    }
}

impl BertConfig {
    /// Reads `config.json` in a folder.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        read_folder(dir, Self::from_json)
    }

    /// Reads the text of a `config.json`.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let (model_type, map) = parse(text)?;
        if model_type != MODEL_TYPE {
            return Err(ConfigError::UnknownModel {
                nearest: nearest(&model_type, [MODEL_TYPE]),
                found: model_type,
                known: vec![MODEL_TYPE.into()],
            });
        }
        let mut fields = Fields::new(&map);
        let config = Self::read_fields(&mut fields);
        fields.finish(MODEL_TYPE)?;
        config.check()?;
        Ok(config)
    }

    /// The text of a `config.json`: every field of this configuration, and those of the file it was read from that it
    /// does not know.
    pub fn to_json(&self) -> String {
        to_text(self.to_map())
    }

    /// Whether the sizes fit each other.
    pub fn check(&self) -> Result<(), ConfigError> {
        check(MODEL_TYPE, self.problems())
    }

    fn read_fields(fields: &mut Fields<'_>) -> Self {
        let _ = fields.value("model_type");
        fields.one_of("hidden_act", "gelu", &["gelu"]);
        fields.one_of("position_embedding_type", "absolute", &["absolute"]);
        if fields.flag("is_decoder", false) {
            fields.refuse("`is_decoder` true is not built");
        }
        if fields.flag("add_cross_attention", false) {
            fields.refuse("`add_cross_attention` true is not built");
        }
        if fields.value("quantization_config").is_some() {
            fields.refuse("`quantization_config`: quantized checkpoints are not read");
        }
        let (num_labels, names) = labels(fields);
        let mut config = Self {
            vocab_size: fields.required_size("vocab_size"),
            hidden_size: fields.required_size("hidden_size"),
            num_hidden_layers: fields.required_size("num_hidden_layers"),
            num_attention_heads: fields.required_size("num_attention_heads"),
            intermediate_size: fields.required_size("intermediate_size"),
            max_position_embeddings: fields.size("max_position_embeddings").unwrap_or(512),
            type_vocab_size: fields.size("type_vocab_size").unwrap_or(2),
            layer_norm_eps: fields.number("layer_norm_eps", 1e-12),
            pad_token_id: fields.size("pad_token_id").unwrap_or(0),
            num_labels,
            initializer_range: fields.number("initializer_range", 0.02),
            extra: fields.rest(),
        };
        if let Some(names) = names {
            config.extra.insert("id2label".into(), names.into());
        }
        config
    }

    fn problems(&self) -> Vec<String> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
            ("num_labels", self.num_labels),
        ];
        let zero = sizes.iter().filter(|(_, size)| *size == 0);
        let mut problems: Vec<String> = zero.map(|(name, _)| format!("`{name}` is 0")).collect();
        let (d, heads) = (self.hidden_size, self.num_attention_heads);
        if heads > 0 && !d.is_multiple_of(heads) {
            problems.push(format!(
                "`hidden_size` {d} is not a multiple of `num_attention_heads` {heads}"
            ));
        }
        if self.vocab_size > 0 && self.pad_token_id >= self.vocab_size {
            problems.push(format!(
                "`pad_token_id` {} is not below `vocab_size` {}",
                self.pad_token_id, self.vocab_size
            ));
        }
        problems
    }

    fn to_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        let mut put = |name: &str, value: Value| map.insert(name.to_owned(), value);
        put("architectures", json!(["BertForSequenceClassification"]));
        put("model_type", json!(MODEL_TYPE));
        put("vocab_size", json!(self.vocab_size));
        put("hidden_size", json!(self.hidden_size));
        put("num_hidden_layers", json!(self.num_hidden_layers));
        put("num_attention_heads", json!(self.num_attention_heads));
        put("intermediate_size", json!(self.intermediate_size));
        put(
            "max_position_embeddings",
            json!(self.max_position_embeddings),
        );
        put("type_vocab_size", json!(self.type_vocab_size));
        put("hidden_act", json!("gelu"));
        put("layer_norm_eps", json!(self.layer_norm_eps));
        put("pad_token_id", json!(self.pad_token_id));
        put("initializer_range", json!(self.initializer_range));
        // Transformers takes the number of labels from their names.
        let names = self.extra.get("id2label").and_then(Value::as_object);
        let named = names.is_some_and(|names| names.len() == self.num_labels);
        if !named {
            let name = |index: usize| format!("LABEL_{index}");
            let labels = || 0..self.num_labels;
            let by_index: Map<_, _> = labels()
                .map(|at| (at.to_string(), name(at).into()))
                .collect();
            let by_name: Map<_, _> = labels().map(|at| (name(at), at.into())).collect();
            put("id2label", by_index.into());
            put("label2id", by_name.into());
        }
        for (name, value) in &self.extra {
            map.entry(name.clone()).or_insert_with(|| value.clone());
        }
        map
    }
}

/// The number of labels, and their names if the file has them.
fn labels(fields: &mut Fields<'_>) -> (usize, Option<Map<String, Value>>) {
    let stated = fields.size("num_labels");
    let names = match fields.value("id2label") {
        None => None,
        Some(Value::Object(names)) => Some(names.clone()),
        Some(other) => {
            fields.refuse(format!("`id2label` is {other}, expected an object"));
            None
        }
    };
    if let Some(names) = &names {
        let count = names.len();
        let nameless: Vec<String> = (0..count)
            .map(|index| index.to_string())
            .filter(|index| !names.contains_key(index))
            .collect();
        if !nameless.is_empty() {
            let nameless = nameless.join(", ");
            fields.refuse(format!(
                "`id2label` has {count} names, but none for {nameless}"
            ));
        }
        if let Some(stated) = stated.filter(|stated| *stated != count) {
            fields.refuse(format!(
                "`num_labels` is {stated}, but `id2label` has {count} names"
            ));
        }
    }
    let named = names.as_ref().map(Map::len);
    (stated.or(named).unwrap_or(2), names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINI_LM: &str = r#"{"architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu",
        "hidden_size": 384, "intermediate_size": 1536, "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
        "num_attention_heads": 12, "num_hidden_layers": 6, "pad_token_id": 0, "type_vocab_size": 2,
        "position_embedding_type": "absolute", "hidden_dropout_prob": 0.1, "vocab_size": 30522}"#;

    #[test]
    fn reads_the_published_form() {
        let config = BertConfig::from_json(MINI_LM).expect("valid");
        assert_eq!((config.hidden_size, config.num_labels), (384, 2));
        let again = config.to_json();
        assert!(again.contains("\"hidden_dropout_prob\": 0.1"), "{again}");
        assert!(again.contains("BertForSequenceClassification"), "{again}");
        let again = BertConfig::from_json(&again).expect("valid");
        assert_eq!((again.hidden_size, again.num_labels), (384, 2));
    }

    #[test]
    fn the_names_of_the_labels_count_them_and_are_kept() {
        let names = r#""id2label": {"0": "no", "1": "yes", "2": "unsure"}, "model_type""#;
        let text = MINI_LM.replace("\"model_type\"", names);
        let config = BertConfig::from_json(&text).expect("valid");
        assert_eq!(config.num_labels, 3);
        assert!(config.to_json().contains("unsure"));
        let other = BertConfig {
            num_labels: 2,
            ..config
        };
        let text = other.to_json();
        assert!(
            text.contains("LABEL_1") && !text.contains("unsure"),
            "{text}"
        );

        let text = MINI_LM.replace("\"model_type\"", "\"num_labels\": 5, \"model_type\"");
        let config = BertConfig::from_json(&text).expect("valid");
        assert_eq!(config.num_labels, 5);
        let again = BertConfig::from_json(&config.to_json()).expect("valid");
        assert_eq!(again.num_labels, 5);
    }

    #[test]
    fn all_that_is_not_built_is_refused_at_once() {
        let text = r#"{"model_type": "bert", "vocab_size": 10, "hidden_size": 8, "num_attention_heads": 2,
            "intermediate_size": 16, "hidden_act": "relu", "is_decoder": true, "num_labels": 2,
            "position_embedding_type": "relative_key", "id2label": {"0": "a", "1": "b", "3": "c"}}"#;
        let text = BertConfig::from_json(text)
            .expect_err("refused")
            .to_string();
        for part in [
            "`hidden_act` is `relu`; only gelu is built",
            "is_decoder",
            "relative_key",
            "`num_hidden_layers` is missing",
            "`id2label` has 3 names, but none for 2",
            "`num_labels` is 2, but `id2label` has 3 names",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused_at_once() {
        let config = BertConfig {
            num_attention_heads: 5,
            num_labels: 0,
            pad_token_id: 30_522,
            ..BertConfig::default()
        };
        let text = config.check().expect_err("refused").to_string();
        for part in [
            "`hidden_size` 768 is not a multiple of `num_attention_heads` 5",
            "`num_labels` is 0",
            "`pad_token_id` 30522 is not below",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn another_model_is_not_taken_for_bert() {
        let text = BertConfig::from_json(r#"{"model_type": "roberta"}"#)
            .expect_err("refused")
            .to_string();
        assert!(
            text.contains("`roberta` is not supported (nearest: `bert`)"),
            "{text}"
        );
    }
}
