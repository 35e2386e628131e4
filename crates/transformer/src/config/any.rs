use std::path::Path;

use serde_json::{Map, Value};

use super::{DecoderConfig, parse, read_folder};
use crate::encoder::EncoderConfig;
use crate::error::ConfigError;
use crate::nearest::nearest;
use crate::t5::T5Config;

/// The configuration of whatever a folder holds.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ModelConfig {
    /// That of a [`Decoder`](crate::Decoder).
    Decoder(DecoderConfig),
    /// That of an [`Encoder`](crate::Encoder).
    Encoder(EncoderConfig),
    /// That of a [`T5`](crate::T5).
    T5(T5Config),
}

impl ModelConfig {
    /// Reads `config.json` in a folder.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        read_folder(dir, Self::from_json)
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    ///
    /// As [`DecoderConfig::from_json`]; a `model_type` that is not known is compared with those of every kind.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let (found, _) = parse(text)?;
        if DecoderConfig::KNOWN.contains(&found.as_str()) {
            return DecoderConfig::from_json(text).map(Self::Decoder);
        }
        if EncoderConfig::known().contains(&found.as_str()) {
            return EncoderConfig::from_json(text).map(Self::Encoder);
        }
        if T5Config::known().contains(&found.as_str()) {
            return T5Config::from_json(text).map(Self::T5);
        }
        let known = || {
            let known = DecoderConfig::KNOWN.iter().copied();
            known.chain(EncoderConfig::known()).chain(T5Config::known())
        };
        Err(ConfigError::UnknownModel {
            nearest: nearest(&found, known()),
            known: known().map(String::from).collect(),
            found,
        })
    }

    /// The `model_type` of the file.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Decoder(config) => config.model_type(),
            Self::Encoder(config) => config.model_type(),
            Self::T5(config) => config.model_type(),
        }
    }

    /// The first of `architectures`: the class that wrote the folder, `BertForMaskedLM`.
    pub fn architecture(&self) -> Option<&str> {
        let classes = self.kept().get("architectures")?.as_array()?;
        classes.first()?.as_str()
    }

    /// The names of the labels of a head, by number (`id2label`), if the file has a name for each.
    pub fn label_names(&self) -> Option<Vec<String>> {
        let names = self.kept().get("id2label")?.as_object()?;
        let by_number = (0..names.len()).map(|at| names.get(&at.to_string())?.as_str());
        by_number.map(|name| name.map(String::from)).collect()
    }

    /// What a head for labels is for, if the file says it: `regression`, `single_label_classification` or
    /// `multi_label_classification`.
    pub fn problem_type(&self) -> Option<&str> {
        self.kept().get("problem_type")?.as_str()
    }

    fn kept(&self) -> &Map<String, Value> {
        match self {
            Self::Decoder(config) => config.kept(),
            Self::Encoder(config) => config.kept(),
            Self::T5(config) => &config.extra,
        }
    }

    /// The number of tokens that the embedding holds.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Decoder(config) => config.vocab_size(),
            Self::Encoder(config) => config.vocab_size(),
            Self::T5(config) => config.vocab_size,
        }
    }

    /// The longest sequence, in tokens; that of a T5 has no end.
    pub fn max_positions(&self) -> usize {
        match self {
            Self::Decoder(config) => config.max_positions(),
            Self::Encoder(config) => config.max_positions(),
            Self::T5(_) => usize::MAX,
        }
    }
}
