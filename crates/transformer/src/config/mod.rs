//! `config.json` of a Hugging Face folder.
//!
//! The fields keep their names from the file. A field that changes the computation and is not built here is refused; one
//! that does not (token ids, dropout of pretraining, versions) is kept as it stands and written back by
//! the model's `save`.

mod bert;
mod fields;
mod gpt2;
mod gpt3;
mod llama;
mod rope;

use std::path::Path;

use burn::tensor::Device;
use serde_json::{Map, Value};

pub use bert::BertConfig;
pub use gpt2::Gpt2Config;
pub use gpt3::{Gpt3Shape, Projection};
pub use llama::{LlamaConfig, LlamaVariant};

use crate::decoder::Decoder;
use crate::error::ConfigError;
use crate::nearest::nearest;
use crate::weights::Key;
use fields::Fields;

const KNOWN: [&str; 4] = ["llama", "mistral", "qwen2", "gpt2"];

/// The configuration of a [`Decoder`](crate::Decoder).
#[derive(Debug, Clone, PartialEq)]
pub enum DecoderConfig {
    /// Llama and the models that differ from it in data only.
    Llama(LlamaConfig),
    /// GPT-2.
    Gpt2(Gpt2Config),
}

impl DecoderConfig {
    /// Reads `config.json` in a folder.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        read_folder(dir, Self::from_json)
    }

    /// Reads the text of a `config.json`.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let (model_type, map) = parse(text)?;
        let mut fields = Fields::new(&map);
        let config = match model_type.as_str() {
            "gpt2" => DecoderConfig::Gpt2(Gpt2Config::read(&mut fields)),
            name => match LlamaVariant::from_model_type(name) {
                Some(variant) => DecoderConfig::Llama(LlamaConfig::read(variant, &mut fields)),
                None => {
                    return Err(ConfigError::UnknownModel {
                        nearest: nearest(name, KNOWN),
                        found: model_type,
                        known: KNOWN.map(String::from).to_vec(),
                    });
                }
            },
        };
        fields.finish(&model_type)?;
        config.check()?;
        Ok(config)
    }

    /// The text of a `config.json`: every field of this configuration, and those of the file it was read from that it
    /// does not know.
    pub fn to_json(&self) -> String {
        to_text(match self {
            DecoderConfig::Llama(config) => config.to_map(),
            DecoderConfig::Gpt2(config) => config.to_map(),
        })
    }

    /// Whether the sizes fit each other.
    pub fn check(&self) -> Result<(), ConfigError> {
        let problems = match self {
            DecoderConfig::Llama(config) => config.problems(),
            DecoderConfig::Gpt2(config) => config.problems(),
        };
        check(self.model_type(), problems)
    }

    /// The `model_type` of the file.
    pub fn model_type(&self) -> &'static str {
        match self {
            DecoderConfig::Llama(config) => config.variant.model_type(),
            DecoderConfig::Gpt2(_) => "gpt2",
        }
    }

    /// The number of tokens that the embedding holds.
    pub fn vocab_size(&self) -> usize {
        match self {
            DecoderConfig::Llama(config) => config.vocab_size,
            DecoderConfig::Gpt2(config) => config.vocab_size,
        }
    }

    pub(crate) fn set_vocab_size(&mut self, tokens: usize) {
        match self {
            DecoderConfig::Llama(config) => config.vocab_size = tokens,
            DecoderConfig::Gpt2(config) => config.vocab_size = tokens,
        }
    }

    /// The width of the hidden states.
    pub fn hidden_size(&self) -> usize {
        match self {
            DecoderConfig::Llama(config) => config.hidden_size,
            DecoderConfig::Gpt2(config) => config.n_embd,
        }
    }

    /// The number of blocks.
    pub fn n_layers(&self) -> usize {
        match self {
            DecoderConfig::Llama(config) => config.num_hidden_layers,
            DecoderConfig::Gpt2(config) => config.n_layer,
        }
    }

    /// The longest sequence, in tokens, on which this code computes what the model was trained to compute.
    pub fn max_positions(&self) -> usize {
        match self {
            DecoderConfig::Llama(config) => config.max_positions(),
            DecoderConfig::Gpt2(config) => config.n_positions,
        }
    }

    /// The parameters of a model of this configuration; nothing is allocated for them. A tied head counts once.
    pub fn parameters(&self) -> u64 {
        let size = |key: &Key| key.shape.iter().map(|size| *size as u64).product::<u64>();
        // Only shapes are declared, so that any device would do.
        Decoder::keys(self, &Device::default())
            .iter()
            .map(size)
            .sum()
    }

    /// The standard deviation of fresh weights.
    pub(crate) fn initializer_range(&self) -> f64 {
        match self {
            DecoderConfig::Llama(config) => config.initializer_range,
            DecoderConfig::Gpt2(config) => config.initializer_range,
        }
    }

    /// Whether the head is the transposed embedding.
    pub fn is_tied(&self) -> bool {
        match self {
            DecoderConfig::Llama(config) => config.tie_word_embeddings,
            DecoderConfig::Gpt2(config) => config.tie_word_embeddings,
        }
    }

    /// Records the dtype of the weights beside this configuration.
    pub(crate) fn set_dtype(&mut self, name: &str) {
        let extra = match self {
            DecoderConfig::Llama(config) => &mut config.extra,
            DecoderConfig::Gpt2(config) => &mut config.extra,
        };
        note_dtype(extra, name);
    }
}

