use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::module::Module;
use burn_lora_kernels::LowRank;
use serde_json::{Map, Value};

use super::describe::{check_same, portable_targets};
use super::folder::{Tensors, write_folder};
use super::groups::group;
use super::keys::{SHARED, layer_key, saved_key, transpose};
use crate::beside::Beside;
use crate::blueprint::{Blueprint, host};
use crate::config::LoraConfig;
use crate::error::AdapterError;
use crate::factors::{self, Factors};
use crate::initial::{Plain, plain_of};
use crate::lifecycle::adapters;
use crate::method::{Method, MethodConfig};
use crate::plan::{Planned, plan};
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
/// runtime knows the word. Factors over a base that an [initialization](crate::Initialization) changed are saved as plain LoRA
/// for the base as it was, of twice the rank. A model card that is there is brought up to date, not written over. All files are written to the side and renamed, so a folder never holds half of one. Tensors
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
    let present = adapters(module).into_iter().map(|adapter| adapter.name);
    let present: Vec<String> = present.collect();
    if !present.iter().any(|known| known == name) {
        return Err(AdapterError::NoAdapter {
            name: Some(name.to_string()),
            present,
        });
    }
    let planned = plan(module, config)?;
    check_same(&planned, &weights, name, config)?;
    check_head(config, metadata)?;
    let plain = without_starts(config, planned, &weights, name)?;
    let (planned, mut config) = (plain.plan, plain.config);
    let mut tensors = adapter_tensors(&planned, &weights, name, &plain.factors, &mut config)?;
    tensors.extend(saved_tensors(module, &Beside::new(&config, &planned))?);
    let targets = portable_targets(module, &config, &planned);
    write_folder(folder, &tensors, &config, &targets, metadata)
}

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

/// The parameters of the base that are saved with the adapter, by key.
fn saved_tensors<M: Module>(module: &M, beside: &Beside<'_>) -> Result<Tensors, AdapterError> {
    let mut tensors = BTreeMap::new();
    let mut damaged = Vec::new();
    for (saved, values) in saved_values(module, beside) {
        if values.iter().any(|value| !value.is_finite()) {
            damaged.push(saved.path.clone());
        }
        let values = match (saved.transposed, &saved.file_shape[..]) {
            (true, [rows, columns]) => transpose(&values, [*columns, *rows]),
            _ => values,
        };
        tensors.insert(saved_key(&saved.file_path), (saved.file_shape, values));
    }
    match damaged.is_empty() {
        true => Ok(tensors),
        false => Err(AdapterError::NotFinite { layers: damaged }),
    }
}

/// The adapter for the base as it was before any initialization, which is the base that a reader of the folder has.
fn without_starts(
    config: &LoraConfig,
    plan: Vec<Planned>,
    weights: &[AdaptedWeight],
    name: &str,
) -> Result<Plain, AdapterError> {
    let mut pairs = HashMap::new();
    for weight in weights {
        if let Some(lora) = weight.stack.get(name)
            && let Some(start) = &lora.start
        {
            let now = Factors {
                a: factors::host(lora.a.val()),
                b: factors::host(lora.b.val()),
                scale: lora.scale,
            };
            pairs.insert(weight.path.clone(), [now, Factors::clone(start)]);
        }
    }
    match pairs.is_empty() {
        true => Ok(Plain {
            config: config.clone(),
            plan,
            factors: HashMap::new(),
        }),
        false => plain_of(config, &plan, pairs),
    }
}

/// The tensors of the adapter as PEFT lays them out, by key. Where a file says more than the configuration that the adapter was
/// attached with, the configuration is brought up to it.
fn adapter_tensors(
    planned: &[Planned],
    weights: &[AdaptedWeight],
    name: &str,
    plain: &HashMap<String, Factors>,
    config: &mut LoraConfig,
) -> Result<Tensors, AdapterError> {
    let mut tensors = BTreeMap::new();
    let mut damaged = Vec::new();
    let stacks: HashMap<&str, &AdaptedWeight> = weights
        .iter()
        .map(|weight| (weight.path.as_str(), weight))
        .collect();
    let method_of = |planned: &Planned| stacks.get(planned.path.as_str())?.stack.method(name);
    let pruned = pruned(planned, method_of, config);
    for planned in planned {
        let Some(method) = method_of(planned) else {
            continue;
        };
        let values: Vec<Vec<f32>> = match method {
            Method::Lora(_) if plain.contains_key(&planned.path) => {
                let factors = &plain[&planned.path];
                vec![factors.a.to_f32(), factors.b.to_f32()]
            }
            Method::Parts(parts) => {
                let LowRank { a, b, .. } = parts.joined();
                vec![host(a), host(b)]
            }
            method => {
                let parameters = method.inner().parameters().into_iter();
                parameters.map(|parameter| host(parameter.val())).collect()
            }
        };
        for (mut spec, mut values) in planned.specs().into_iter().zip(values) {
            if values.iter().any(|value| !value.is_finite()) {
                damaged.push(planned.module_path().to_string());
            }
            if spec.transposed {
                values = transpose(&values, spec.shape);
            }
            if let Some(kept) = pruned.get(planned.module_path()) {
                keep(kept, &mut spec.file_shape, &mut values);
            }
            let key = layer_key(planned.module_path(), &spec.key);
            tensors.insert(key, (spec.file_shape, values));
        }
    }
    tensors.extend(shared_tensors(planned, method_of, config));
    describe_parts(planned, config);
    group(planned, &mut tensors, config);
    damaged.dedup();
    match damaged.is_empty() {
        true => Ok(tensors),
        false => Err(AdapterError::NotFinite { layers: damaged }),
    }
}

