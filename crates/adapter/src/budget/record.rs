//! What a [`RankAllocator`] has learned, for a checkpoint.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::{RankAllocator, trained};
use crate::error::{AdapterError, nearest};
use crate::method::AdaLora;
use crate::reach::visible_stacks;

/// The state of a [`RankAllocator`] as plain numbers: with it, and with the same module and step, a run goes on bit for bit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AllocatorRecord {
    /// What was learned of each parameter, by its path: `<path of the weight>.a`, `.e` or `.b`. Empty before the first step.
    pub importance: BTreeMap<String, Importance>,
    /// Which singular values are left since the last allocation, by the path of the weight.
    pub kept: BTreeMap<String, Vec<bool>>,
}

/// The running means of one parameter, row by row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Importance {
    /// Mean of `|w g|`.
    pub sensitivity: Vec<f32>,
    /// Mean distance from that mean.
    pub uncertainty: Vec<f32>,
}

/// The parameters of an adapter by the last part of their paths.
fn parameters(adalora: &AdaLora) -> [(&'static str, &Param<Tensor<2>>); 3] {
    [("a", &adalora.a), ("e", &adalora.e), ("b", &adalora.b)]
}

impl RankAllocator {
    /// What has been learned so far, by the paths of `module`, whose adapters these are.
    pub fn record<M: Module>(&self, module: &M) -> AllocatorRecord {
        let mut importance = BTreeMap::new();
        for (path, stack) in visible_stacks(module) {
            for (part, param) in trained(&stack).flat_map(parameters) {
                let Some(means) = self.means.get(&param.id) else {
                    continue;
                };
                let [sensitivity, uncertainty] = means
                    .clone()
                    .map(|mean| mean.into_data().iter::<f32>().collect());
                let learned = Importance {
                    sensitivity,
                    uncertainty,
                };
                importance.insert(format!("{path}.{part}"), learned);
            }
        }
        let kept = self.last.iter();
        AllocatorRecord {
            importance,
            kept: kept
                .map(|(path, kept)| (path.clone(), kept.clone()))
                .collect(),
        }
    }

    /// Goes on from a record of the same adapters on `module`; what it had learned itself is forgotten.
    ///
    /// # Errors
    /// [`AdapterError::Config`] with every path that the module's adapters do not have, or not in this size, and every one of
    /// theirs that the record lacks; nothing is changed then.
    pub fn load_record<M: Module>(
        &mut self,
        module: &M,
        record: &AllocatorRecord,
    ) -> Result<(), AdapterError> {
        let stacks = visible_stacks(module);
        let mut faults = Vec::new();
        let mut means = HashMap::new();
        let mut known = Vec::new();
        let mut ranks = BTreeMap::new();
        for (path, stack) in &stacks {
            for adalora in trained(stack) {
                ranks.insert(path.as_str(), adalora.e.lazy_shape()[1]);
                for (part, param) in parameters(adalora) {
                    let path = format!("{path}.{part}");
                    match record.importance.get(&path) {
                        Some(learned) => match restored(param, learned) {
                            Ok(pair) => drop(means.insert(param.id, pair)),
                            Err(fault) => faults.push(format!("{path} {fault}")),
                        },
                        None if record.importance.is_empty() => {}
                        None => faults.push(format!("the record lacks {path}")),
                    }
                    known.push(path);
                }
            }
        }
        let hint = |path: &str, known: &mut dyn Iterator<Item = &str>| {
            let near = nearest(path, known);
            near.map_or(String::new(), |near| format!(" (nearest: {near})"))
        };
        for path in record.importance.keys() {
            if !known.contains(path) {
                let hint = hint(path, &mut known.iter().map(String::as_str));
                faults.push(format!("no adapter has {path}{hint}"));
            }
        }
        for (path, kept) in &record.kept {
            match ranks.get(path.as_str()) {
                Some(rank) if *rank == kept.len() => {}
                Some(rank) => faults.push(format!(
                    "{path} has rank {rank}, the record keeps or drops {}",
                    kept.len()
                )),
                None => {
                    let hint = hint(path, &mut ranks.keys().copied());
                    faults.push(format!("no adapter is on {path}{hint}"));
                }
            }
        }
        if !faults.is_empty() {
            return Err(AdapterError::Config { faults });
        }
        self.gradients.clear();
        self.means = means;
        let kept = record.kept.iter();
        self.last = kept
            .map(|(path, kept)| (path.clone(), kept.clone()))
            .collect();
        Ok(())
    }
}

/// Both means beside their parameter.
fn restored(param: &Param<Tensor<2>>, learned: &Importance) -> Result<[Tensor<2>; 2], String> {
    let shape = param.lazy_shape();
    let device = param.lazy_device().without_autodiff();
    let both = [&learned.sensitivity, &learned.uncertainty];
    if let Some(odd) = both.iter().find(|mean| mean.len() != shape.num_elements()) {
        let (found, shape) = (odd.len(), shape.to_vec());
        return Err(format!("is {shape:?}, the record has {found} numbers"));
    }
    if both.iter().any(|mean| mean.iter().any(|x| !x.is_finite())) {
        return Err("has NaN or infinity in the record".to_string());
    }
    Ok(both.map(|mean| {
        let data = TensorData::new(mean.clone(), shape.clone());
        Tensor::from_data(data, (&device, DType::F32))
    }))
}
