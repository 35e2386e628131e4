//! The folders of PEFT: `adapter_config.json`, and `adapter_model.safetensors` with the one tensor `prompt_embeddings`.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use burn::tensor::{DType, Device};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};

use super::prompt::parameter;
use super::{PTuning, PrefixTuning, PromptTuning, VirtualTokens, VirtualTokensError as Error};
use crate::nearest::{hint, nearest};
use crate::save::write_text;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const TENSOR: &str = "prompt_embeddings";

/// PEFT's names of the methods.
const TYPES: [&str; 3] = ["PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"];

/// What of a model its files speak of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sizes {
    pub(crate) d_model: usize,
    pub(crate) layers: usize,
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) d_head: usize,
}

impl Sizes {
    /// The width of a layer's keys.
    fn kv(&self) -> usize {
        self.n_kv_heads * self.d_head
    }

    /// How many numbers a virtual token is.
    pub(crate) fn columns(&self, is_prefix: bool) -> usize {
        match is_prefix {
            true => self.layers * 2 * self.kv(),
            false => self.d_model,
        }
    }
}

impl VirtualTokens {
    fn peft_type(&self) -> &'static str {
        TYPES[match self {
            Self::Prompt(_) => 0,
            Self::PTuning(_) => 1,
            Self::Prefix(_) => 2,
        }]
    }

    /// Fields that the folder had are in `other`, and stay.
    pub(crate) fn save(
        &self,
        dir: &Path,
        sizes: Sizes,
        base_model: Option<&str>,
        other: &Map<String, Value>,
    ) -> Result<u64, Error> {
        let flat = self.flattened().cast(DType::F32);
        let shape = flat.dims().to_vec();
        let numbers: Vec<f32> = flat.into_data().iter::<f32>().collect();
        if numbers.iter().any(|number| !number.is_finite()) {
            let faults = vec!["they hold NaN or infinity".to_string()];
            return Err(Error::Config { faults });
        }
        let bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        let path = dir.join(WEIGHTS);
        let written = TensorView::new(Dtype::F32, shape, &bytes).and_then(|view| {
            let format = HashMap::from([("format".to_string(), "pt".to_string())]);
            safetensors::serialize([(TENSOR, view)], Some(format))
        });
        let written = written.map_err(|error| Error::io(&path)(std::io::Error::other(error)))?;
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let partial = dir.join(format!("{WEIGHTS}.partial"));
        fs::write(&partial, &written).map_err(Error::io(&partial))?;
        fs::rename(&partial, &path).map_err(Error::io(&path))?;
        let text = format!("{:#}\n", self.config_json(sizes, base_model, other));
        let path = dir.join(CONFIG);
        write_text(&path, &text).map_err(|error| Error::io(path)(std::io::Error::other(error)))?;
        Ok(written.len() as u64)
    }

    fn config_json(
        &self,
        sizes: Sizes,
        base_model: Option<&str>,
        other: &Map<String, Value>,
    ) -> Value {
        let prefix = matches!(self, Self::Prefix(_));
        let (dim, heads) = match prefix {
            true => (sizes.kv(), sizes.n_kv_heads),
            false => (sizes.d_model, sizes.n_heads),
        };
        let mut config = other.clone();
        let mut set = |field: &str, value: Value| {
            config.insert(field.to_string(), value);
        };
        set("peft_type", json!(self.peft_type()));
        set("num_virtual_tokens", json!(self.count()));
        set("token_dim", json!(dim));
        set("num_transformer_submodules", json!(1));
        set("num_attention_heads", json!(heads));
        set("num_layers", json!(sizes.layers));
        set("inference_mode", json!(true));
        if let Some(base) = base_model {
            set("base_model_name_or_path", json!(base));
        }
        let defaults = match self {
            Self::Prompt(_) => json!({
                "prompt_tuning_init": "RANDOM",
                "prompt_tuning_init_text": null,
                "tokenizer_name_or_path": null,
                "tokenizer_kwargs": null,
            }),
            Self::PTuning(prompt) => {
                let encoder = prompt.encoder.as_ref();
                let lstms = encoder.map_or(0, |encoder| encoder.lstms.len());
                let width = encoder.and_then(|encoder| encoder.linears.first());
                let width = width.map_or(dim, |linear| linear.weight.lazy_shape()[1]);
                json!({
                    "encoder_reparameterization_type": if lstms > 0 { "LSTM" } else { "MLP" },
                    "encoder_hidden_size": if lstms > 0 { width / 2 } else { width },
                    "encoder_num_layers": if lstms > 0 { lstms } else { 2 },
                    "encoder_dropout": 0.0,
                })
            }
            Self::Prefix(prefix) => {
                let projection = prefix.projection.as_ref();
                let width = projection.map(|projection| projection.first.weight.lazy_shape()[1]);
                json!({
                    "encoder_hidden_size": width.unwrap_or(dim),
                    "prefix_projection": projection.is_some(),
                })
            }
        };
        let common = json!({
            "auto_mapping": null,
            "base_model_name_or_path": null,
            "revision": null,
            "task_type": "CAUSAL_LM",
        });
        for fields in [defaults, common] {
            let Value::Object(fields) = fields else {
                continue;
            };
            for (field, value) in fields {
                config.entry(field).or_insert(value);
            }
        }
        Value::Object(config)
    }

    /// Returns the fields of the configuration, too.
    pub(crate) fn load(
        dir: &Path,
        sizes: Sizes,
        device: &Device,
    ) -> Result<(Self, Map<String, Value>), Error> {
        let path = dir.join(CONFIG);
        let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
        let config: Map<String, Value> =
            serde_json::from_str(&text).map_err(|error| Error::Folder {
                path: path.clone(),
                faults: vec![format!("not a JSON object: {error}")],
            })?;
        let (kind, count) = read_config(&config, sizes).map_err(|faults| {
            let path = path.clone();
            Error::Folder { path, faults }
        })?;
        let columns = sizes.columns(kind == 2);
        let path = dir.join(WEIGHTS);
        let bytes = fs::read(&path).map_err(Error::io(&path))?;
        let numbers = read_tensor(&bytes, [count, columns])
            .map_err(|faults| Error::Folder { path, faults })?;
        let embedding = parameter(numbers, [count, columns], device);
        let tokens = match kind {
            0 => Self::Prompt(PromptTuning { embedding }),
            1 => Self::PTuning(PTuning {
                embedding,
                encoder: None,
            }),
            _ => Self::Prefix(PrefixTuning {
                embedding,
                projection: None,
            }),
        };
        Ok((tokens, config))
    }
}