fn read_folder<C>(
    dir: &Path,
    from_json: impl FnOnce(&str) -> Result<C, ConfigError>,
) -> Result<C, ConfigError> {
    let path = dir.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read {
        path: path.clone(),
        source,
    })?;
    from_json(&text).map_err(|source| ConfigError::File {
        path,
        source: Box::new(source),
    })
}

/// The `model_type` and all fields.
fn parse(text: &str) -> Result<(String, Map<String, Value>), ConfigError> {
    let map: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| ConfigError::Json(error.to_string()))?;
    let Some(Value::String(model_type)) = map.get("model_type") else {
        return Err(ConfigError::Json("no text under `model_type`".into()));
    };
    Ok((model_type.clone(), map))
}

fn to_text(map: Map<String, Value>) -> String {
    // A map of strings and numbers always has a JSON form; the alternate format of `Value` is the indented one.
    format!("{:#}\n", Value::Object(map))
}

fn check(model_type: &str, problems: Vec<String>) -> Result<(), ConfigError> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(ConfigError::Invalid {
        model_type: model_type.into(),
        problems,
    })
}

/// Records the dtype of the weights among the fields of a configuration.
pub(crate) fn note_dtype(extra: &mut Map<String, Value>, name: &str) {
    // Transformers 5 writes `dtype`, 4 writes and reads `torch_dtype`; 5 reads both.
    extra.remove("dtype");
    extra.insert("torch_dtype".into(), name.into());
}

impl From<LlamaConfig> for DecoderConfig {
    fn from(config: LlamaConfig) -> Self {
        DecoderConfig::Llama(config)
    }
}

impl From<Gpt2Config> for DecoderConfig {
    fn from(config: Gpt2Config) -> Self {
        DecoderConfig::Gpt2(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_model_names_the_known_ones_and_the_nearest() {
        let error = DecoderConfig::from_json(r#"{"model_type": "qwen3"}"#).expect_err("unknown");
        let text = error.to_string();
        assert!(text.contains("nearest: `qwen2`"), "{text}");
        assert!(text.contains("llama, mistral, qwen2, gpt2"), "{text}");
    }

    #[test]
    fn a_file_without_model_type_is_refused() {
        assert!(matches!(
            DecoderConfig::from_json("{}"),
            Err(ConfigError::Json(_))
        ));
        assert!(matches!(
            DecoderConfig::from_json("[]"),
            Err(ConfigError::Json(_))
        ));
    }
}
