//! From a module's stacks and onto them.

use burn::module::Module;
use burn::tensor::{DType, Tensor};
use burn_lora_linalg::Matrix;

use super::{FactorSet, Factors};
use crate::attach::{check_name, finish};
use crate::blueprint::Blueprint;
use crate::config::LoraConfig;
use crate::error::{AdapterError, nearest};
use crate::lora::cast;
use crate::plan::Planned;
use crate::reach::adapted_weights;
use crate::sites::sites;
use crate::targets::Targets;

impl FactorSet {
    /// The LoRA adapter `name` of a module.
    ///
    /// # Errors
    ///
    /// [`AdapterError::NoAdapter`] when no weight has one of this name.
    pub fn of<M: Module>(module: &M, name: &str) -> Result<Self, AdapterError> {
        let weights = adapted_weights(module);
        let set: Self = weights
            .iter()
            .filter_map(|weight| {
                let lora = weight.stack.get(name)?;
                let factors = Factors {
                    a: host(lora.a.val()),
                    b: host(lora.b.val()),
                    scale: lora.scale,
                };
                Some((weight.module_path().to_string(), factors))
            })
            .collect();
        match set.layers.is_empty() {
            false => Ok(set),
            true => {
                let names = weights.iter().flat_map(|weight| weight.stack.adapters());
                let mut present: Vec<String> = names.map(|adapter| adapter.name.clone()).collect();
                present.sort();
                present.dedup();
                Err(AdapterError::NoAdapter {
                    name: Some(name.to_string()),
                    present,
                })
            }
        }
    }

    /// Attaches the adapter to a module under a name; its factors become f32. Everything else is as in
    /// [`attach`](crate::attach); the configuration that describes it is [`config`](Self::config).
    ///
    /// # Errors
    ///
    /// The module is untouched, and the error lists every layer that the module lacks (with the nearest that it has), whose
    /// shape differs, or that holds NaN or infinity; [`AdapterError::DuplicateName`]; [`AdapterError::Merged`].
    pub fn attach<M: Module>(&self, module: M, name: &str) -> Result<M, AdapterError> {
        let sites = sites(&module);
        let mut faults = Vec::new();
        let (mut plan, mut values) = (Vec::new(), Vec::new());
        for (path, factors) in &self.layers {
            let Some(site) = sites.iter().find(|site| site.module_path() == path) else {
                let near = nearest(path, sites.iter().map(|site| site.module_path()));
                let hint = near.map_or(String::new(), |near| format!(" (nearest: {near})"));
                faults.push(format!("the model has no layer {path}{hint}"));
                continue;
            };
            let expected = site.view.dims();
            if factors.shape() != expected {
                faults.push(format!(
                    "{path} is {:?}, the model's is {expected:?}",
                    factors.shape()
                ));
            } else if !site.is_linear() {
                faults.push(format!("{path} is no linear layer"));
            } else if !factors.is_finite() {
                faults.push(format!("{path} holds NaN or infinity"));
            } else {
                values.push(vec![factors.a.to_f32(), factors.b.to_f32()]);
                plan.push(Planned {
                    path: site.path.clone(),
                    view: site.view.clone(),
                    rank: factors.rank(),
                    alpha: factors.scale * factors.rank() as f64,
                    device: site.device.clone(),
                    blueprint: Blueprint::Lora { is_a_frozen: false },
                    index: plan.len() as u64,
                });
            }
        }
        if self.layers.is_empty() {
            faults.push("the adapter has no layer".to_string());
        }
        if !faults.is_empty() {
            return Err(AdapterError::Factors {
                action: "attaching the factors",
                faults,
            });
        }
        check_name(&module, name)?;
        finish(module, name, &plan, values, &self.config(), None)
    }

    /// A configuration that describes the adapter, with its layers by their paths and its ranks and scales as patterns.
    pub fn config(&self) -> LoraConfig {
        let rank = most_common(self.layers.values().map(Factors::rank)).unwrap_or(1);
        let alpha_of = |factors: &Factors| factors.scale * factors.rank() as f64;
        let alphas = self
            .layers
            .values()
            .map(|factors| alpha_of(factors).to_bits());
        let alpha = most_common(alphas).map_or(rank as f64, f64::from_bits);
        let others = |differs: fn(&Factors, usize, f64) -> bool| {
            let layers = self.layers.iter();
            layers.filter(move |(_, factors)| differs(factors, rank, alpha))
        };
        LoraConfig {
            rank_pattern: others(|factors, rank, _| factors.rank() != rank)
                .map(|(path, factors)| (regex::escape(path), factors.rank()))
                .collect(),
            alpha_pattern: others(|factors, _, alpha| {
                factors.scale * factors.rank() as f64 != alpha
            })
            .map(|(path, factors)| (regex::escape(path), alpha_of(factors)))
            .collect(),
            ..LoraConfig::new(rank, alpha).with_targets(Targets::names(self.layers.keys().cloned()))
        }
    }
}

pub(crate) fn host(tensor: Tensor<2>) -> Matrix {
    let shape = tensor.dims();
    let tensor = match tensor.dtype() {
        DType::QFloat(_) => tensor.dequantize(),
        _ => tensor,
    };
    let data = cast(tensor, DType::F32).into_data();
    Matrix::from_f32(&data.iter::<f32>().collect::<Vec<_>>(), shape)
}

/// The value that comes most often, and among equals the smallest.
fn most_common<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts = std::collections::BTreeMap::new();
    for value in values {
        *counts.entry(value).or_insert(0usize) += 1;
    }
    let most = counts.values().copied().max()?;
    counts
        .into_iter()
        .find(|(_, count)| *count == most)
        .map(|(value, _)| value)
}
