//! Folders in PEFT's style: `adapter_config.json` with `peft_type` `BOTTLENECK`, and `adapter_model.safetensors`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::module::Module;
use burn_lora_adapter::is_saved;
use serde_json::{Map, Value, json};

use super::host::{Host, put};
use super::{BottleneckConfig, BottleneckError as Error, BottleneckPlacement, BottleneckSet};
use crate::activation::Activation;
use crate::adapter_folder::{self, Tensors, not_finite};
use crate::parameters::{Parameter, fill, parameters};
use crate::part_methods::PART_MODULES;
use crate::parts::task_of;
use crate::slot::Held;
use crate::task::heads_of;

const PREFIX: &str = "base_model.model.";
const PEFT_TYPE: &str = "BOTTLENECK";

const PLACEMENTS: [(&str, BottleneckPlacement); 3] = [
    ("houlsby", BottleneckPlacement::Houlsby),
    ("pfeiffer", BottleneckPlacement::Pfeiffer),
    ("parallel", BottleneckPlacement::Parallel),
];

/// The bottlenecks' parameters: by the container that Burn's derive names.
const CONTAINER: &str = "Struct:Bottleneck";

/// A parameter of a folder.
struct Stored {
    path: String,
    parameter: Parameter,
}

/// The parameters of a folder by their keys, in which names of sets have no part: those of one set, and of the modules saved with it.
fn parameters_of<M: Module>(model: &M, name: &str, modules: &[String]) -> BTreeMap<String, Stored> {
    let found = parameters(model, |path, container| match container == CONTAINER {
        true => without_name(path, name).is_some(),
        false => is_saved(path, modules),
    });
    let found = found.into_iter().map(|(path, parameter)| {
        let key = without_name(&path, name).unwrap_or_else(|| path.clone());
        (format!("{PREFIX}{key}"), Stored { path, parameter })
    });
    found.collect()
}

/// The path of a bottleneck's parameter without the name of its set, if it is this one.
fn without_name(path: &str, name: &str) -> Option<String> {
    let (path, parameter) = path.rsplit_once('.')?;
    let (place, found) = path.rsplit_once('.')?;
    let is_place = PART_MODULES[1..].iter().any(|known| place.ends_with(known));
    (is_place && found == name).then(|| format!("{place}.{parameter}"))
}

pub(super) fn save<M: Host>(
    model: &M,
    set: &BottleneckSet,
    dir: &Path,
    stated: &Map<String, Value>,
) -> Result<u64, Error> {
    let config = set.config;
    let heads = match stated.get("modules_to_save").and_then(Value::as_array) {
        Some(names) => {
            let names = names.iter().filter_map(Value::as_str);
            names.map(String::from).collect()
        }
        None => heads_of(model.task_type()),
    };
    let tensors = parameters_of(model, set.name(), &heads).into_iter();
    let tensors: Tensors = tensors
        .map(|(key, Stored { parameter, .. })| (key, (parameter.shape, parameter.values)))
        .collect();
    let faults = not_finite(&tensors);
    if !faults.is_empty() {
        return Err(Error::Config { faults });
    }
    let placement = PLACEMENTS
        .iter()
        .find(|(_, known)| *known == config.placement);
    let fields = [
        ("peft_type", json!(PEFT_TYPE)),
        ("task_type", task_of(model, stated)),
        (
            "base_model_name_or_path",
            json!(stated.get("base_model_name_or_path")),
        ),
        ("inference_mode", json!(true)),
        ("bottleneck_size", json!(config.width)),
        ("placement", json!(placement.map(|(word, _)| word))),
        ("non_linearity", json!(config.activation.name())),
        ("scaling", json!(config.scale)),
        (
            "modules_to_save",
            json!((!heads.is_empty()).then_some(heads)),
        ),
    ];
    let fields = fields.map(|(field, value)| (field.to_string(), value));
    let fields: Map<String, Value> = fields.into_iter().collect();
    Ok(adapter_folder::write(dir, &tensors, &fields)?)
}

pub(super) fn load<M: Host>(
    model: M,
    name: &str,
    dir: &Path,
) -> Result<(M, BottleneckConfig), Error> {
    let (config, fields) = adapter_folder::read_config(dir, read_config)?;
    let saved = fields.get("modules_to_save").and_then(Value::as_array);
    let saved = saved.into_iter().flatten().filter_map(Value::as_str);
    let saved: Vec<String> = saved.map(String::from).collect();
    let fresh = put(model, name, &config, 0)?;
    let found = parameters_of(&fresh, name, &saved);
    let expected = found.iter();
    let expected = expected.map(|(key, stored)| (key.clone(), stored.parameter.shape.clone()));
    let values = adapter_folder::read(dir, &expected.collect())?;
    let values: HashMap<String, Vec<f32>> = found
        .into_iter()
        .filter_map(|(key, Stored { path, parameter })| {
            let values = values.get(&key)?;
            Some((path, parameter.in_burns_order(values)))
        })
        .collect();
    Ok((fill(fresh, values), config))
}

fn read_config(config: &Map<String, Value>) -> Result<BottleneckConfig, Vec<String>> {
    let mut faults = Vec::new();
    let word = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or("");
    if word("peft_type") != PEFT_TYPE {
        faults.push(format!(
            "peft_type is \"{}\", not {PEFT_TYPE}",
            word("peft_type")
        ));
    }
    let placement = PLACEMENTS
        .iter()
        .find(|(known, _)| *known == word("placement"));
    if placement.is_none() {
        let known = PLACEMENTS.map(|(word, _)| word).join(", ");
        faults.push(format!(
            "placement is \"{}\"; known: {known}",
            word("placement")
        ));
    }
    let activation = Activation::from_name(word("non_linearity"));
    if activation.is_none() {
        let known = Activation::known();
        faults.push(format!(
            "non_linearity is \"{}\"; known: {known}",
            word("non_linearity")
        ));
    }
    let width = config.get("bottleneck_size").and_then(Value::as_u64);
    if width.is_none() {
        faults.push("bottleneck_size is no number".to_string());
    }
    let scale = config.get("scaling").map_or(Some(1.0), Value::as_f64);
    if scale.is_none() {
        faults.push("scaling is no number".to_string());
    }
    match (placement, activation, width, scale) {
        (Some((_, placement)), Some(activation), Some(width), Some(scale)) if faults.is_empty() => {
            Ok(BottleneckConfig {
                width: width as usize,
                placement: *placement,
                activation,
                scale,
            })
        }
        _ => Err(faults),
    }
}
