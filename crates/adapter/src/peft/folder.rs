use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};

use super::card::model_card;
use super::config::TargetModules;
use super::save::PeftMetadata;
use super::write::config_text;
use super::{CARD_FILE, CONFIG_FILE, WEIGHTS_FILE};
use crate::config::LoraConfig;
use crate::error::AdapterError;

/// The tensors of a file by their keys: each with its shape and its numbers, row by row.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Writes the files of a folder, the tensors as f32, and returns the size of the weights in bytes. A model card that is there is
/// brought up to date. Each file is written to the side and renamed.
pub(crate) fn write_folder(
    folder: &Path,
    tensors: &Tensors,
    config: &LoraConfig,
    targets: &TargetModules,
    metadata: &PeftMetadata,
) -> Result<u64, AdapterError> {
    let weights_path = folder.join(WEIGHTS_FILE);
    let weights = serialized(tensors).map_err(|error| AdapterError::Io {
        path: weights_path.clone(),
        source: std::io::Error::other(error),
    })?;
    let text = config_text(config, targets, metadata);
    let card_path = folder.join(CARD_FILE);
    let old_card = match fs::read_to_string(&card_path) {
        Ok(card) => Some(card),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(AdapterError::io(card_path)(error)),
    };
    let parameters = tensors.values().map(|(_, numbers)| numbers.len()).sum();
    let card = model_card(old_card.as_deref(), config, metadata, parameters);

    fs::create_dir_all(folder).map_err(AdapterError::io(folder))?;
    write_aside(&weights_path, &weights)?;
    write_aside(&folder.join(CONFIG_FILE), text.as_bytes())?;
    write_aside(&card_path, card.as_bytes())?;
    Ok(weights.len() as u64)
}

fn serialized(tensors: &Tensors) -> Result<Vec<u8>, safetensors::SafeTensorError> {
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
    let format = [("format".to_string(), "pt".to_string())].into();
    safetensors::serialize(views.collect::<Result<Vec<_>, _>>()?, Some(format))
}

/// Writes a file under another name in the same folder and renames it, which is atomic.
fn write_aside(path: &Path, bytes: &[u8]) -> Result<(), AdapterError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".partial");
    let aside = Path::new(&aside);
    fs::write(aside, bytes).map_err(AdapterError::io(aside))?;
    fs::rename(aside, path).map_err(AdapterError::io(path))
}
