//! What the folder of virtual tokens or bottlenecks holds, without its base.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{AdapterFolder, PartError};
use crate::adapter_folder::{self, read_config};

/// What [`inspect_part`] finds.
#[derive(Debug, Clone, PartialEq)]
pub struct PartReport {
    /// What it is.
    pub folder: AdapterFolder,
    /// The fields of its configuration.
    pub config: Map<String, Value>,
    /// The file of the weights.
    pub file: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The tensors, in the order of their names.
    pub tensors: Vec<PartTensor>,
    /// Everything for which the folder would be refused, as far as it shows without the base.
    pub faults: Vec<String>,
}

/// A tensor of a folder.
#[derive(Debug, Clone, PartialEq)]
pub struct PartTensor {
    /// Its key.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its number format.
    pub dtype: String,
    /// The root of the mean square of its numbers; nothing where one of them is not finite.
    pub rms: Option<f64>,
}

impl PartReport {
    /// Numbers of all tensors.
    pub fn parameters(&self) -> usize {
        let count = |tensor: &PartTensor| tensor.shape.iter().product::<usize>();
        self.tensors.iter().map(count).sum()
    }
}

/// Looks at the folder of virtual tokens or bottlenecks by its files alone. What is wrong with its tensors is in the report and no error.
///
/// # Errors
///
/// A configuration or a file of weights that is not there or cannot be read.
pub fn inspect_part(dir: &Path) -> Result<PartReport, PartError> {
    let (folder, config) = read_config(dir, |config| Ok(AdapterFolder::of(dir, config)))?;
    let (file, found) = adapter_folder::look(dir)?;
    let bytes = std::fs::metadata(&file);
    let bytes = bytes.map_err(|source| PartError::Io {
        path: file.clone(),
        source,
    })?;
    let mut faults = Vec::new();
    let mut tensors = Vec::new();
    for (name, (shape, dtype, numbers)) in found {
        let rms = match numbers {
            None => {
                faults.push(format!("{name} is {dtype}, not f32, f16 or bf16"));
                None
            }
            Some(numbers) => {
                let squares = numbers.iter().map(|x| f64::from(*x) * f64::from(*x));
                let rms = (squares.sum::<f64>() / numbers.len().max(1) as f64).sqrt();
                if !rms.is_finite() {
                    faults.push(format!("{name} holds NaN or infinity"));
                }
                Some(rms).filter(|rms| rms.is_finite())
            }
        };
        tensors.push(PartTensor {
            name,
            shape,
            dtype,
            rms,
        });
    }
    Ok(PartReport {
        folder,
        config,
        file,
        bytes: bytes.len(),
        tensors,
        faults,
    })
}
