//! Two checkpoints of one architecture, weight by weight: what an adapter is extracted from.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;

use burn::tensor::DType;
use burn_lora_adapter::{AdapterError, NamedPair, Targets};
use burn_lora_linalg::Matrix;

use crate::checkpoint::{Checkpoint, Entry};
use crate::config::ModelConfig;
use crate::convert;
use crate::error::LoadError;

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

/// The weights of the linear layers of two checkpoint folders, read a pair at a time: whoever
/// [extracts](burn_lora_adapter::extract) an adapter from them never holds more than one pair.
#[derive(Debug)]
pub struct WeightPairs {
    base: Checkpoint,
    tuned: Checkpoint,
    /// The layers that are still to come, by their keys in the files.
    names: VecDeque<String>,
    /// What stands before the keys in the model's own paths.
    prefix: &'static str,
    fan_in_fan_out: bool,
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
        let configs = [base, tuned].map(|dir| {
            ModelConfig::read(dir).map_err(|error| unreadable(dir, LoadError::Config(error)))
        });
        let [base_config, tuned_config] = configs;
        let (base_config, tuned_config) = (base_config?, tuned_config?);
        let [base_files, tuned_files] =
            [base, tuned].map(|dir| Checkpoint::open(dir).map_err(|error| unreadable(dir, error)));
        let (base_files, tuned_files) = (base_files?, tuned_files?);

        let mut faults = Vec::new();
        let [one, other] = [base_config.model_type(), tuned_config.model_type()];
        if one != other {
            faults.push(format!("the base is a {one}, the tuned model a {other}"));
        }
        let keys = || base_files.entries.keys().chain(tuned_files.entries.keys());
        let has_prefix = keys().any(|key| key.starts_with(GPT2_PREFIX));
        let prefix = match one {
            // Its older files leave it out.
            "gpt2" if !has_prefix => GPT2_PREFIX,
            _ => "",
        };
        let mut names = BTreeSet::new();
        let mut others = BTreeSet::new();
        for key in keys() {
            let entries = [&base_files, &tuned_files].map(|files| files.entries.get(key));
            let path = key.strip_suffix(".weight").filter(|path| {
                let is_matrix = |entry: &&Entry| entry.shape.len() == 2;
                !is_embedding(path) && entries.iter().flatten().any(is_matrix)
            });
            let is_meant = match path {
                Some(path) => targets.means_linear(&format!("{prefix}{path}"))?,
                None => false,
            };
            match is_meant {
                true => names.insert(key.clone()),
                false => others.insert(key.clone()),
            };
        }
        if names.is_empty() {
            faults.push("the targets match no linear layer of the folders".to_string());
        }
        for key in &names {
            faults.extend(pair_fault(
                key,
                base_files.entries.get(key),
                tuned_files.entries.get(key),
            ));
        }
        if !faults.is_empty() {
            return Err(AdapterError::Factors {
                action: "the extraction",
                faults,
            });
        }
        let fan_in_fan_out = match &base_config {
            ModelConfig::Decoder(config) => config.fan_in_fan_out(),
            _ => false,
        };
        Ok(Self {
            base: base_files,
            tuned: tuned_files,
            names: names.into_iter().collect(),
            prefix,
            fan_in_fan_out,
            others: others.into_iter().collect(),
        })
    }

    /// Whether the checkpoints hold the weights of these layers `[d_in, d_out]`, which PEFT's configuration says.
    pub fn fan_in_fan_out(&self) -> bool {
        self.fan_in_fan_out
    }

    /// How many layers are still to come.
    pub fn layers(&self) -> usize {
        self.names.len()
    }

    /// The tensors that are no weight of these layers and differ between the folders: what no adapter on them can say.
    ///
    /// # Errors
    /// [`AdapterError::Io`] for a file that cannot be read.
    pub fn other_differences(&self) -> Result<Vec<String>, AdapterError> {
        let mut found = Vec::new();
        for key in &self.others {
            let entries = [self.base.entries.get(key), self.tuned.entries.get(key)];
            let [Some(base), Some(tuned)] = entries else {
                found.push(key.clone());
                continue;
            };
            let is_same = base.shape == tuned.shape
                && match base.dtype == tuned.dtype {
                    true => bytes(&self.base, base)? == bytes(&self.tuned, tuned)?,
                    false => {
                        let both = [(&self.base, base), (&self.tuned, tuned)];
                        let [base, tuned] = both.map(|(files, entry)| numbers(files, entry));
                        base? == tuned?
                    }
                };
            if !is_same {
                found.push(key.clone());
            }
        }
        Ok(found)
    }

    fn pair(&self, key: &str) -> Result<NamedPair, AdapterError> {
        let path = key.strip_suffix(".weight").unwrap_or(key);
        let [base, tuned] = [&self.base, &self.tuned].map(|files| {
            let Some(entry) = files.entries.get(key) else {
                // Checked when the folders were opened.
                return Ok(Matrix::zeros(0, 0));
            };
            let values = numbers(files, entry)?;
            let shape = [entry.shape[0], entry.shape[1]];
            let matrix = Matrix::from_f32(&values, shape);
            Ok(match self.fan_in_fan_out {
                true => matrix,
                false => matrix.transpose(),
            })
        });
        Ok(NamedPair {
            path: format!("{}{path}", self.prefix),
            base: base?,
            tuned: tuned?,
        })
    }
}

/// What GPT-2's model puts before the paths of its blocks.
const GPT2_PREFIX: &str = "transformer.";

impl Iterator for WeightPairs {
    type Item = Result<NamedPair, AdapterError>;

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.names.pop_front()?;
        Some(self.pair(&key))
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

fn bytes(files: &Checkpoint, entry: &Entry) -> Result<Vec<u8>, AdapterError> {
    let path = files.file_name(entry);
    files
        .read(entry)
        .map_err(|error| unreadable(Path::new(&path), error))
}

/// A tensor as f32, in the order of the file.
fn numbers(files: &Checkpoint, entry: &Entry) -> Result<Vec<f32>, AdapterError> {
    let bytes = bytes(files, entry)?;
    let data = convert::read(bytes, entry.dtype, &entry.shape, false, DType::F32);
    Ok(data.iter::<f32>().collect())
}

fn unreadable(path: &Path, error: LoadError) -> AdapterError {
    AdapterError::Io {
        path: path.into(),
        source: std::io::Error::other(error),
    }
}
