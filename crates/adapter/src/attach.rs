use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, Param, Reparameterizer};
use burn::tensor::Tensor;

use crate::beside::{Beside, TrainedBiases};
use crate::blueprint::Blueprint;
use crate::config::LoraConfig;
use crate::error::AdapterError;
use crate::init::LoraInit;
use crate::initial::{Evidence, Needs, attach_initialized};
use crate::method::{Method, MethodConfig, Projections, random_projections};
use crate::plan::{Planned, plan};
use crate::reach::{all_stacks, bases, replace_stacks};
use crate::sites::Path;
use crate::stack::{AdapterStack, NamedAdapter};
use crate::summary::trained_of_base;
use crate::view::View;

/// The name of an adapter where none is asked for, PEFT's.
pub const DEFAULT_NAME: &str = "default";

/// Freezes a module and attaches an adapter to every layer that the configuration targets. The modules that it wants
/// [saved](LoraConfig::modules_to_save) and the [biases](LoraConfig::trained_biases) that it wants trained are not frozen.
///
/// Attaching under another name adds a second adapter to the stacks, of the same method or another; both act, one after the
/// other.
///
/// Factors that start from the weights ([`LoraInit::Informed`]) are made at once.
///
/// # Errors
/// Nothing is attached, and the error lists every culprit, when the configuration is wrong, a target matches no layer
/// (with near misses), a pattern matches no targeted layer, a rank exceeds its layer, the name is taken, or the
/// adapters are merged.
pub fn attach<M: Module>(module: M, name: &str, config: &LoraConfig) -> Result<M, AdapterError> {
    if let LoraInit::Informed(initialization) = &config.init {
        return match initialization.needs() {
            Needs::Weights => {
                let none = Evidence::default();
                attach_initialized(module, name, config, initialization, &none)
                    .map(|initialized| initialized.module)
            }
            Needs::Inputs | Needs::Gradients => Err(AdapterError::Config {
                faults: vec![format!(
                    "the initialization {} looks at data; gather evidence and call attach_initialized",
                    initialization.word()
                )],
            }),
        };
    }
    let plan = plan(&module, config)?;
    check_name(&module, name)?;
    check_biases(&module, config)?;
    let wanted = plan.iter().filter(|planned| planned.needs_base());
    let bases = bases(&module, wanted.map(|planned| planned.path.as_str()));
    let values = plan.iter().map(|planned| {
        let base = bases.get(&planned.path);
        planned.initial(config, base)
    });
    let values = values.collect();
    let shared = projections(&plan, config);
    finish(module, name, &plan, values, config, shared.as_ref())
}

/// The projections that the planned layers share, where the method has such.
pub(crate) fn projections(plan: &[Planned], config: &LoraConfig) -> Option<Projections> {
    let MethodConfig::Vera(vera) = &config.method else {
        return None;
    };
    Some(random_projections(vera.key, config.rank, widths(plan)))
}

/// The widest input and the widest output.
pub(crate) fn widths(plan: &[Planned]) -> [usize; 2] {
    plan.iter().fold([0, 0], |widest, planned| {
        let [d_in, d_out] = planned.view.dims();
        [widest[0].max(d_in), widest[1].max(d_out)]
    })
}

/// Makes the methods of their values and puts them onto the module.
pub(crate) fn finish<M: Module>(
    module: M,
    name: &str,
    plan: &[Planned],
    values: Vec<Vec<Vec<f32>>>,
    config: &LoraConfig,
    shared: Option<&Projections>,
) -> Result<M, AdapterError> {
    let mut methods = HashMap::new();
    for (planned, values) in plan.iter().zip(values) {
        let method = planned.build(values, config, shared, &methods);
        let method = method.ok_or_else(|| AdapterError::Config {
            faults: vec![format!("{} lacks values", planned.path)],
        })?;
        methods.insert(planned.path.clone(), method);
    }
    let views = plan
        .iter()
        .map(|planned| (planned.path.clone(), planned.view.clone()));
    let beside = Beside::new(config, plan);
    let module = place(module, name, methods, views.collect(), &beside);
    check_ties(module, plan)
}

/// Refuses a module whose walks meet a bias before its weight: a scale that both share could not be handed over.
fn check_ties<M: Module>(module: M, plan: &[Planned]) -> Result<M, AdapterError> {
    let is_tie = |planned: &&Planned| matches!(planned.blueprint, Blueprint::TiedBias { .. });
    if plan.iter().find(is_tie).is_none() {
        return Ok(module);
    }
    struct Walk;
    impl ModuleMapper for Walk {}
    let module = module.map(&mut Walk);
    let stacks = all_stacks(&module).into_iter();
    let loose = stacks.filter(|weight| !weight.stack.is_tied());
    let layers: Vec<String> = loose.map(|weight| weight.path).collect();
    match layers.is_empty() {
        true => Ok(module),
        false => Err(AdapterError::NotAdaptable {
            layers,
            kind: "\"ia3\" scales a bias with the weight, which must stand before it in the module"
                .to_string(),
        }),
    }
}

