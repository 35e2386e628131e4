use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, Tensor};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};

use super::config::{Layers, PeftConfig, TargetModules};
use super::describe::{check_same, portable_targets};
use super::keys::{Factor, saved_key, transpose};
use super::{CONFIG_FILE, WEIGHTS_FILE};
use crate::attach::plan;
use crate::config::LoraConfig;
use crate::error::AdapterError;
use crate::lora::cast;
use crate::reach::{AdaptedWeight, adapted_weights};
use crate::saved::saved_values;

/// What an adapter folder says beside the tensors.
#[derive(Clone, Debug, Default)]
pub struct PeftMetadata {
    /// Where the base came from, so that PEFT finds it.
    pub base_model_name_or_path: Option<String>,
    /// PEFT's task type; `CAUSAL_LM` where none is given.
    pub task_type: Option<String>,
    /// The weights of the adapted layers lie `[in, out]` in the checkpoint, as in GPT-2's Conv1D.
    pub fan_in_fan_out: bool,
    /// Fields of a configuration that was read, to be written back as they were.
    pub other: Map<String, Value>,
}

/// Writes the adapter `name` of a module, and the modules that are trained as a whole beside it, as a PEFT folder and returns the size of the weights file in bytes.
///
/// `config` is the one that the adapter was attached with. "All linear layers" is written as their names, since not every
/// runtime knows the word. Both files are written to the side and renamed, so a folder never holds half of one. Tensors
/// are f32.
///
/// # Errors
/// [`AdapterError::NoAdapter`] when the module has no adapter of this name; [`AdapterError::Config`] when the
/// configuration describes another adapter than this one, or the task is one for which PEFT looks for a head and none is
/// saved; [`AdapterError::NotFinite`] when a tensor holds NaN or infinity; [`AdapterError::Io`].
pub fn save<M: Module>(
    module: &M,
    name: &str,
    config: &LoraConfig,
    metadata: &PeftMetadata,
    folder: &Path,
) -> Result<u64, AdapterError> {
    let weights = adapted_weights(module);
    let mut tensors = tensors(&weights, name)?;
    let planned = plan(module, config)?;
    check_same(&planned, &weights, name, config)?;
    check_head(config, metadata)?;
    tensors.extend(saved_tensors(module, config)?);
    let views = tensors.iter().map(|(key, (shape, bytes))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        view.map(|view| (key.clone(), view))
    });
    let weights_path = folder.join(WEIGHTS_FILE);
    let invalid = |error: safetensors::SafeTensorError| AdapterError::Io {
        path: weights_path.clone(),
        source: std::io::Error::other(error),
    };
    let views = views.collect::<Result<Vec<_>, _>>().map_err(invalid)?;
    let format = [("format".to_string(), "pt".to_string())].into();
    let bytes = safetensors::serialize(views, Some(format)).map_err(invalid)?;
    let targets = portable_targets(module, config, &planned);
    let text = config_text(config, targets, metadata);

    fs::create_dir_all(folder).map_err(AdapterError::io(folder))?;
    write_aside(&weights_path, &bytes)?;
    write_aside(&folder.join(CONFIG_FILE), text.as_bytes())?;
    Ok(bytes.len() as u64)
}

type Bytes = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

/// The tasks for which PEFT reads a head from every folder.
const TASKS_WITH_HEAD: [&str; 2] = ["SEQ_CLS", "TOKEN_CLS"];

fn check_head(config: &LoraConfig, metadata: &PeftMetadata) -> Result<(), AdapterError> {
    let task = metadata.task_type.as_deref().unwrap_or_default();
    if !TASKS_WITH_HEAD.contains(&task) || !config.modules_to_save.is_empty() {
        return Ok(());
    }
    Err(AdapterError::Config {
        faults: vec![format!(
            "with the task {task}, PEFT looks for a trained head; name it in modules_to_save, or take the task FEATURE_EXTRACTION"
        )],
    })
}

/// The parameters that are saved as a whole, by key.
fn saved_tensors<M: Module>(module: &M, config: &LoraConfig) -> Result<Bytes, AdapterError> {
    let mut tensors = BTreeMap::new();
    let mut damaged = Vec::new();
    for (saved, values) in saved_values(module, &config.modules_to_save) {
        if values.iter().any(|value| !value.is_finite()) {
            damaged.push(saved.path.clone());
        }
        let values = match (saved.transposed, &saved.file_shape[..]) {
            (true, [rows, columns]) => transpose(&values, [*columns, *rows]),
            _ => values,
        };
        let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
        tensors.insert(saved_key(&saved.path), (saved.file_shape, bytes));
    }
    match damaged.is_empty() {
        true => Ok(tensors),
        false => Err(AdapterError::NotFinite { layers: damaged }),
    }
}

