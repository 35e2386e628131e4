use std::collections::{BTreeMap, HashSet};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};

use super::Evidence;
use crate::config::LoraConfig;
use crate::error::AdapterError;
use crate::factors::host;
use crate::plan::plan;
use crate::sites::{Path, module_path};

/// The mean gradients of the weights that a configuration targets, over several batches: what
/// [LoRA-GA](super::Initialization::LoraGa) starts from.
///
/// The module must be on a device with autodiff. `loss` is called with a copy of it in which these weights, and nothing else, are
/// tracked, and with the number of the batch.
///
/// # Errors
///
/// As [`attach`](crate::attach), for the configuration; [`AdapterError::Factors`] with every weight that got no gradient, and for no
/// batch or a module without autodiff.
pub fn weight_gradients<M: Module>(
    module: &M,
    config: &LoraConfig,
    batches: usize,
    mut loss: impl FnMut(&M, usize) -> Tensor<1>,
) -> Result<Evidence, AdapterError> {
    let plan = plan(module, config)?;
    let paths: HashSet<String> = plan.iter().map(|site| site.path.clone()).collect();
    let mut tracker = Tracker {
        path: Path::default(),
        paths: &paths,
        has_autodiff: true,
    };
    let tracked = module.clone().map(&mut tracker);
    let mut faults = Vec::new();
    if !tracker.has_autodiff {
        faults.push("the module is on a device without autodiff".to_string());
    }
    if batches == 0 {
        faults.push("there is no batch".to_string());
    }
    if !faults.is_empty() {
        return Err(refused(faults));
    }
    let mut sums: BTreeMap<String, Tensor<2>> = BTreeMap::new();
    for batch in 0..batches {
        let gradients = loss(&tracked, batch).backward();
        tracked.visit(&mut Collector {
            path: Path::default(),
            paths: &paths,
            gradients: &gradients,
            sums: &mut sums,
        });
    }
    let missing = plan.iter().filter(|site| !sums.contains_key(&site.path));
    faults.extend(missing.map(|site| format!("{} got no gradient", site.module_path())));
    let mut gradients = BTreeMap::new();
    for (path, sum) in sums {
        let mean = host(sum).scaled(1.0 / batches as f64);
        if !mean.is_finite() {
            faults.push(format!("{} got NaN or infinity", module_path(&path)));
        }
        gradients.insert(module_path(&path).to_string(), mean);
    }
    match faults.is_empty() {
        true => Ok(Evidence {
            inputs: BTreeMap::new(),
            gradients,
        }),
        false => Err(refused(faults)),
    }
}

fn refused(faults: Vec<String>) -> AdapterError {
    AdapterError::Factors {
        action: "the gradients' estimation",
        faults,
    }
}

/// Tracks the weights, and nothing else.
struct Tracker<'a> {
    path: Path,
    paths: &'a HashSet<String>,
    has_autodiff: bool,
}

impl ModuleMapper for Tracker<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let wanted = !self.path.in_reparameterization() && self.paths.contains(&self.path.join());
        if wanted && !param.base().is_autodiff() {
            self.has_autodiff = false;
            return param;
        }
        param.set_require_grad(wanted)
    }
}

struct Collector<'a> {
    path: Path,
    paths: &'a HashSet<String>,
    gradients: &'a Gradients,
    sums: &'a mut BTreeMap<String, Tensor<2>>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join();
        if self.path.in_reparameterization() || !self.paths.contains(&path) {
            return;
        }
        if let Some(gradient) = param.base().grad(self.gradients) {
            // Rank 2 is known here but not to the type system.
            let shape = gradient.shape();
            let gradient: Tensor<2> = gradient.reshape([shape[0], shape[1]]);
            let sum = match self.sums.remove(&path) {
                Some(sum) => sum + gradient,
                None => gradient,
            };
            self.sums.insert(path, sum);
        }
    }
}
