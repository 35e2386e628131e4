//! Two checkpoints of one architecture, weight by weight: what an adapter is extracted from.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use burn::tensor::DType;
use burn_lora_adapter::{AdapterError, NamedPair, Targets};
use burn_lora_linalg::Matrix;

use crate::checkpoint::{Checkpoint, Entry};
use crate::config::ModelConfig;
use crate::convert;
use crate::error::LoadError;
use crate::nearest::{hint, nearest};

/// Last parts of the paths of embeddings, whose tables are matrices and no linear layers.
const EMBEDDINGS: [&str; 13] = [
    "embed_tokens",
    "embed_in",
    "wte",
    "wpe",
    "shared",
    "tok_embeddings",
    "word_embeddings",
    "position_embeddings",
    "token_type_embeddings",
    "rel_embeddings",
    "relative_attention_bias",
    "embeddings",
    "embedding",
];

/// The weights of a checkpoint folder's linear layers, read one at a time.
#[derive(Debug)]
pub struct LinearWeights {
    dir: PathBuf,
    config: ModelConfig,
    files: Checkpoint,
    /// What stands before the keys of the files in the model's own paths.
    prefix: &'static str,
}

impl LinearWeights {
    /// Opens a folder; no weight is read yet.
    ///
    /// # Errors
    /// [`AdapterError::Io`] for a folder that cannot be opened.
    pub fn open(dir: &Path) -> Result<Self, AdapterError> {
        let config = ModelConfig::read(dir);
        let config = config.map_err(|error| unreadable(dir, LoadError::Config(error)))?;
        let files = Checkpoint::open(dir).map_err(|error| unreadable(dir, error))?;
        let has_prefix = files.entries.keys().any(|key| key.starts_with(GPT2_PREFIX));
        let prefix = match config.model_type() {
            // Its older files leave it out.
            "gpt2" if !has_prefix => GPT2_PREFIX,
            _ => "",
        };
        Ok(Self {
            dir: dir.into(),
            config,
            files,
            prefix,
        })
    }

    /// The weight `[d_in, d_out]` of the layer of this path.
    ///
    /// # Errors
    /// [`AdapterError::Factors`] where the folder has no such weight, or none of f32, f16 or bf16; [`AdapterError::Io`].
    pub fn weight(&self, path: &str) -> Result<Matrix, AdapterError> {
        let key = format!("{path}.weight");
        let entry = self.entry(&key).filter(|entry| entry.shape.len() == 2);
        let refused = |fault: String| AdapterError::Factors {
            action: "reading a layer's weight",
            faults: vec![format!("{}: {fault}", self.dir.display())],
        };
        let Some(entry) = entry else {
            let near = nearest(&key, self.files.entries.keys().map(String::as_str));
            return Err(refused(format!(
                "there is no matrix {key}{}",
                hint(near.as_ref())
            )));
        };
        if !convert::is_readable(entry.dtype) {
            return Err(refused(format!(
                "{key} is {:?}, not F32, F16 or BF16",
                entry.dtype
            )));
        }
        let matrix = Matrix::from_f32(&self.numbers(entry)?, [entry.shape[0], entry.shape[1]]);
        Ok(match self.fan_in_fan_out() {
            true => matrix,
            false => matrix.transpose(),
        })
    }

    /// Every tensor by the path that the model has for it.
    fn by_path(&self) -> impl Iterator<Item = (String, &Entry)> {
        let entries = self.files.entries.iter();
        entries.map(|(key, entry)| (format!("{}{key}", self.prefix), entry))
    }

    fn entry(&self, path: &str) -> Option<&Entry> {
        let key = path.strip_prefix(self.prefix).unwrap_or(path);
        self.files.entries.get(key)
    }

    /// Whether the files hold these weights `[d_in, d_out]`.
    fn fan_in_fan_out(&self) -> bool {
        match &self.config {
            ModelConfig::Decoder(config) => config.fan_in_fan_out(),
            _ => false,
        }
    }

    fn bytes(&self, entry: &Entry) -> Result<Vec<u8>, AdapterError> {
        let bytes = self.files.read(entry);
        bytes.map_err(|error| unreadable(&self.dir, error))
    }

    /// A tensor as f32, in the order of the file.
    fn numbers(&self, entry: &Entry) -> Result<Vec<f32>, AdapterError> {
        let bytes = self.bytes(entry)?;
        let data = convert::read(bytes, entry.dtype, &entry.shape, false, DType::F32);
        Ok(data.iter::<f32>().collect())
    }
}

/// The weights of the linear layers of two checkpoint folders, read a pair at a time: whoever
/// [extracts](burn_lora_adapter::extract) an adapter from them never holds more than one pair.
#[derive(Debug)]
pub struct WeightPairs {
    base: LinearWeights,
    tuned: LinearWeights,
    /// The layers that are still to come, by their paths.
    paths: VecDeque<String>,
    /// Tensors that are no layer's weight.
    others: Vec<String>,
}