/// The factors as PEFT lays them out, by key.
fn tensors(weights: &[AdaptedWeight], name: &str) -> Result<Bytes, AdapterError> {
    let mut tensors = BTreeMap::new();
    let mut damaged = Vec::new();
    for weight in weights {
        let Some(lora) = weight.stack.get(name) else {
            continue;
        };
        for (factor, param) in Factor::BOTH.into_iter().zip([&lora.a, &lora.b]) {
            let (shape, values) = host(param.val());
            if values.iter().any(|value| !value.is_finite()) {
                damaged.push(weight.module_path().to_string());
            }
            let bytes = transpose(&values, shape)
                .into_iter()
                .flat_map(f32::to_le_bytes);
            let [rows, columns] = shape;
            tensors.insert(
                factor.key(weight.module_path()),
                (vec![columns, rows], bytes.collect()),
            );
        }
    }
    if tensors.is_empty() {
        return Err(AdapterError::NoAdapter {
            name: Some(name.to_string()),
            present: present(weights),
        });
    }
    damaged.dedup();
    match damaged.is_empty() {
        true => Ok(tensors),
        false => Err(AdapterError::NotFinite { layers: damaged }),
    }
}

/// The names of the adapters that a module has.
fn present(weights: &[AdaptedWeight]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for adapter in weights.iter().flat_map(|weight| weight.stack.adapters()) {
        if !names.contains(&adapter.name) {
            names.push(adapter.name.clone());
        }
    }
    names
}

fn host(tensor: Tensor<2>) -> ([usize; 2], Vec<f32>) {
    let shape = tensor.dims();
    let data = cast(tensor, DType::F32).into_data();
    (shape, data.iter::<f32>().collect())
}

fn config_text(config: &LoraConfig, targets: TargetModules, metadata: &PeftMetadata) -> String {
    let mut other = metadata.other.clone();
    for (field, value) in [
        ("auto_mapping", Value::Null),
        ("revision", Value::Null),
        ("layers_pattern", Value::Null),
        ("use_dora", json!(false)),
        ("lora_bias", json!(false)),
    ] {
        other.entry(field).or_insert(value);
    }
    let task = metadata.task_type.clone();
    let written = PeftConfig {
        peft_type: "LORA".to_string(),
        task_type: Some(task.unwrap_or_else(|| "CAUSAL_LM".to_string())),
        base_model_name_or_path: metadata.base_model_name_or_path.clone(),
        inference_mode: true,
        r: config.rank,
        lora_alpha: config.alpha,
        lora_dropout: config.dropout,
        use_rslora: config.use_rslora,
        target_modules: Some(targets),
        exclude_modules: config.exclude.as_ref().map(Into::into),
        layers_to_transform: config.layers_to_transform.clone().map(Layers::Many),
        rank_pattern: pattern(&config.rank_pattern),
        alpha_pattern: pattern(&config.alpha_pattern),
        // The factors say it all now; an exotic name here would make some loaders refuse the folder.
        init_lora_weights: json!(true),
        modules_to_save: Some(config.modules_to_save.clone()).filter(|names| !names.is_empty()),
        bias: "none".to_string(),
        fan_in_fan_out: metadata.fan_in_fan_out,
        other,
    };
    // Maps with string keys and plain values always serialize.
    let value = serde_json::to_value(&written).unwrap_or_default();
    format!("{}\n", tidy(value))
}

/// Whole numbers are written as such, since some readers want an integer for `lora_alpha`.
fn tidy(mut value: Value) -> String {
    if let Some(alpha) = value.get("lora_alpha").and_then(Value::as_f64)
        && alpha.fract() == 0.0
        && alpha.abs() < 1e15
    {
        value["lora_alpha"] = json!(alpha as i64);
    }
    format!("{value:#}")
}

fn pattern<T: Copy + Into<Value>>(entries: &[(String, T)]) -> Map<String, Value> {
    let entries = entries
        .iter()
        .map(|(key, value)| (key.clone(), (*value).into()));
    entries.collect()
}

/// Writes a file under another name in the same folder and renames it, which is atomic.
pub(super) fn write_aside(path: &Path, bytes: &[u8]) -> Result<(), AdapterError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".partial");
    let aside = Path::new(&aside);
    fs::write(aside, bytes).map_err(AdapterError::io(aside))?;
    fs::rename(aside, path).map_err(AdapterError::io(path))
}
