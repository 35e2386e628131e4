//! The tensors of an adapter's file, in memory as a whole: adapters are small.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use pytorch_reader::{DType, PytorchReader};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use super::{OLD_WEIGHTS_FILE, WEIGHTS_FILE};
use crate::error::{AdapterError, TensorFault};

/// A tensor as the file has it.
pub(crate) struct Stored {
    /// The name of a dtype that factors do not come in, otherwise.
    pub(crate) dtype: Result<Dtype, String>,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Stored {
    /// The numbers as f32. NaN and infinity are faults, and so is a dtype that factors do not come in.
    pub(crate) fn numbers(&self, key: &str) -> Result<Vec<f32>, TensorFault> {
        let key = || key.to_string();
        let bytes = self.bytes.as_slice();
        let numbers = match &self.dtype {
            Ok(Dtype::F32) => decoded(bytes, f32::from_le_bytes),
            Ok(Dtype::F16) => decoded(bytes, half::f16::from_le_bytes),
            Ok(Dtype::BF16) => decoded(bytes, half::bf16::from_le_bytes),
            other => {
                let dtype = match other {
                    Ok(dtype) => format!("{dtype:?}"),
                    Err(name) => name.clone(),
                };
                return Err(TensorFault::DType { key: key(), dtype });
            }
        };
        match numbers.iter().all(|number| number.is_finite()) {
            true => Ok(numbers),
            false => Err(TensorFault::NotFinite { key: key() }),
        }
    }
}

/// Little-endian numbers of `N` bytes each; whoever made a [`Stored`] has checked that the bytes come out even.
fn decoded<const N: usize, T: Into<f32>>(bytes: &[u8], read: fn([u8; N]) -> T) -> Vec<f32> {
    let chunks = bytes.as_chunks::<N>().0.iter();
    chunks.map(|chunk| read(*chunk).into()).collect()
}

/// Reads the weights of a folder: safetensors, or PyTorch's own file, which PEFT wrote before. Returns which file it was.
pub(crate) fn read(folder: &Path) -> Result<(PathBuf, HashMap<String, Stored>), AdapterError> {
    let (path, old) = (folder.join(WEIGHTS_FILE), folder.join(OLD_WEIGHTS_FILE));
    match !path.exists() && old.exists() {
        true => read_old(&old).map(|tensors| (old, tensors)),
        false => read_safetensors(&path).map(|tensors| (path, tensors)),
    }
}

pub(crate) fn read_safetensors(path: &Path) -> Result<HashMap<String, Stored>, AdapterError> {
    let bytes = fs::read(path).map_err(AdapterError::io(path))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| AdapterError::ConfigFile {
        path: path.into(),
        reason: format!("not a safetensors file, or a damaged one: {error}"),
    })?;
    let stored = |(key, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let stored = Stored {
            dtype: Ok(view.dtype()),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        };
        (key.to_string(), stored)
    };
    Ok(file.iter().map(stored).collect())
}

/// The reader runs no Python and bounds what it allocates; it is the one under burn-store.
pub(crate) fn read_old(path: &Path) -> Result<HashMap<String, Stored>, AdapterError> {
    let damaged = |reason: String| AdapterError::ConfigFile {
        path: path.into(),
        reason: format!("not a PyTorch file, or a damaged one: {reason}"),
    };
    let length = fs::metadata(path).map_err(AdapterError::io(path))?.len();
    let reader = PytorchReader::new(path).map_err(|error| damaged(error.to_string()))?;
    let mut tensors = HashMap::new();
    for (key, tensor) in reader.into_tensors() {
        // A view that repeats its storage may claim gigabytes; a factor is stored as it is.
        if tensor.byte_len() as u64 > length {
            return Err(damaged(format!(
                "`{key}` is {:?}, more than the file holds",
                tensor.shape()
            )));
        }
        let stored = Stored {
            dtype: match tensor.dtype() {
                DType::F32 => Ok(Dtype::F32),
                DType::F16 => Ok(Dtype::F16),
                DType::BF16 => Ok(Dtype::BF16),
                other => Err(format!("{other:?}")),
            },
            shape: tensor.shape().to_vec(),
            bytes: tensor.read().map_err(|error| damaged(error.to_string()))?,
        };
        tensors.insert(key, stored);
    }
    Ok(tensors)
}
