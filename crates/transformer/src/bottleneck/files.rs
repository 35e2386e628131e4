//! Folders in PEFT's style: `adapter_config.json` with `peft_type` `BOTTLENECK`, and `adapter_model.safetensors`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor, TensorData};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::{BottleneckConfig, BottleneckError as Error, BottleneckPlacement};
use crate::activation::Activation;
use crate::decoder::Decoder;
use crate::save::write_text;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";
const PEFT_TYPE: &str = "BOTTLENECK";

const PLACEMENTS: [(&str, BottleneckPlacement); 3] = [
    ("houlsby", BottleneckPlacement::Houlsby),
    ("pfeiffer", BottleneckPlacement::Pfeiffer),
    ("parallel", BottleneckPlacement::Parallel),
];

fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { path, source }
}

impl Decoder {
    /// Writes the bottlenecks, which `config` made, to a folder, and returns the size of the weights in bytes.
    ///
    /// # Errors
    ///
    /// Without bottlenecks, when `config` is of others, when a number is not finite, and those of the system.
    pub fn save_bottlenecks(
        &self,
        dir: &Path,
        config: &BottleneckConfig,
        base_model: Option<&str>,
    ) -> Result<u64, Error> {
        let mut tensors = Collector::of(self);
        let mut faults = Vec::new();
        if self.bottlenecks() != Some(config.placement) {
            faults.push(format!(
                "the model has {:?}, not {:?}",
                self.bottlenecks(),
                config.placement
            ));
        }
        for (path, (shape, numbers)) in &tensors.found {
            if numbers.iter().any(|number| !number.is_finite()) {
                faults.push(format!("{path} holds NaN or infinity"));
            }
            if path.ends_with(".down") && shape[1] != config.width {
                faults.push(format!(
                    "{path} has the width {}, not {}",
                    shape[1], config.width
                ));
            }
        }
        if !faults.is_empty() {
            return Err(Error::Config { faults });
        }
        let bytes: BTreeMap<String, (Vec<usize>, Vec<u8>)> = std::mem::take(&mut tensors.found)
            .into_iter()
            .map(|(path, (shape, numbers))| {
                let bytes = numbers.into_iter().flat_map(f32::to_le_bytes).collect();
                (format!("{PREFIX}{path}"), (shape, bytes))
            })
            .collect();
        let path = dir.join(WEIGHTS);
        let views = bytes.iter().map(|(key, (shape, bytes))| {
            TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (key, view))
        });
        let written = views.collect::<Result<Vec<_>, _>>().and_then(|views| {
            let format = HashMap::from([("format".to_string(), "pt".to_string())]);
            safetensors::serialize(views, Some(format))
        });
        let written = written.map_err(|error| io(&path)(std::io::Error::other(error)))?;
        fs::create_dir_all(dir).map_err(io(dir))?;
        let partial = dir.join(format!("{WEIGHTS}.partial"));
        fs::write(&partial, &written).map_err(io(&partial))?;
        fs::rename(&partial, &path).map_err(io(&path))?;
        let placement = PLACEMENTS
            .iter()
            .find(|(_, known)| *known == config.placement);
        let config = json!({
            "peft_type": PEFT_TYPE,
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_model,
            "inference_mode": true,
            "bottleneck_size": config.width,
            "placement": placement.map(|(word, _)| word),
            "non_linearity": config.activation.name(),
            "scaling": config.scale,
        });
        let path = dir.join(CONFIG);
        write_text(&path, &format!("{config:#}\n"))
            .map_err(|error| io(path)(std::io::Error::other(error)))?;
        Ok(written.len() as u64)
    }

    /// Reads bottlenecks from a folder that [`Self::save_bottlenecks`] wrote, in the place of those that there were.
    ///
    /// # Errors
    ///
    /// Every fault of the configuration, or every one of the tensors.
    pub fn load_bottlenecks(self, dir: &Path) -> Result<(Self, BottleneckConfig), Error> {
        let path = dir.join(CONFIG);
        let text = fs::read_to_string(&path).map_err(io(&path))?;
        let config = serde_json::from_str(&text)
            .map_err(|error| vec![format!("not JSON: {error}")])
            .and_then(|config: Value| read_config(&config));
        let config = config.map_err(|faults| Error::Folder { path, faults })?;
        let fresh = self.with_bottlenecks(&config, 0)?;
        let expected = Collector::of(&fresh).found;
        let path = dir.join(WEIGHTS);
        let bytes = fs::read(&path).map_err(io(&path))?;
        let values =
            read_tensors(&bytes, &expected).map_err(|faults| Error::Folder { path, faults })?;
        let mut filler = Filler {
            path: Vec::new(),
            values,
        };
        Ok((fresh.map(&mut filler), config))
    }
}

fn read_config(config: &Value) -> Result<BottleneckConfig, Vec<String>> {
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

type Found = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn read_tensors(bytes: &[u8], expected: &Found) -> Result<HashMap<String, Vec<f32>>, Vec<String>> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| vec![format!("not a safetensors file, or a damaged one: {error}")])?;
    let mut faults = Vec::new();
    let mut values = HashMap::new();
    let known = |name: &str| {
        name.strip_prefix(PREFIX)
            .is_some_and(|path| expected.contains_key(path))
    };
    faults.extend(
        file.names()
            .iter()
            .filter(|name| !known(name))
            .map(|name| format!("unexpected {name}")),
    );
    for (path, (shape, _)) in expected {
        let key = format!("{PREFIX}{path}");
        let Ok(view) = file.tensor(&key) else {
            faults.push(format!("missing {key} {shape:?}"));
            continue;
        };
        if view.shape() != shape || view.dtype() != Dtype::F32 {
            let (found, dtype) = (view.shape(), view.dtype());
            faults.push(format!("{key} is {dtype:?} {found:?}, not F32 {shape:?}"));
            continue;
        }
        let chunks = view.data().as_chunks::<4>().0.iter();
        let numbers: Vec<f32> = chunks.map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if numbers.iter().any(|number| !number.is_finite()) {
            faults.push(format!("{key} holds NaN or infinity"));
        }
        values.insert(path.clone(), numbers);
    }
    faults.sort();
    match faults.is_empty() {
        true => Ok(values),
        false => Err(faults),
    }
}

/// The bottlenecks' parameters: by the container that Burn's derive names.
const CONTAINER: &str = "Struct:Bottleneck";

#[derive(Default)]
struct Collector {
    path: Vec<(String, bool)>,
    found: Found,
}

impl Collector {
    fn of(decoder: &Decoder) -> Self {
        let mut collector = Self::default();
        decoder.visit(&mut collector);
        collector
    }
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push((name.to_string(), container == CONTAINER));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.path.last().is_some_and(|(_, inside)| *inside) {
            let value = param.val();
            let shape = value.dims().to_vec();
            let numbers = value.cast(DType::F32).into_data().iter::<f32>().collect();
            let path: Vec<&str> = self.path.iter().map(|(name, _)| name.as_str()).collect();
            self.found.insert(path.join("."), (shape, numbers));
        }
    }
}

struct Filler {
    path: Vec<String>,
    values: HashMap<String, Vec<f32>>,
}

impl ModuleMapper for Filler {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.values.remove(&self.path.join(".")) {
            Some(values) => param.map(|old| {
                let data = TensorData::new(values, old.shape());
                Tensor::from_data(data, (&old.device(), DType::F32))
            }),
            None => param,
        }
    }
}
