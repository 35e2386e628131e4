use std::collections::HashMap;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, Tensor};
use burn_lora_linalg::{IncrementalSvd, Matrix};

use super::{
    Beginning, Begun, Evidence, Initialization, InputStatistics, Layer, LoftQ, corda, eva, loftq,
    lora_ga, olora, orthogonal, pissa,
};
use crate::attach::{check_biases, check_name, finish};
use crate::blueprint::Blueprint;
use crate::config::LoraConfig;
use crate::error::AdapterError;
use crate::factors::{FactorSet, host};
use crate::method::Method;
use crate::plan::{Planned, plan};
use crate::reach::{adapted_weights, bases, replace_stacks};
use crate::saved::replace_values;
use crate::targets::Targets;
use crate::view::Kind;

/// A module with a fresh adapter.
#[derive(Debug)]
pub struct Initialized<M> {
    /// The module, of which the base may be another.
    pub module: M,
    /// The configuration that describes the adapter; other than the one asked for where EVA has handed out the ranks.
    pub config: LoraConfig,
    /// The factors that training starts from. Where the base was changed, the adapter itself knows them, too, and is saved as a
    /// plain LoRA for the base as it was; [`to_plain`](crate::to_plain) does the same with numbers.
    pub initial: FactorSet,
}

/// Freezes a module and attaches a LoRA adapter whose factors are made from the weights, or from what was seen of them.
///
/// As [`attach`](crate::attach), but where the [`Initialization`] says so, the base loses what the factors hold, and the layers
/// compute what they did: to the precision of the base's dtype, and for LoftQ to that of its quantization.
///
/// # Errors
///
/// As [`attach`](crate::attach); and [`AdapterError::Factors`] with every layer that evidence is missing for, whose rank the
/// initialization cannot have, whose weight is not finite, or is quantized or has another adapter where it would be changed.
pub fn attach_initialized<M: Module>(
    module: M,
    name: &str,
    config: &LoraConfig,
    initialization: &Initialization,
    evidence: &Evidence,
) -> Result<Initialized<M>, AdapterError> {
    let planned = plan(&module, config)?;
    check_name(&module, name)?;
    check_biases(&module, config)?;
    let weights = bases(&module, planned.iter().map(|site| site.path.as_str()));
    let mut faults = faults(&module, &planned, &weights, initialization, evidence);
    if !faults.is_empty() {
        return Err(refused(faults));
    }
    let (config, planned) = redistributed(config, planned, initialization, evidence);

    let mut values = Vec::with_capacity(planned.len());
    let mut changed = HashMap::new();
    let mut initial = FactorSet::default();
    for site in &planned {
        let Some(tensor) = weights.get(&site.path) else {
            continue;
        };
        let path = site.module_path();
        let weight = host(tensor.clone());
        let layer = Layer {
            weight: &weight,
            rank: site.rank,
            scale: site.scale(&config),
            seed: config.seed,
            index: site.index,
        };
        match begin(&layer, path, initialization, evidence) {
            Err(error) => faults.push(format!("{path}: {error}")),
            Ok(Beginning { factors, base }) => {
                values.push(vec![factors.a.to_f32(), factors.b.to_f32()]);
                if let Some(base) = base {
                    changed.insert(site.path.clone(), base.to_f32());
                }
                initial.layers.insert(path.to_string(), factors);
            }
        }
    }
    if !faults.is_empty() {
        return Err(refused(faults));
    }
    let module = replace_values(module, changed);
    let mut module = finish(module, name, &planned, values, &config, None)?;
    if initialization.takes_out() {
        module = with_starts(module, name, &initial);
    }
    Ok(Initialized {
        module,
        config,
        initial,
    })
}

/// Notes in each adapter what it started from, for the file that it will be in.
fn with_starts<M: Module>(module: M, name: &str, initial: &FactorSet) -> M {
    let mut stacks = HashMap::new();
    for weight in adapted_weights(&module) {
        let Some(start) = initial.get(weight.module_path()) else {
            continue;
        };
        let stack = weight.stack.with_adapters(|adapters| {
            for adapter in adapters.iter_mut().filter(|adapter| adapter.name == name) {
                if let Method::Lora(lora) = &mut adapter.method {
                    lora.start = Some(Arc::new(start.clone()));
                }
            }
        });
        stacks.insert(weight.path, stack);
    }
    replace_stacks(module, stacks)
}

fn refused(faults: Vec<String>) -> AdapterError {
    AdapterError::Factors {
        action: "the initialization",
        faults,
    }
}

/// How one layer starts; evidence that is missing counts as none.
pub(super) fn begin(
    layer: &Layer<'_>,
    path: &str,
    initialization: &Initialization,
    evidence: &Evidence,
) -> Begun {
    match initialization {
        Initialization::Orthogonal => orthogonal::begin(layer),
        Initialization::Pissa { iterations } => pissa::begin(layer, *iterations),
        Initialization::Olora => olora::begin(layer),
        Initialization::LoftQ(settings) => loftq::begin(layer, settings),
        Initialization::Eva(settings) => {
            let none = IncrementalSvd::new(0);
            let inputs = components(evidence, path).unwrap_or(&none);
            eva::begin(layer, inputs, settings)
        }
        Initialization::Corda(method) => {
            let size = layer.weight.rows();
            let covariance = covariance(evidence, path).unwrap_or_else(|| Matrix::identity(size));
            corda::begin(layer, &covariance, *method)
        }
        Initialization::LoraGa(settings) => {
            let [d_in, d_out] = layer.weight.shape();
            let none = Matrix::zeros(d_in, d_out);
            let gradient = evidence.gradients.get(path).unwrap_or(&none);
            lora_ga::begin(layer, gradient, settings)
        }
    }
}