/// Refuses a name that an adapter has already, be it on other weights, and a merged module.
pub(crate) fn check_name<M: Module>(module: &M, name: &str) -> Result<(), AdapterError> {
    check_word(name)?;
    let adapted = all_stacks(module);
    if adapted.iter().any(|weight| weight.stack.is_merged()) {
        return Err(AdapterError::Merged {
            action: "attaching another",
        });
    }
    let layers: Vec<String> = adapted
        .iter()
        .filter(|weight| weight.stack.method(name).is_some())
        .map(|weight| weight.module_path().to_string())
        .collect();
    match layers.is_empty() {
        true => Ok(()),
        false => Err(AdapterError::DuplicateName {
            name: name.to_string(),
            layers,
        }),
    }
}

/// Refuses a second adapter with biases of the base: both would train the same ones, and neither would own them.
pub(crate) fn check_biases<M: Module>(module: &M, config: &LoraConfig) -> Result<(), AdapterError> {
    let is_adapted = |module: &M| {
        let mut stacks = all_stacks(module).into_iter();
        stacks.any(|weight| !weight.stack.adapters().is_empty())
    };
    if config.trained_biases == TrainedBiases::None || !is_adapted(module) {
        return Ok(());
    }
    let trained = trained_of_base(module).into_iter();
    let biases: Vec<String> = trained.filter(|path| path.ends_with(".bias")).collect();
    match biases.is_empty() {
        true => Ok(()),
        false => Err(AdapterError::Config {
            faults: vec![format!(
                "another adapter trains biases of the base already ({} and {} more); only one may",
                biases[0],
                biases.len() - 1
            )],
        }),
    }
}

/// Refuses a name that could not stand in a path.
pub(crate) fn check_word(name: &str) -> Result<(), AdapterError> {
    match name.is_empty() || name.contains('.') {
        false => Ok(()),
        true => Err(AdapterError::Config {
            faults: vec![format!(
                "the adapter's name \"{name}\" is empty or holds a dot; it becomes part of parameter paths"
            )],
        }),
    }
}

/// Puts the adapters onto their parameters, by the paths, and freezes everything that is neither an adapter nor saved
/// as a whole.
fn place<M: Module>(
    module: M,
    name: &str,
    methods: HashMap<String, Method>,
    views: HashMap<String, View>,
    beside: &Beside<'_>,
) -> M {
    let mut fresh = methods;
    let mut grown = HashMap::new();
    for weight in all_stacks(&module) {
        if let Some(method) = fresh.remove(&weight.path) {
            let adapter = NamedAdapter::new(name, method);
            grown.insert(weight.path, weight.stack.push(adapter));
        }
    }
    let module = module.map(&mut FreezeBase {
        path: Path::default(),
        beside,
    });
    let fresh = fresh.into_iter().filter_map(|(path, method)| {
        let view = views.get(&path)?.clone();
        let stack = AdapterStack::new(view, NamedAdapter::new(name, method));
        Some((path, stack))
    });
    let stacks = fresh.collect();
    replace_stacks(module, grown).apply_reparameterization(Attach { stacks })
}

/// Freezes a module but for its adapters and the modules that are to be trained as a whole, by the ends of their paths, as
/// [`attach`] does: for what is trained beside the weights without an adapter on them.
pub fn freeze<M: Module>(module: M, modules_to_save: &[String]) -> M {
    module.map(&mut FreezeBase {
        path: Path::default(),
        beside: &Beside::modules(modules_to_save),
    })
}

/// Switches gradients off for every parameter that is not an adapter's, and on for those that are trained beside it.
struct FreezeBase<'a> {
    path: Path,
    beside: &'a Beside<'a>,
}

impl ModuleMapper for FreezeBase<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.path.in_reparameterization() {
            true => param,
            false => {
                let trained = self.beside.holds(&self.path.join());
                param.set_require_grad(trained)
            }
        }
    }
}

struct Attach {
    stacks: HashMap<String, AdapterStack>,
}

impl Reparameterizer for Attach {
    type Reparam = AdapterStack;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<AdapterStack>) {
        let stack = self.stacks.remove(path);
        (param, stack)
    }
}
