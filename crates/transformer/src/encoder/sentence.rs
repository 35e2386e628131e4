use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor};
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::spec::Pooling;
use super::{Encoder, EncoderBatch, EncoderConfig};
use crate::error::{ConfigError, LoadError, SaveError, TooLong};
use crate::load::{LoadOptions, LoadReport};
use crate::named::unnamed_module;
use crate::save::write_text;

/// An encoder that makes one vector of a sequence, as sentence-transformers does: pooled, and of length 1 if asked.
#[derive(Debug, Clone)]
pub struct SentenceEncoder {
    /// The encoder, under the names of a bare one.
    pub encoder: Encoder,
    pooling: SentencePooling,
}

unnamed_module!(SentenceEncoder { encoder } with { pooling });

/// What is made of the hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentencePooling {
    /// How they become one vector.
    pub pooling: Pooling,
    /// Whether the vector is divided by its length.
    pub normalize: bool,
    /// Where texts are to be cut, if earlier than the model's positions ask for.
    pub max_length: Option<usize>,
}

impl Default for SentencePooling {
    /// The mean, as it is.
    fn default() -> Self {
        Self {
            pooling: Pooling::Mean,
            normalize: false,
            max_length: None,
        }
    }
}

/// Where in a folder the encoder is, and what is made of its hidden states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentenceFolder {
    /// The folder of the encoder and its tokenizer.
    pub transformer: PathBuf,
    /// What is made of the hidden states.
    pub pooling: SentencePooling,
}

impl SentenceFolder {
    /// Whether sentence-transformers made the folder.
    pub fn is_one(dir: &Path) -> bool {
        dir.join(MODULES).is_file()
    }

    /// Reads the files of sentence-transformers; a plain folder is an encoder of which the mean is taken.
    ///
    /// # Errors
    ///
    /// As [`SentenceEncoder::load`], but for the weights.
    pub fn read(dir: &Path) -> Result<Self, SentenceError> {
        match Self::is_one(dir) {
            true => read_modules(dir),
            false => Ok(Self {
                transformer: dir.to_owned(),
                pooling: SentencePooling::default(),
            }),
        }
    }
}

/// A folder from which no sentence encoder can be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SentenceError {
    /// The encoder in it cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file that says how to pool cannot be read, or says what is not built.
    #[error("{}: {reason}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

const MODULES: &str = "modules.json";
const POOLING: &str = "1_Pooling";
const LENGTH: &str = "sentence_bert_config.json";

/// The names of the ways to pool, in sentence-transformers' files.
const MODES: [(&str, &str, Pooling); 4] = [
    ("pooling_mode_cls_token", "cls", Pooling::First),
    ("pooling_mode_mean_tokens", "mean", Pooling::Mean),
    ("pooling_mode_max_tokens", "max", Pooling::Max),
    (
        "pooling_mode_mean_sqrt_len_tokens",
        "mean_sqrt_len_tokens",
        Pooling::MeanSqrtLength,
    ),
];

impl SentenceEncoder {
    /// An encoder with a way to pool.
    pub fn new(encoder: Encoder, pooling: SentencePooling) -> Self {
        Self { encoder, pooling }
    }

    /// Loads a folder of sentence-transformers, with `modules.json`, which says how to pool; or a plain folder, of which
    /// the mean is taken. In f32.
    ///
    /// # Errors
    ///
    /// As [`Encoder::load`]; and when the folder has modules other than a transformer, a pooling and a normalization, or
    /// pools in several ways or in one that is not built.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, SentenceError> {
        Self::load_with(dir, &LoadOptions::new(DType::F32, device.clone()))
    }

    /// As [`Self::load`], with a dtype.
    pub fn load_with(dir: &Path, options: &LoadOptions) -> Result<Self, SentenceError> {
        Self::load_reported(dir, options).map(|(model, _)| model)
    }

    /// As [`Self::load_with`], and what was done beside.
    pub fn load_reported(
        dir: &Path,
        options: &LoadOptions,
    ) -> Result<(Self, LoadReport), SentenceError> {
        let folder = SentenceFolder::read(dir)?;
        let (encoder, report) = Encoder::load_reported(&folder.transformer, options)?;
        Ok((Self::new(encoder, folder.pooling), report))
    }

    /// A sentence encoder with fresh weights; see [`Encoder::init`].
    pub fn init(
        config: impl Into<EncoderConfig>,
        pooling: SentencePooling,
        device: &Device,
        seed: u64,
    ) -> Result<Self, ConfigError> {
        Encoder::init(config, device, seed).map(|encoder| Self { encoder, pooling })
    }

    pub(super) fn map_encoder(mut self, change: impl FnOnce(Encoder) -> Encoder) -> Self {
        self.encoder = change(self.encoder);
        self
    }

    /// How it pools.
    pub fn pooling(&self) -> SentencePooling {
        self.pooling
    }

    /// The longest sequence, in tokens.
    pub fn max_length(&self) -> usize {
        let positions = self.encoder.max_length();
        let stated = self.pooling.max_length;
        stated.map_or(positions, |length| length.min(positions))
    }

    /// Whether a sequence this long is no longer than [`Self::max_length`].
    pub fn check_length(&self, length: usize) -> Result<(), TooLong> {
        let limit = self.max_length();
        match length <= limit {
            true => Ok(()),
            false => Err(TooLong { length, limit }),
        }
    }

    /// One vector of each sequence, in f32.
    ///
    /// # Shapes
    ///
    /// - output: `[batch, hidden]`
    ///
    /// # Panics
    ///
    /// As [`Encoder::hidden`].
    pub fn forward(&self, batch: &EncoderBatch) -> Tensor<2> {
        // Sums over long sequences need more than half precision.
        let pooled = self.encoder.pooled(batch, self.pooling.pooling, DType::F32); // [batch, hidden]
        match self.pooling.normalize {
            true => {
                let length = pooled.clone().square().sum_dim(1).sqrt(); // [batch, 1]
                pooled / length.clamp_min(1e-12)
            }
            false => pooled,
        }
    }

    /// Writes a folder that sentence-transformers reads, but for the tokenizer.
    ///
    /// # Errors
    ///
    /// As [`Encoder::save`].
    pub fn save(&self, dir: &Path, dtype: DType) -> Result<(), SaveError> {
        self.encoder.save(dir, dtype)?;
        let kinds = ["Transformer", "Pooling", "Normalize"];
        let module = |(index, kind): (usize, &str)| {
            let path = match index {
                0 => String::new(),
                _ => format!("{index}_{kind}"),
            };
            let kind = format!("sentence_transformers.models.{kind}");
            json!({"idx": index, "name": index.to_string(), "path": path, "type": kind})
        };
        let count = if self.pooling.normalize { 3 } else { 2 };
        let modules: Vec<Value> = kinds
            .into_iter()
            .take(count)
            .enumerate()
            .map(module)
            .collect();
        write_text(&dir.join(MODULES), &to_text(modules.into()))?;
        let mut config = Map::new();
        let width = self.encoder.config().hidden_size();
        config.insert("word_embedding_dimension".into(), width.into());
        for (field, _, pooling) in MODES {
            config.insert(field.into(), (pooling == self.pooling.pooling).into());
        }
        write_text(
            &dir.join(POOLING).join("config.json"),
            &to_text(config.into()),
        )?;
        let length = json!({"max_seq_length": self.max_length(), "do_lower_case": false});
        write_text(&dir.join(LENGTH), &to_text(length))
    }
}

