//! PEFT's folders of what is no adapter of a weight: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use burn_lora_adapter::peft::{
    CARD_FILE, CONFIG_FILE as CONFIG, OLD_WEIGHTS_FILE as OLD_WEIGHTS, WEIGHTS_FILE as WEIGHTS,
    card_of,
};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors};
use serde_json::{Map, Value};

use crate::nearest::{hint, nearest};
use crate::pickle;
use crate::save::write_text;

/// Tensors by their keys: shape and numbers, row by row.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A folder that could not be read or written.
pub(crate) enum Trouble {
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    Faults {
        path: PathBuf,
        faults: Vec<String>,
    },
}

impl Trouble {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn faults(path: impl Into<PathBuf>, faults: Vec<String>) -> Self {
        let path = path.into();
        Self::Faults { path, faults }
    }
}

/// Lets an error with the variants `Io` and `Folder` take over the trouble with a folder.
macro_rules! from_trouble {
    ($error:ident) => {
        impl From<$crate::adapter_folder::Trouble> for $error {
            fn from(trouble: $crate::adapter_folder::Trouble) -> Self {
                use $crate::adapter_folder::Trouble;
                match trouble {
                    Trouble::Io { path, source } => Self::Io { path, source },
                    Trouble::Faults { path, faults } => Self::Folder { path, faults },
                }
            }
        }
    };
}
pub(crate) use from_trouble;

/// The tensors of which a number is NaN or infinite.
pub(crate) fn not_finite(tensors: &Tensors) -> Vec<String> {
    let is_damaged = |numbers: &[f32]| numbers.iter().any(|number| !number.is_finite());
    tensors
        .iter()
        .filter(|(_, (_, numbers))| is_damaged(numbers))
        .map(|(key, _)| format!("{key} holds NaN or infinity"))
        .collect()
}

/// Writes a folder, each file aside first, and returns the size of the weights in bytes. Tensors are f32. A model card that is there is
/// brought up to date, not written over.
pub(crate) fn write(
    dir: &Path,
    tensors: &Tensors,
    config: &Map<String, Value>,
) -> Result<u64, Trouble> {
    let path = dir.join(WEIGHTS);
    let bytes: BTreeMap<&String, (&Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(key, (shape, numbers))| {
            let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
            (key, (shape, bytes.collect()))
        })
        .collect();
    let views = bytes.iter().map(|(key, (shape, bytes))| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes);
        view.map(|view| (key, view))
    });
    let written = views
        .collect::<Result<Vec<_>, SafeTensorError>>()
        .and_then(|views| {
            let format = HashMap::from([("format".to_string(), "pt".to_string())]);
            safetensors::serialize(views, Some(format))
        })
        .map_err(|error| Trouble::io(&path)(std::io::Error::other(error)))?;
    fs::create_dir_all(dir).map_err(Trouble::io(dir))?;
    let partial = dir.join(format!("{WEIGHTS}.partial"));
    fs::write(&partial, &written).map_err(Trouble::io(&partial))?;
    fs::rename(&partial, &path).map_err(Trouble::io(&path))?;
    let card = dir.join(CARD_FILE);
    let old = match fs::read_to_string(&card) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Trouble::io(card)(error)),
    };
    let word = |field: &str| config.get(field).and_then(Value::as_str);
    let kind = word("peft_type").unwrap_or_default().to_ascii_lowercase();
    let base = word("base_model_name_or_path");
    let parameters = tensors.values().map(|(_, numbers)| numbers.len()).sum();
    let new = card_of(old.as_deref(), base, &kind, &kind, parameters);
    let text = format!("{:#}\n", Value::Object(config.clone()));
    for (path, text) in [(dir.join(CONFIG), text), (card, new)] {
        write_text(&path, &text)
            .map_err(|error| Trouble::io(path)(std::io::Error::other(error)))?;
    }
    Ok(written.len() as u64)
}

/// The configuration of a folder, and what `parse` makes of it.
pub(crate) fn read_config<T>(
    dir: &Path,
    parse: impl FnOnce(&Map<String, Value>) -> Result<T, Vec<String>>,
) -> Result<(T, Map<String, Value>), Trouble> {
    let path = dir.join(CONFIG);
    let text = fs::read_to_string(&path).map_err(Trouble::io(&path))?;
    let config = serde_json::from_str::<Map<String, Value>>(&text)
        .map_err(|error| vec![format!("not a JSON object: {error}")]);
    match config.and_then(|config| Ok((parse(&config)?, config))) {
        Ok(read) => Ok(read),
        Err(faults) => Err(Trouble::faults(path, faults)),
    }
}

