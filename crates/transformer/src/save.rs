//! Writes a model as a Hugging Face folder.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};
use safetensors::{Dtype, View};

use crate::convert::file_dtype;
use crate::decoder::Decoder;
use crate::error::SaveError;
use crate::weights::Key;

impl Decoder {
    /// Writes `config.json` and `model.safetensors` to a folder, which is created if need be.
    ///
    /// Each file is written under a temporary name and then renamed: what stands under its own name is whole. Tensors
    /// come from the device one at a time.
    ///
    /// # Errors
    ///
    /// Among others, when adapters are attached: merge them, or save them as an adapter.
    pub fn save(&self, dir: &Path, dtype: DType) -> Result<(), SaveError> {
        let mut config = self.config();
        let keys = Self::keys(&config, &self.device());
        config.set_dtype(dtype_name(dtype));
        write(self, keys, &config.to_json(), dir, dtype)
    }
}

/// What `config.json` calls a dtype.
pub(crate) fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    }
}

/// Writes a model that consists of these parameters, and its configuration.
pub(crate) fn write<M: Module>(
    model: &M,
    keys: Vec<Key>,
    config: &str,
    dir: &Path,
    dtype: DType,
) -> Result<(), SaveError> {
    let file_dtype = file_dtype(dtype).ok_or(SaveError::DType(dtype))?;
    let tensors = collect(model, keys, dtype, file_dtype)?;

    std::fs::create_dir_all(dir).map_err(|source| SaveError::Write {
        path: dir.into(),
        source,
    })?;
    let path = dir.join("model.safetensors");
    let partial = partial_name(&path);
    // Transformers refuses a file that does not say what wrote it.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(tensors, Some(metadata), &partial).map_err(|error| {
        SaveError::Weights {
            path: path.clone(),
            reason: error.to_string(),
        }
    })?;
    rename(&partial, &path)?;

    write_text(&dir.join("config.json"), config)
}

/// Writes a text under a temporary name and renames it; its folder is created if need be.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<(), SaveError> {
    let failed = |source| SaveError::Write {
        path: path.into(),
        source,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let partial = partial_name(path);
    std::fs::write(&partial, text).map_err(failed)?;
    rename(&partial, path)
}

fn partial_name(path: &Path) -> PathBuf {
    path.with_extension(format!("partial-{}", std::process::id()))
}

fn rename(from: &Path, to: &Path) -> Result<(), SaveError> {
    std::fs::rename(from, to).map_err(|source| SaveError::Write {
        path: to.into(),
        source,
    })
}

/// A parameter on its way to a file.
struct Saved {
    /// `[1, d]` for a vector.
    tensor: Tensor<2>,
    transposed: bool,
    file_shape: Vec<usize>,
    dtype: DType,
    file_dtype: Dtype,
}

impl View for Saved {
    fn dtype(&self) -> Dtype {
        self.file_dtype
    }

    fn shape(&self) -> &[usize] {
        &self.file_shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let tensor = match self.transposed {
            true => self.tensor.clone().transpose(),
            false => self.tensor.clone(),
        };
        Cow::Owned(
            tensor
                .into_data()
                .convert_dtype(self.dtype)
                .as_bytes()
                .to_vec(),
        )
    }

    fn data_len(&self) -> usize {
        self.file_shape.iter().product::<usize>() * self.file_dtype.bitsize() / 8
    }
}

/// The parameters under their names in the file.
fn collect<M: Module>(
    model: &M,
    keys: Vec<Key>,
    dtype: DType,
    file_dtype: Dtype,
) -> Result<Vec<(String, Saved)>, SaveError> {
    let mut collector = Collector::default();
    model.visit(&mut collector);
    let mut found = collector.found;
    let saved = keys
        .into_iter()
        .filter_map(|key| {
            let tensor = found.remove(&key.path)?;
            let saved = Saved {
                tensor,
                transposed: key.transposed,
                file_shape: key.file_shape(),
                dtype,
                file_dtype,
            };
            Some((key.path, saved))
        })
        .collect();
    // What no checkpoint knows is an adapter's.
    match found.is_empty() {
        true => Ok(saved),
        false => Err(SaveError::Adapted {
            paths: found.into_keys().collect(),
        }),
    }
}

#[derive(Default)]
struct Collector {
    path: Vec<String>,
    found: BTreeMap<String, Tensor<2>>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.base();
        let dims = tensor.dims();
        let last = dims.last().copied().unwrap_or(1);
        let rest = dims.iter().rev().skip(1).product::<usize>();
        self.found
            .insert(self.path.join("."), tensor.reshape([rest, last]));
    }
}
