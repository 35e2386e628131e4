//! `config.json` of a Hugging Face folder.
//!
//! The fields keep their names from the file. A field that changes the computation and is not built here is refused; one
//! that does not (token ids, dropout of pretraining, versions) is kept as it stands and written back by
//! the model's `save`.

mod any;
mod decoder;
mod family;
mod fields;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt3;
mod gpt_neox;
pub(crate) mod labels;
mod llama;
mod mistral;
mod mixtral;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod rope;
mod schema;

use std::path::Path;

use serde_json::{Map, Value};

pub use any::ModelConfig;
pub use decoder::DecoderConfig;
pub use gemma2::Gemma2Config;
pub use gemma3::Gemma3TextConfig;
pub use gpt_neox::GptNeoxConfig;
pub use gpt2::Gpt2Config;
pub use gpt3::{Gpt3Shape, Projection};
pub use llama::LlamaConfig;
pub use mistral::MistralConfig;
pub use mixtral::MixtralConfig;
pub use phi3::Phi3Config;
pub use qwen2::Qwen2Config;
pub use qwen3::Qwen3Config;
pub use qwen3_moe::Qwen3MoeConfig;
pub use schema::LayerType;

use crate::error::ConfigError;
pub(crate) use fields::Fields;

pub(crate) fn read_folder<C>(
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
pub(crate) fn parse(text: &str) -> Result<(String, Map<String, Value>), ConfigError> {
    let map: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| ConfigError::Json(error.to_string()))?;
    let Some(Value::String(model_type)) = map.get("model_type") else {
        return Err(ConfigError::Json("no text under `model_type`".into()));
    };
    Ok((model_type.clone(), map))
}

pub(crate) fn to_text(map: Map<String, Value>) -> String {
    // A map of strings and numbers always has a JSON form; the alternate format of `Value` is the indented one.
    format!("{:#}\n", Value::Object(map))
}

pub(crate) fn check(model_type: &str, problems: Vec<String>) -> Result<(), ConfigError> {
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

#[cfg(test)]
mod tests;