fn to_text(value: Value) -> String {
    format!("{value:#}\n")
}

fn read_modules(dir: &Path) -> Result<SentenceFolder, SentenceError> {
    let path = dir.join(MODULES);
    let broken = |reason: String| SentenceError::File {
        path: path.clone(),
        reason,
    };
    let value = read_json(&path)?;
    let modules = value
        .as_array()
        .ok_or_else(|| broken("expected a list of modules".into()))?;
    let mut model = None;
    let mut pooling = None;
    let mut unknown = Vec::new();
    let mut normalize = false;
    for module in modules {
        let text = |name: &str| module.get(name).and_then(Value::as_str).unwrap_or_default();
        let folder = dir.join(inside(text("path")).ok_or_else(|| {
            let path = text("path");
            broken(format!("`{path}` is not a path inside the folder"))
        })?);
        match text("type").rsplit('.').next() {
            Some("Transformer") => model = Some(folder),
            Some("Pooling") => pooling = Some(read_pooling(&folder.join("config.json"))?),
            Some("Normalize") => normalize = true,
            other => unknown.push(other.unwrap_or_default().to_owned()),
        }
    }
    if !unknown.is_empty() {
        let unknown = unknown.join(", ");
        return Err(broken(format!(
            "modules that are not built: {unknown}; Transformer, Pooling and Normalize are"
        )));
    }
    let model = model.ok_or_else(|| broken("no Transformer is among the modules".into()))?;
    let length = model.join(LENGTH);
    let max_length = match length.is_file() {
        true => {
            let length = read_json(&length)?;
            let length = length.get("max_seq_length").and_then(Value::as_u64);
            length.and_then(|length| usize::try_from(length).ok())
        }
        false => None,
    };
    let pooling = SentencePooling {
        pooling: pooling.ok_or_else(|| broken("no Pooling is among the modules".into()))?,
        normalize,
        max_length,
    };
    Ok(SentenceFolder {
        transformer: model,
        pooling,
    })
}

/// A path that leads nowhere else.
fn inside(path: &str) -> Option<&Path> {
    let path = Path::new(path);
    let is_plain = |part| matches!(part, std::path::Component::Normal(_));
    path.components().all(is_plain).then_some(path)
}

fn read_pooling(path: &Path) -> Result<Pooling, SentenceError> {
    let broken = |reason: String| SentenceError::File {
        path: path.into(),
        reason,
    };
    let config = read_json(path)?;
    let config = config
        .as_object()
        .ok_or_else(|| broken("expected an object".into()))?;
    // Newer files name the way, older ones have a flag for each.
    let mut modes: Vec<&str> = match config.get("pooling_mode").and_then(Value::as_str) {
        Some(mode) => vec![mode],
        None => {
            let set = config.iter().filter(|(_, value)| **value == json!(true));
            let set = set.map(|(name, _)| name.as_str());
            set.filter(|name| name.starts_with("pooling_mode_"))
                .collect()
        }
    };
    let mode = match (modes.pop(), modes.is_empty()) {
        (Some(mode), true) => mode,
        (Some(mode), false) => {
            let others = modes.join(", ");
            return Err(broken(format!(
                "several ways to pool are not built: {others}, {mode}"
            )));
        }
        (None, _) => return Err(broken("no way to pool is on".into())),
    };
    let known = MODES.into_iter();
    let mut found = known.filter(|(field, name, _)| [*field, *name].contains(&mode));
    found.next().map(|(_, _, pooling)| pooling).ok_or_else(|| {
        let known = MODES.map(|(field, ..)| field).join(", ");
        broken(format!("`{mode}` is not built; these are: {known}"))
    })
}

fn read_json(path: &Path) -> Result<Value, SentenceError> {
    let broken = |reason: String| SentenceError::File {
        path: path.into(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|error| broken(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| broken(error.to_string()))
}
