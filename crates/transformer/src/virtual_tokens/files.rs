//! The folders of PEFT: `adapter_config.json`, and `adapter_model.safetensors` with the tensor `prompt_embeddings` and the parameters of a
//! head.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::module::Module;
use burn::tensor::DType;
use burn_lora_adapter::is_saved;
use serde_json::{Map, Value, json};

use super::host::{Host, Sizes, put_these};
use super::prompt::parameter;
use super::{PTuning, PrefixTuning, PromptTuning, VirtualTokens, VirtualTokensError as Error};
use crate::adapter_folder::{self, Tensors, not_finite};
use crate::nearest::{hint, nearest};
use crate::parameters::{Parameter, fill, parameters};
use crate::task::heads_of;
use crate::weigh::cast;

const TENSOR: &str = "prompt_embeddings";
/// What PEFT puts in front of the paths of the base model.
const PREFIX: &str = "base_model.";
const MODULES_TO_SAVE: &str = "modules_to_save";

/// PEFT's names of the methods.
const TYPES: [&str; 3] = ["PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"];

pub(super) fn save<M: Host>(
    model: &M,
    tokens: &VirtualTokens,
    dir: &Path,
    base_model: Option<&str>,
    other: &Map<String, Value>,
) -> Result<u64, Error> {
    let sizes = model.sizes();
    let flat = cast(tokens.flattened(), DType::F32);
    let [_, columns] = flat.dims();
    let mut numbers: Vec<f32> = flat.into_data().iter::<f32>().collect();
    let rows = tokens.rows_in_file(sizes);
    // Rows that PEFT has for the decoder, and does not use.
    numbers.resize(rows * columns, 0.0);
    let modules = saved_modules(other, model.task_type());
    let config = tokens.config(model, base_model, &modules, other);
    let mut tensors = Tensors::from([(TENSOR.to_string(), (vec![rows, columns], numbers))]);
    for (path, head) in parameters_of(model, &modules) {
        tensors.insert(format!("{PREFIX}{path}"), (head.shape, head.values));
    }
    let faults = not_finite(&tensors);
    if !faults.is_empty() {
        return Err(Error::Config { faults });
    }
    Ok(adapter_folder::write(dir, &tensors, &config)?)
}

pub(super) fn load<M: Host>(
    model: M,
    name: &str,
    dir: &Path,
) -> Result<(M, Map<String, Value>), Error> {
    let sizes = model.sizes();
    let ((kind, count, rows), config) =
        adapter_folder::read_config(dir, |config| read_config(config, sizes))?;
    let columns = sizes.columns(kind == 2);
    let task = config.get("task_type").and_then(Value::as_str);
    let heads = parameters_of(&model, &saved_modules(&config, task));
    let mut expected = BTreeMap::from([(TENSOR.to_string(), vec![rows, columns])]);
    for (path, head) in &heads {
        expected.insert(format!("{PREFIX}{path}"), head.shape.clone());
    }
    let mut values = adapter_folder::read(dir, &expected)?;
    let mut numbers = values.remove(TENSOR).unwrap_or_default();
    numbers.truncate(count * columns);
    let embedding = parameter(numbers, [count, columns], &model.words().device());
    let tokens = match kind {
        0 => VirtualTokens::Prompt(PromptTuning { embedding }),
        1 => VirtualTokens::PTuning(PTuning {
            embedding,
            encoder: None,
        }),
        _ => VirtualTokens::Prefix(PrefixTuning {
            embedding,
            projection: None,
        }),
    };
    let model = put_these(model, name, tokens)?;
    let heads: HashMap<String, Vec<f32>> = heads
        .into_iter()
        .filter_map(|(path, head)| {
            let values = values.get(&format!("{PREFIX}{path}"))?;
            Some((path, head.in_burns_order(values)))
        })
        .collect();
    Ok((fill(model, heads), config))
}

/// The modules that are saved as a whole: those that the configuration names, or those of the task.
fn saved_modules(config: &Map<String, Value>, task: Option<&str>) -> Vec<String> {
    match config.get(MODULES_TO_SAVE).and_then(Value::as_array) {
        Some(names) => {
            let names = names.iter().filter_map(Value::as_str);
            names.map(String::from).collect()
        }
        None => heads_of(task),
    }
}