impl WeightPairs {
    /// Opens both folders and checks all that their headers tell, before any weight is read.
    ///
    /// # Errors
    /// [`AdapterError::Factors`] with every fault: folders of different architectures; targets that match no linear layer; layers
    /// that one folder lacks, that have another shape there, or a dtype that is none of f32, f16 and bf16. [`AdapterError::Io`] for a
    /// folder that cannot be opened.
    pub fn open(base: &Path, tuned: &Path, targets: &Targets) -> Result<Self, AdapterError> {
        let (base, tuned) = (LinearWeights::open(base)?, LinearWeights::open(tuned)?);
        let mut faults = Vec::new();
        let [one, other] = [&base, &tuned].map(|weights| weights.config.model_type());
        if one != other {
            faults.push(format!("the base is a {one}, the tuned model a {other}"));
        }
        let (mut paths, mut others) = (BTreeSet::new(), BTreeSet::new());
        for (path, entry) in base.by_path().chain(tuned.by_path()) {
            let layer = path.strip_suffix(".weight");
            let layer = layer.filter(|path| entry.shape.len() == 2 && !is_embedding(path));
            match layer {
                Some(layer) if targets.means_linear(layer)? => paths.insert(layer.to_string()),
                _ => others.insert(path),
            };
        }
        if paths.is_empty() {
            faults.push("the targets match no linear layer of the folders".to_string());
        }
        for path in &paths {
            let weight = format!("{path}.weight");
            faults.extend(pair_fault(
                &weight,
                base.entry(&weight),
                tuned.entry(&weight),
            ));
        }
        if !faults.is_empty() {
            return Err(AdapterError::Factors {
                action: "the extraction",
                faults,
            });
        }
        Ok(Self {
            base,
            tuned,
            paths: paths.into_iter().collect(),
            others: others.into_iter().collect(),
        })
    }

    /// Whether the checkpoints hold the weights of these layers `[d_in, d_out]`, which PEFT's configuration says.
    pub fn fan_in_fan_out(&self) -> bool {
        self.base.fan_in_fan_out()
    }

    /// How many layers are still to come.
    pub fn layers(&self) -> usize {
        self.paths.len()
    }

    /// The tensors that are no weight of these layers and differ between the folders: what no adapter on them can say.
    ///
    /// # Errors
    /// [`AdapterError::Io`] for a file that cannot be read.
    pub fn other_differences(&self) -> Result<Vec<String>, AdapterError> {
        let mut found = Vec::new();
        for path in &self.others {
            let (Some(base), Some(tuned)) = (self.base.entry(path), self.tuned.entry(path)) else {
                found.push(path.clone());
                continue;
            };
            let is_same = base.shape == tuned.shape
                && match base.dtype == tuned.dtype {
                    true => self.base.bytes(base)? == self.tuned.bytes(tuned)?,
                    false => {
                        [base, tuned].map(|entry| convert::is_readable(entry.dtype)) == [true; 2]
                            && self.base.numbers(base)? == self.tuned.numbers(tuned)?
                    }
                };
            if !is_same {
                found.push(path.clone());
            }
        }
        Ok(found)
    }

    fn pair(&self, path: String) -> Result<NamedPair, AdapterError> {
        Ok(NamedPair {
            base: self.base.weight(&path)?,
            tuned: self.tuned.weight(&path)?,
            path,
        })
    }
}

/// What GPT-2's model puts before the paths of its blocks.
const GPT2_PREFIX: &str = "transformer.";

impl Iterator for WeightPairs {
    type Item = Result<NamedPair, AdapterError>;

    fn next(&mut self) -> Option<Self::Item> {
        let path = self.paths.pop_front()?;
        Some(self.pair(path))
    }
}

fn is_embedding(path: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or(path);
    EMBEDDINGS.contains(&last)
}

/// What keeps the two weights of a layer from being compared.
fn pair_fault(key: &str, base: Option<&Entry>, tuned: Option<&Entry>) -> Option<String> {
    let (Some(base), Some(tuned)) = (base, tuned) else {
        let lacking = if base.is_none() {
            "base"
        } else {
            "tuned model"
        };
        return Some(format!("the {lacking} has no {key}"));
    };
    if base.shape != tuned.shape {
        let (base, tuned) = (&base.shape, &tuned.shape);
        return Some(format!(
            "{key} is {base:?} in the base and {tuned:?} in the tuned model"
        ));
    }
    let odd = [base.dtype, tuned.dtype]
        .into_iter()
        .find(|dtype| !convert::is_readable(*dtype));
    odd.map(|dtype| format!("{key} is {dtype:?}, not F32, F16 or BF16"))
}

fn unreadable(path: &Path, error: LoadError) -> AdapterError {
    AdapterError::Io {
        path: path.into(),
        source: std::io::Error::other(error),
    }
}