/// The tensors of a folder, which are to be these and no others.
pub(crate) fn read(
    dir: &Path,
    expected: &BTreeMap<String, Vec<usize>>,
) -> Result<HashMap<String, Vec<f32>>, Trouble> {
    let (path, stored) = stored(dir)?;
    compare(stored, expected).map_err(|faults| Trouble::faults(path, faults))
}

/// A tensor as it was found: shape, dtype, and numbers where the dtype is one of floats.
pub(crate) type Found = (Vec<usize>, String, Option<Vec<f32>>);

/// The tensors of a folder, whatever they are, and their file.
pub(crate) fn look(dir: &Path) -> Result<(PathBuf, BTreeMap<String, Found>), Trouble> {
    let (path, stored) = stored(dir)?;
    let found = stored.into_iter().map(|(key, tensor)| {
        let numbers = numbers(&tensor);
        (key, (tensor.shape, format!("{:?}", tensor.dtype), numbers))
    });
    Ok((path, found.collect()))
}

/// The file of the weights, of whichever kind there is, and its tensors.
fn stored(dir: &Path) -> Result<(PathBuf, HashMap<String, Stored>), Trouble> {
    let (path, old) = (dir.join(WEIGHTS), dir.join(OLD_WEIGHTS));
    match !path.exists() && old.exists() {
        true => {
            let stored = read_old(&old)?;
            Ok((old, stored))
        }
        false => {
            let stored = read_safetensors(&path)?;
            Ok((path, stored))
        }
    }
}

struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn read_safetensors(path: &Path) -> Result<HashMap<String, Stored>, Trouble> {
    let bytes = fs::read(path).map_err(Trouble::io(path))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| {
        let fault = format!("not a safetensors file, or a damaged one: {error}");
        Trouble::faults(path, vec![fault])
    })?;
    let stored = |(key, view): (&str, TensorView<'_>)| {
        let stored = Stored {
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        };
        (key.to_string(), stored)
    };
    Ok(file.iter().map(stored).collect())
}

fn read_old(path: &Path) -> Result<HashMap<String, Stored>, Trouble> {
    let length = fs::metadata(path).map_err(Trouble::io(path))?.len();
    let pickled = pickle::read(path)
        .map_err(|error| Trouble::faults(path, vec![error.to_string()]))?
        .into_iter();
    let read = pickled.map(|tensor| {
        // A view that repeats its storage may claim gigabytes; what is trained is stored as it is.
        let numbers: usize = tensor.shape.iter().product();
        if numbers as u64 > length {
            let fault = format!(
                "{} is {:?}, more than the file holds",
                tensor.name, tensor.shape
            );
            return Err(Trouble::faults(path, vec![fault]));
        }
        let stored = Stored {
            dtype: tensor.dtype,
            shape: tensor.shape,
            bytes: tensor.handle.read().map_err(Trouble::io(path))?,
        };
        Ok((tensor.name, stored))
    });
    read.collect()
}

fn compare(
    mut stored: HashMap<String, Stored>,
    expected: &BTreeMap<String, Vec<usize>>,
) -> Result<HashMap<String, Vec<f32>>, Vec<String>> {
    let mut faults = Vec::new();
    let mut values = HashMap::new();
    for (key, shape) in expected {
        match stored.remove(key) {
            None => faults.push(format!("missing {key} {shape:?}")),
            Some(found) if found.shape != *shape => {
                let found = found.shape;
                faults.push(format!(
                    "{key} is {found:?}, the model and the configuration need {shape:?}"
                ));
            }
            Some(found) => match numbers(&found) {
                Some(numbers) if numbers.iter().all(|number| number.is_finite()) => {
                    values.insert(key.clone(), numbers);
                }
                Some(_) => faults.push(format!("{key} holds NaN or infinity")),
                None => {
                    let dtype = found.dtype;
                    faults.push(format!("{key} is {dtype:?}, not f32, f16 or bf16"));
                }
            },
        }
    }
    let known = || expected.keys().map(String::as_str);
    faults.extend(stored.keys().map(|key| {
        let near = hint(nearest(key, known()).as_ref());
        format!("unexpected {key}{near}")
    }));
    faults.sort();
    match faults.is_empty() {
        true => Ok(values),
        false => Err(faults),
    }
}

fn numbers(stored: &Stored) -> Option<Vec<f32>> {
    let data = &stored.bytes;
    Some(match stored.dtype {
        Dtype::F32 => chunks(data, f32::from_le_bytes),
        Dtype::F16 => chunks(data, |bytes| half::f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => chunks(data, |bytes| half::bf16::from_le_bytes(bytes).to_f32()),
        _ => return None,
    })
}

fn chunks<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let chunks = bytes.as_chunks::<N>().0.iter();
    chunks.map(|chunk| read(*chunk)).collect()
}
