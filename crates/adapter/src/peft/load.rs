use std::collections::HashMap;
use std::fs;
use std::path::Path;

use burn::module::Module;
use safetensors::tensor::Dtype;

use super::CONFIG_FILE;
use super::config::PeftConfig;
use super::keys::{Factor, saved_key, transpose};
use super::tensors::{self, Stored};
use crate::attach::{Planned, check_name, place, plan};
use crate::config::LoraConfig;
use crate::error::{AdapterError, TensorFault, nearest};
use crate::init::parameter;
use crate::saved::{SavedParameter, replace_values, saved_parameters};

/// Reads a PEFT folder and attaches its adapter to a module under `name`. The factors become f32.
///
/// The folder's configuration says where the adapter goes, and which modules are in the folder as a whole and take the
/// place of the module's own; the file must then hold exactly the tensors that this needs. Returns the configuration beside the module.
///
/// # Errors
/// The module is untouched and the error lists every fault when the configuration cannot be read, asks for what is not
/// supported or does not fit the module, and when a tensor is missing, unexpected, of another shape or not finite.
pub fn load<M: Module>(
    module: M,
    name: &str,
    folder: &Path,
) -> Result<(M, LoraConfig), AdapterError> {
    let config = read_config(folder)?;
    let path = folder.join(CONFIG_FILE);
    let features = config.unsupported();
    if !features.is_empty() {
        return Err(AdapterError::Unsupported { path, features });
    }
    let config = config
        .to_lora()
        .map_err(|faults| AdapterError::ConfigFile {
            path,
            reason: faults.join("; "),
        })?;
    let plan = plan(&module, &config)?;
    check_name(&module, name, &plan)?;

    let (path, file) = tensors::read(folder)?;
    let saved = saved_parameters(&module, &config.modules_to_save);
    let (factors, saved) = read_tensors(file, &plan, saved)
        .map_err(|faults| AdapterError::Tensors { path, faults })?;
    let adapters = plan.into_iter().zip(factors).map(|(site, [a, b])| {
        let a = parameter(a, [site.d_in, site.rank], &site.device);
        let b = parameter(b, [site.rank, site.d_out], &site.device);
        let lora = site.lora(a, b, &config);
        (site.path, lora)
    });
    let adapters: HashMap<_, _> = adapters.collect();
    let module = replace_values(module, saved);
    let module = place(module, name, adapters, &config.modules_to_save);
    Ok((module, config))
}

/// Reads the configuration of a PEFT folder.
///
/// # Errors
/// [`AdapterError::Io`] without the file; [`AdapterError::ConfigFile`] when it is no PEFT configuration.
pub fn read_config(folder: &Path) -> Result<PeftConfig, AdapterError> {
    let path = folder.join(CONFIG_FILE);
    let text = fs::read_to_string(&path).map_err(AdapterError::io(&path))?;
    serde_json::from_str(&text).map_err(|error| AdapterError::ConfigFile {
        path,
        reason: format!("not a PEFT configuration: {error}"),
    })
}

/// What a file holds, in Burn's layout: the factors of every planned weight, and the parameters saved as a whole by their
/// paths.
type Tensors = (Vec<[Vec<f32>; 2]>, HashMap<String, Vec<f32>>);

/// The tensors of a file, or every fault of it.
fn read_tensors(
    mut unused: HashMap<String, Stored>,
    plan: &[Planned],
    saved: Vec<SavedParameter>,
) -> Result<Tensors, Vec<TensorFault>> {
    let mut faults = Vec::new();
    let mut expected = Vec::new();
    let mut take = |key: String, shape: &[usize], transposed: bool| {
        let values = match unused.remove(&key) {
            Some(stored) => read(&key, &stored, shape, transposed),
            None => Err(TensorFault::Missing {
                key: key.clone(),
                shape: shape.to_vec(),
            }),
        };
        expected.push(key);
        values.unwrap_or_else(|fault| {
            faults.push(fault);
            Vec::new()
        })
    };
    let mut factors = Vec::new();
    for site in plan {
        factors.push(Factor::BOTH.map(|factor| {
            let key = factor.key(site.module_path());
            let shape = factor.shape(site.d_in, site.d_out, site.rank);
            take(key, &shape, true)
        }));
    }
    let saved = saved.into_iter().map(|saved| {
        let key = saved_key(&saved.path);
        let values = take(key, &saved.file_shape, saved.transposed);
        (saved.path, values)
    });
    let saved = saved.collect();
    let mut unexpected: Vec<_> = unused.into_iter().collect();
    unexpected.sort_by(|(x, _), (y, _)| x.cmp(y));
    for (key, stored) in unexpected {
        let nearest = nearest(&key, expected.iter().map(String::as_str)).map(str::to_string);
        let shape = stored.shape;
        faults.push(TensorFault::Unexpected {
            key,
            shape,
            nearest,
        });
    }
    match faults.is_empty() {
        true => Ok((factors, saved)),
        false => Err(faults),
    }
}

/// One tensor as f32, transposed from PEFT's layout into Burn's where the two differ.
fn read(
    key: &str,
    stored: &Stored,
    expected: &[usize],
    transposed: bool,
) -> Result<Vec<f32>, TensorFault> {
    let key = || key.to_string();
    if stored.shape != expected {
        return Err(TensorFault::Shape {
            key: key(),
            found: stored.shape.clone(),
            expected: expected.to_vec(),
        });
    }
    let bytes = stored.bytes.as_slice();
    let values: Vec<f32> = match &stored.dtype {
        Ok(Dtype::F32) => numbers(bytes, f32::from_le_bytes).collect(),
        Ok(Dtype::F16) => numbers(bytes, half::f16::from_le_bytes)
            .map(f32::from)
            .collect(),
        Ok(Dtype::BF16) => numbers(bytes, half::bf16::from_le_bytes)
            .map(f32::from)
            .collect(),
        other => {
            let dtype = match other {
                Ok(dtype) => format!("{dtype:?}"),
                Err(name) => name.clone(),
            };
            return Err(TensorFault::DType { key: key(), dtype });
        }
    };
    if values.iter().any(|value| !value.is_finite()) {
        return Err(TensorFault::NotFinite { key: key() });
    }
    Ok(match (transposed, expected) {
        (true, [rows, columns]) => transpose(&values, [*rows, *columns]),
        _ => values,
    })
}

/// Little-endian numbers of `N` bytes each; safetensors has checked that the bytes come out even.
fn numbers<'a, const N: usize, T: 'a>(
    bytes: &'a [u8],
    read: fn([u8; N]) -> T,
) -> impl Iterator<Item = T> + 'a {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(move |chunk| read(*chunk))
}
