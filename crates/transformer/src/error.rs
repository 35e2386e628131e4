//! What can go wrong, with all culprits of one kind in one error.

use std::fmt;
use std::io;
use std::path::PathBuf;

use burn::tensor::DType;
use thiserror::Error;

use crate::fault::{FileFault, NotFinite};
use crate::nearest::hint;

/// A model configuration that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The text is not a JSON object.
    #[error("the model configuration is not a JSON object: {0}")]
    Json(String),
    /// No model that was asked for has this `model_type`.
    #[error("model_type `{found}` is not supported{}; known: {}", hint(.nearest.as_ref()), .known.join(", "))]
    UnknownModel {
        /// The type in the file.
        found: String,
        /// The known type most like it.
        nearest: Option<String>,
        /// All known types.
        known: Vec<String>,
    },
    /// Fields that are missing, of the wrong kind, contradictory, or that ask for what is not built.
    #[error("{model_type} configuration:{}", bullets(.problems))]
    Invalid {
        /// The `model_type`.
        model_type: String,
        /// One line for each field.
        problems: Vec<String>,
    },
    /// The configuration file of a folder is wrong.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<ConfigError>,
    },
}

/// A checkpoint folder that cannot be loaded. Nothing of it was put on the device.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder holds no weights.
    #[error("{} holds no model.safetensors, model.safetensors.index.json, pytorch_model.bin or pytorch_model.bin.index.json{hint}", .dir.display())]
    NoWeights {
        /// The folder.
        dir: PathBuf,
        /// What was found instead, if anything.
        hint: String,
    },
    /// A file of weights is cut short, or contradicts itself.
    #[error("{} is damaged:{}", .path.display(), listed(.faults))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// All that was found.
        faults: Vec<FileFault>,
    },
    /// The index of a sharded checkpoint disagrees with the folder.
    #[error("{}:{}", .path.display(), listed(.problems))]
    Index {
        /// The index file.
        path: PathBuf,
        /// One line for each absent shard, absent tensor or repeated tensor.
        problems: Vec<String>,
    },
    /// The tensors in the files are not those of the configuration.
    #[error("{}: {mismatch}", .dir.display())]
    Mismatch {
        /// The folder.
        dir: PathBuf,
        /// All differences.
        mismatch: Box<Mismatch>,
    },
    /// The configuration has more blocks, or experts in them, than the files have tensors.
    #[error("{}: config.json has {layers} layers, each expert counted, and there are {tensors} tensors in all", .dir.display())]
    Layers {
        /// The folder.
        dir: PathBuf,
        /// The blocks of the configuration; one with experts counts as many times as it has them.
        layers: usize,
        /// The tensors in the files.
        tensors: usize,
    },
    /// Weights that are NaN or infinite, or too large for the dtype asked for.
    #[error("weights that are not finite:{}", listed(.tensors))]
    NotFinite {
        /// Every such tensor.
        tensors: Vec<NotFinite>,
    },
    /// The tokenizer has tokens for which there is no embedding.
    #[error("{}: the tokenizer has {tokens} tokens, the embedding {embedding} rows; ask for new rows to make the others", .dir.display())]
    Vocabulary {
        /// The folder.
        dir: PathBuf,
        /// The tokens of the tokenizer.
        tokens: usize,
        /// The rows of the embedding.
        embedding: usize,
    },
    /// The dtype asked for is not one of f32, f16, bf16, or the device cannot compute in it.
    #[error("cannot load weights as {dtype:?}: {reason}")]
    DType {
        /// The dtype asked for.
        dtype: DType,
        /// Why not.
        reason: String,
    },
}

/// How the tensors of a checkpoint differ from those that its configuration asks for.
#[derive(Debug, Default)]
pub struct Mismatch {
    /// Tensors that no file holds.
    pub missing: Vec<Missing>,
    /// Tensors that no layer uses.
    pub unexpected: Vec<String>,
    /// Tensors of another shape.
    pub mis_shaped: Vec<MisShaped>,
    /// Tensors of a dtype that is not f32, f16 or bf16, each with that dtype.
    pub not_float: Vec<(String, String)>,
}

/// A tensor that no file holds.
#[derive(Debug)]
pub struct Missing {
    /// Its name.
    pub name: String,
    /// The most similar name among those that nothing uses.
    pub nearest: Option<String>,
}

/// A tensor of another shape.
#[derive(Debug)]
pub struct MisShaped {
    /// Its name.
    pub name: String,
    /// The file that holds it, without its folder.
    pub file: String,
    /// The shape that the configuration asks for, as in the file.
    pub expected: Vec<usize>,
    /// The shape in the file.
    pub found: Vec<usize>,
}

impl Mismatch {
    pub(crate) fn is_empty(&self) -> bool {
        self.missing.is_empty()
            && self.unexpected.is_empty()
            && self.mis_shaped.is_empty()
            && self.not_float.is_empty()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the weights do not fit config.json:")?;
        let missing = |missing: &Missing| {
            let near = hint(missing.nearest.as_ref());
            format!("missing: {}{near}", missing.name)
        };
        let lines = [
            shown(&self.missing, missing),
            shown(&self.unexpected, |name| format!("unexpected: {name}")),
            shown(&self.mis_shaped, |shape| format!("shape: {shape}")),
            shown(&self.not_float, |(name, dtype)| {
                format!("dtype: {name} is {dtype}, expected F32, F16 or BF16")
            }),
        ];
        f.write_str(&lines.concat())
    }
}

impl fmt::Display for MisShaped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            file,
            expected,
            found,
        } = self;
        write!(f, "{name} is {found:?}, expected {expected:?} ({file})")
    }
}

/// A model that cannot be written to a folder.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The folder or a file in it cannot be written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The weights cannot be written.
    #[error("cannot write {}: {reason}", .path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Adapters, virtual tokens or bottlenecks are attached, and a checkpoint has no place for them.
    #[error("a checkpoint has no place for what is attached; merge it, or save it by itself and take it away:{}", bullets(.paths))]
    Adapted {
        /// The adapter parameters.
        paths: Vec<String>,
    },
    /// Checkpoints are written as f32, f16 or bf16.
    #[error("cannot save weights as {0:?}: choose F32, F16 or BF16")]
    DType(DType),
}

/// A sequence that does not fit the model's positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a sequence of {length} tokens does not fit the model's {limit} positions")]
pub struct TooLong {
    /// The length of the sequence.
    pub length: usize,
    /// The most that the model takes.
    pub limit: usize,
}

/// A line for each, indented.
pub(crate) fn bullets<T: fmt::Display>(lines: impl IntoIterator<Item = T>) -> String {
    lines
        .into_iter()
        .map(|line| format!("\n  {line}"))
        .collect()
}

/// How many culprits of one kind a message shows; all of them are in the error.
const SHOWN: usize = 20;

/// A line for each of the first culprits, and how many there are beyond.
fn shown<T>(culprits: &[T], line: impl Fn(&T) -> String) -> String {
    let mut lines: Vec<String> = culprits.iter().take(SHOWN).map(line).collect();
    if let Some(more) = culprits.len().checked_sub(SHOWN + 1) {
        lines.push(format!("and {} more", more + 1));
    }
    bullets(&lines)
}

fn listed<T: fmt::Display>(culprits: &[T]) -> String {
    shown(culprits, T::to_string)
}