fn parameters_of<M: Module>(model: &M, modules: &[String]) -> BTreeMap<String, Parameter> {
    parameters(model, |path, _| is_saved(path, modules))
}

impl VirtualTokens {
    fn peft_type(&self) -> &'static str {
        TYPES[match self {
            Self::Prompt(_) => 0,
            Self::PTuning(_) => 1,
            Self::Prefix(_) => 2,
        }]
    }

    /// Of embeddings, PEFT has as many for the decoder as for the encoder.
    fn rows_in_file(&self, sizes: Sizes) -> usize {
        match self {
            Self::Prefix(_) => self.count(),
            Self::Prompt(_) | Self::PTuning(_) => self.count() * sizes.submodules,
        }
    }

    /// Fields that a folder had are in `other`, and stay.
    fn config<M: Host>(
        &self,
        model: &M,
        base_model: Option<&str>,
        modules: &[String],
        other: &Map<String, Value>,
    ) -> Map<String, Value> {
        let sizes = model.sizes();
        let mut config = other.clone();
        let mut set = |field: &str, value: Value| {
            config.insert(field.to_string(), value);
        };
        set("peft_type", json!(self.peft_type()));
        set("num_virtual_tokens", json!(self.count()));
        set("num_transformer_submodules", json!(sizes.submodules));
        for (field, size) in stated_sizes(sizes, matches!(self, Self::Prefix(_))) {
            set(field, json!(size));
        }
        set("inference_mode", json!(true));
        if !modules.is_empty() {
            set(MODULES_TO_SAVE, json!(modules));
        }
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
                let width = width.map(|linear| linear.weight.lazy_shape()[1]);
                let width = width.unwrap_or(sizes.d_embedding);
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
                    "encoder_hidden_size": width.unwrap_or(sizes.kv()),
                    "prefix_projection": projection.is_some(),
                })
            }
        };
        let Value::Object(defaults) = defaults else {
            return config;
        };
        let common = [
            ("auto_mapping", Value::Null),
            ("base_model_name_or_path", Value::Null),
            ("revision", Value::Null),
            (MODULES_TO_SAVE, Value::Null),
            ("task_type", json!(model.task_type())),
        ];
        let common = common.map(|(field, value)| (field.to_string(), value));
        for (field, value) in defaults.into_iter().chain(common) {
            config.entry(field).or_insert(value);
        }
        config
    }
}

/// What a configuration says of the model.
fn stated_sizes(sizes: Sizes, is_prefix: bool) -> [(&'static str, usize); 3] {
    let (dim, layers, heads) = match is_prefix {
        true => (sizes.kv(), sizes.prefix_layers, sizes.n_kv_heads),
        false => (sizes.d_embedding, sizes.layers, sizes.n_heads),
    };
    [
        ("token_dim", dim),
        ("num_layers", layers),
        ("num_attention_heads", heads),
    ]
}

/// The place of the method in [`TYPES`], the number of tokens, and that of rows in the file.
fn read_config(
    config: &Map<String, Value>,
    sizes: Sizes,
) -> Result<(usize, usize, usize), Vec<String>> {
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
    let number = |field: &str| config.get(field).and_then(Value::as_u64);
    let count = number("num_virtual_tokens").map(|count| count as usize);
    if count.is_none_or(|count| count == 0) {
        faults.push("num_virtual_tokens is no positive number".to_string());
    }
    let submodules = number("num_transformer_submodules").map(|count| count as usize);
    let submodules = submodules.unwrap_or(sizes.submodules);
    if !(1..=sizes.submodules).contains(&submodules) {
        let most = match sizes.submodules {
            1 => "1, as for a model of one stack".to_string(),
            most => format!("between 1 and {most}"),
        };
        faults.push(format!(
            "num_transformer_submodules is {submodules}, not {most}"
        ));
    }
    for (field, expected) in stated_sizes(sizes, is_prefix) {
        let found = number(field);
        if found.is_some_and(|found| found != expected as u64) {
            let found = &config[field];
            faults.push(format!("{field} is {found}, the model's is {expected}"));
        }
    }
    match (kind, count) {
        (Some(kind), Some(count)) if faults.is_empty() => {
            let rows = if is_prefix { count } else { count * submodules };
            Ok((kind, count, rows))
        }
        _ => Err(faults),
    }
}
