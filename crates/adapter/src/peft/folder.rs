use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use super::save::write_aside;
use super::{CONFIG_FILE, WEIGHTS_FILE};
use crate::error::AdapterError;

/// Writes both files of a folder, the tensors as f32, and returns the size of the weights in bytes. Each file is written to
/// the side and renamed.
pub(crate) fn write_folder(
    folder: &Path,
    tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    config: Value,
) -> Result<u64, AdapterError> {
    let path = folder.join(WEIGHTS_FILE);
    let invalid = |error: safetensors::SafeTensorError| AdapterError::Io {
        path: path.clone(),
        source: std::io::Error::other(error),
    };
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(key, (shape, numbers))| {
            let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
            (key, shape, bytes.collect())
        })
        .collect();
    let views = bytes.iter().map(|(key, shape, bytes)| {
        TensorView::new(Dtype::F32, shape.to_vec(), bytes).map(|view| (key.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(invalid)?;
    let format = [("format".to_string(), "pt".to_string())].into();
    let written = safetensors::serialize(views, Some(format)).map_err(invalid)?;
    fs::create_dir_all(folder).map_err(AdapterError::io(folder))?;
    write_aside(&path, &written)?;
    write_aside(
        &folder.join(CONFIG_FILE),
        format!("{config:#}\n").as_bytes(),
    )?;
    Ok(written.len() as u64)
}