/// The place of the method in [`TYPES`], and the number of tokens.
fn read_config(config: &Map<String, Value>, sizes: Sizes) -> Result<(usize, usize), Vec<String>> {
    let mut faults = Vec::new();
    let peft_type = config
        .get("peft_type")
        .and_then(Value::as_str)
        .unwrap_or("");
    let kind = TYPES.iter().position(|known| *known == peft_type);
    if kind.is_none() {
        let near = hint(nearest(peft_type, TYPES).as_ref());
        faults.push(format!(
            "peft_type \"{peft_type}\"{near}; virtual tokens are {}",
            TYPES.join(", ")
        ));
    }
    let is_prefix = kind == Some(2);
    let count = config.get("num_virtual_tokens").and_then(Value::as_u64);
    if count.is_none_or(|count| count == 0) {
        faults.push("num_virtual_tokens is no positive number".to_string());
    }
    let submodules = config
        .get("num_transformer_submodules")
        .and_then(Value::as_u64);
    if submodules.is_some_and(|count| count != 1) {
        faults.push("num_transformer_submodules is not 1, as for a decoder".to_string());
    }
    let (dim, heads) = match is_prefix {
        true => (sizes.kv(), sizes.n_kv_heads),
        false => (sizes.d_model, sizes.n_heads),
    };
    for (field, expected) in [
        ("token_dim", dim),
        ("num_layers", sizes.layers),
        ("num_attention_heads", heads),
    ] {
        let found = config.get(field).and_then(Value::as_u64);
        if found.is_some_and(|found| found != expected as u64) {
            let found = &config[field];
            faults.push(format!("{field} is {found}, the model's is {expected}"));
        }
    }
    match (kind, count) {
        (Some(kind), Some(count)) if faults.is_empty() => Ok((kind, count as usize)),
        _ => Err(faults),
    }
}

fn read_tensor(bytes: &[u8], expected: [usize; 2]) -> Result<Vec<f32>, Vec<String>> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| vec![format!("not a safetensors file, or a damaged one: {error}")])?;
    let mut faults: Vec<String> = file
        .names()
        .into_iter()
        .filter(|name| *name != TENSOR)
        .map(|name| format!("unexpected {name}"))
        .collect();
    faults.sort();
    let Ok(view) = file.tensor(TENSOR) else {
        faults.push(format!("missing {TENSOR} {expected:?}"));
        return Err(faults);
    };
    if view.shape() != expected {
        let found = view.shape();
        faults.push(format!(
            "{TENSOR} is {found:?}, the model and the configuration need {expected:?}"
        ));
    }
    let data = view.data();
    let numbers: Vec<f32> = match view.dtype() {
        Dtype::F32 => chunks(data, f32::from_le_bytes),
        Dtype::F16 => chunks(data, |bytes| half::f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => chunks(data, |bytes| half::bf16::from_le_bytes(bytes).to_f32()),
        other => {
            faults.push(format!("{TENSOR} is {other:?}, not f32, f16 or bf16"));
            Vec::new()
        }
    };
    if numbers.iter().any(|number| !number.is_finite()) {
        faults.push(format!("{TENSOR} holds NaN or infinity"));
    }
    match faults.is_empty() {
        true => Ok(numbers),
        false => Err(faults),
    }
}

fn chunks<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|chunk| read(*chunk))
        .collect()
}