/// The projections that the layers of a VeRA adapter share: each layer has the part that it needs, the widest the whole.
fn shared_tensors<'a>(
    planned: &[Planned],
    method_of: impl Fn(&Planned) -> Option<&'a Method>,
    config: &LoraConfig,
) -> Tensors {
    let MethodConfig::Vera(vera) = &config.method else {
        return Tensors::new();
    };
    let widest = |side: usize| {
        let sites = planned.iter().max_by_key(|site| site.view.dims()[side]);
        match sites.and_then(&method_of) {
            Some(Method::Vera(vera)) => Some([vera.a.clone(), vera.b.clone()]),
            _ => None,
        }
    };
    let mut tensors = Tensors::new();
    if !vera.save_projection {
        return tensors;
    }
    for (side, key) in SHARED.into_iter().enumerate() {
        if let Some(tensor) = widest(side).map(|pair| pair[side].clone()) {
            let [rows, columns] = tensor.dims();
            let values = transpose(&host(tensor), [rows, columns]);
            tensors.insert(key.to_string(), (vec![columns, rows], values));
        }
    }
    tensors
}

/// Which singular values of an AdaLoRA adapter are left, by layer, where the budget took any; noted in the configuration.
fn pruned<'a>(
    planned: &[Planned],
    method_of: impl Fn(&Planned) -> Option<&'a Method>,
    config: &mut LoraConfig,
) -> HashMap<String, Vec<bool>> {
    let MethodConfig::AdaLora(adalora) = &mut config.method else {
        return HashMap::new();
    };
    let mut found: Vec<(String, Vec<bool>)> = Vec::new();
    for planned in planned {
        if let Some(Method::AdaLora(method)) = method_of(planned) {
            found.push((planned.module_path().to_string(), method.kept()));
        }
    }
    let all = found.iter().flat_map(|(_, kept)| kept);
    // All are 0 before the first step, when nothing was given away.
    let is_pruned = all.clone().any(|kept| *kept) && all.clone().any(|kept| !kept);
    if !is_pruned {
        return HashMap::new();
    }
    for (layer, kept) in &mut found {
        if !kept.contains(&true) {
            // A rank of 0 is nothing that a file can say; one singular value that is 0 changes nothing.
            kept[0] = true;
        }
        // What a file left out before, counted from the start.
        let before = adalora.kept.iter().find(|(known, _)| known == layer);
        let whole: Vec<bool> = match before {
            Some((_, before)) => {
                let mut kept = kept.iter();
                before
                    .iter()
                    .map(|was_kept| *was_kept && kept.next().copied().unwrap_or(false))
                    .collect()
            }
            None => kept.clone(),
        };
        adalora.kept.retain(|(known, _)| known != layer);
        adalora.kept.push((layer.clone(), whole));
    }
    found.into_iter().collect()
}

/// Leaves the singular vectors and values that are kept.
fn keep(kept: &[bool], shape: &mut [usize], values: &mut Vec<f32>) {
    let (axis, [rows, columns]) = match shape {
        [rows, columns] if *rows == kept.len() => (0, [*rows, *columns]),
        [rows, columns] => (1, [*rows, *columns]),
        _ => return,
    };
    let is_kept = |index: usize| match axis {
        0 => kept[index / columns],
        _ => kept[index % columns],
    };
    let left = (0..rows * columns).filter(|index| is_kept(*index));
    *values = left.map(|index| values[index]).collect();
    shape[axis] = kept.iter().filter(|kept| **kept).count();
}

/// Parts of fused projections are one product of the summed rank in a file, which needs an alpha for the same scale.
fn describe_parts(planned: &[Planned], config: &mut LoraConfig) {
    let parted = planned.iter().filter_map(|site| match &site.blueprint {
        Blueprint::Parts(columns) => Some((site, columns.len())),
        _ => None,
    });
    for (site, count) in parted {
        let growth = match config.use_rslora {
            true => (count as f64).sqrt(),
            false => count as f64,
        };
        let key = regex::escape(site.module_path());
        config.rank_pattern.insert(0, (key.clone(), site.rank));
        config.alpha_pattern.insert(0, (key, site.alpha * growth));
    }
    config.parts.clear();
}