fn components<'a>(evidence: &'a Evidence, path: &str) -> Option<&'a IncrementalSvd> {
    match evidence.inputs.get(path)? {
        InputStatistics::Components(components) => Some(components),
        InputStatistics::Covariance { .. } => None,
    }
}

fn covariance(evidence: &Evidence, path: &str) -> Option<Matrix> {
    match evidence.inputs.get(path)? {
        InputStatistics::Covariance { sum, count } => Some(sum.scaled(1.0 / *count as f64)),
        InputStatistics::Components(_) => None,
    }
}

/// Everything that keeps the initialization from being made, before any decomposition.
fn faults<M: Module>(
    module: &M,
    planned: &[Planned],
    weights: &HashMap<String, Tensor<2>>,
    initialization: &Initialization,
    evidence: &Evidence,
) -> Vec<String> {
    let adapted: Vec<String> = adapted_weights(module)
        .into_iter()
        .map(|w| w.path)
        .collect();
    let word = initialization.word();
    let mut faults = Vec::new();
    match initialization {
        Initialization::LoftQ(LoftQ { iterations: 0, .. }) => {
            faults.push("LoftQ alternates 0 times".to_string());
        }
        Initialization::Eva(eva) if !(eva.rho >= 1.0 && eva.rho.is_finite()) => {
            faults.push(format!("EVA's rho is {}; it must be at least 1", eva.rho));
        }
        _ => {}
    }
    for site in planned {
        let (path, rank) = (site.module_path(), site.rank);
        let is_lora = matches!(site.blueprint, Blueprint::Lora { .. });
        if !is_lora || !matches!(site.view.kind, Kind::Linear | Kind::Other) {
            faults.push(format!(
                "{path} is to have another adapter than a LoRA of a linear layer, which {word} starts"
            ));
            continue;
        }
        let [d_in, d_out] = site.view.dims();
        let least = d_in.min(d_out);
        let fault = match initialization {
            Initialization::Orthogonal if !rank.is_multiple_of(2) => Some(format!(
                "has rank {rank}, orthogonal factors need an even one"
            )),
            Initialization::Eva(_) => match components(evidence, path) {
                None => Some("was not observed for EVA".to_string()),
                Some(inputs) if inputs.explained().len() < rank => Some(format!(
                    "has rank {rank}, but its {} inputs have {} components",
                    inputs.count(),
                    inputs.explained().len()
                )),
                Some(_) => None,
            },
            Initialization::Corda(_) => match covariance(evidence, path) {
                None => Some("was not observed for CorDA".to_string()),
                Some(_) => None,
            },
            Initialization::LoraGa(_) if 2 * rank > least => Some(format!(
                "has rank {rank}; LoRA-GA takes twice as many vectors, of which the gradient has {least}"
            )),
            Initialization::LoraGa(_) => match evidence.gradients.get(path) {
                None => Some("has no gradient for LoRA-GA".to_string()),
                Some(gradient) if gradient.shape() != [d_in, d_out] => Some(format!(
                    "has a gradient of the shape {:?}",
                    gradient.shape()
                )),
                Some(_) => None,
            },
            _ => None,
        };
        faults.extend(fault.map(|fault| format!("{path} {fault}")));
        if initialization.changes_base() {
            let tensor = weights.get(&site.path);
            if tensor.is_some_and(|tensor| matches!(tensor.dtype(), DType::QFloat(_))) {
                faults.push(format!("{path} is quantized, {word} would change it"));
            }
            if adapted.contains(&site.path) {
                faults.push(format!(
                    "{path} has another adapter, which would suffer from what {word} changes"
                ));
            }
            if site.alpha < 0.0 {
                faults.push(format!(
                    "{path} has a negative alpha, {word} takes its root"
                ));
            }
        }
    }
    faults
}

/// With EVA's ranks; the layers that get none are excluded.
fn redistributed(
    config: &LoraConfig,
    planned: Vec<Planned>,
    initialization: &Initialization,
    evidence: &Evidence,
) -> (LoraConfig, Vec<Planned>) {
    let Initialization::Eva(settings) = initialization else {
        return (config.clone(), planned);
    };
    let seen = planned.iter().filter_map(|site| {
        let path = site.module_path();
        let [d_in, d_out] = site.view.dims();
        let largest = d_in.min(d_out);
        Some((path, [site.rank, largest], components(evidence, path)?))
    });
    let ranks = settings.ranks(seen);
    let mut config = LoraConfig {
        rank_pattern: Vec::new(),
        alpha_pattern: Vec::new(),
        ..config.clone()
    };
    let mut kept = Vec::new();
    for mut site in planned {
        let path = site.module_path().to_string();
        let rank = ranks.get(&path).copied().unwrap_or(site.rank);
        if rank == 0 {
            continue;
        }
        if settings.adjust_scaling_factors {
            // Of `alpha / r`; rsLoRA's scale goes by the root of the rank, and PEFT adjusts it all the same.
            site.alpha *= rank as f64 / site.rank as f64;
        }
        site.rank = rank;
        if rank != config.rank {
            config.rank_pattern.push((regex::escape(&path), rank));
        }
        if site.alpha != config.alpha {
            config
                .alpha_pattern
                .push((regex::escape(&path), site.alpha));
        }
        kept.push(site);
    }
    if kept.len() < ranks.len() {
        config.targets = Targets::names(kept.iter().map(|site| site.module_path().to_string()));
        config.exclude = None;
        config.layers_to_transform = None;
    }
    (config, kept)
}
