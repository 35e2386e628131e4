use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, Param, Reparameterizer};
use burn::tensor::{Device, Tensor};

use crate::config::LoraConfig;
use crate::error::AdapterError;
use crate::init::factors;
use crate::lora::Lora;
use crate::reach::{adapted_weights, replace_stacks};
use crate::saved::{PEFT_HEADS, is_saved, saved_parameters};
use crate::sites::{Path, module_path, sites};
use crate::stack::{AdapterStack, NamedAdapter};
use crate::targets::select;

/// The name of an adapter where none is asked for, PEFT's.
pub const DEFAULT_NAME: &str = "default";

/// Freezes a module and attaches a LoRA adapter to every layer that the configuration targets. The modules that it wants
/// [saved](LoraConfig::modules_to_save) are not frozen.
///
/// Attaching under another name adds a second adapter to the stacks; the contributions add up.
///
/// # Errors
/// Nothing is attached, and the error lists every culprit, when the configuration is wrong, a target matches no layer
/// (with near misses), a pattern matches no targeted layer, a rank exceeds its layer, the name is taken, or the
/// adapters are merged.
pub fn attach<M: Module>(module: M, name: &str, config: &LoraConfig) -> Result<M, AdapterError> {
    let plan = plan(&module, config)?;
    check_name(&module, name, &plan)?;
    let adapters = plan.into_iter().map(|site| {
        let shape = [site.d_in, site.rank, site.d_out];
        let (a, b) = factors(config.init, shape, config.seed, site.index, &site.device);
        let lora = site.lora(a, b, config);
        (site.path, lora)
    });
    let adapters = adapters.collect();
    Ok(place(module, name, adapters, &config.modules_to_save))
}

/// A weight that is to be adapted, with the rank and alpha that apply to it.
pub(crate) struct Planned {
    pub(crate) path: String,
    pub(crate) d_in: usize,
    pub(crate) d_out: usize,
    pub(crate) rank: usize,
    pub(crate) alpha: f64,
    pub(crate) device: Device,
    /// Position among the adapted weights; numbers the stream of random values.
    pub(crate) index: u64,
}

impl Planned {
    pub(crate) fn module_path(&self) -> &str {
        module_path(&self.path)
    }

    pub(crate) fn lora(
        &self,
        a: Param<Tensor<2>>,
        b: Param<Tensor<2>>,
        config: &LoraConfig,
    ) -> Lora {
        Lora {
            a,
            b,
            alpha: self.alpha,
            scale: config.scale(self.rank, self.alpha),
            dropout: config.dropout,
        }
    }
}

/// What a configuration means for a module.
pub(crate) fn plan<M: Module>(
    module: &M,
    config: &LoraConfig,
) -> Result<Vec<Planned>, AdapterError> {
    let patterns = config.check()?;
    let mut selected = select(&sites(module), config)?;
    let mut faults = Vec::new();
    let names = &config.modules_to_save;
    if !names.is_empty() {
        // A module that is trained as a whole needs no adapter, whatever the targets say.
        selected.retain(|site| !is_saved(&site.path, names));
        if selected.is_empty() {
            faults.push("every target lies in a module that is saved as a whole".to_string());
        }
        faults.extend(absent_modules(module, names));
    }
    let planned: Vec<Planned> = selected
        .iter()
        .zip(0..)
        .map(|(site, index)| {
            let path = site.module_path();
            Planned {
                path: site.path.clone(),
                d_in: site.d_in,
                d_out: site.d_out,
                rank: patterns.rank(path, config.rank),
                alpha: patterns.alpha(path, config.alpha),
                device: site.device.clone(),
                index,
            }
        })
        .collect();
    for site in &planned {
        let most = site.d_in.min(site.d_out);
        if site.rank > most {
            faults.push(format!(
                "rank {} exceeds {most}, the smaller side of {} [{}, {}]",
                site.rank,
                site.module_path(),
                site.d_in,
                site.d_out
            ));
        }
    }
    let keys = config.rank_pattern.iter().map(|(key, _)| key);
    let keys = keys.chain(config.alpha_pattern.iter().map(|(key, _)| key));
    let compiled = patterns.ranks.iter().map(|(pattern, _)| pattern);
    let compiled = compiled.chain(patterns.alphas.iter().map(|(pattern, _)| pattern));
    for (key, pattern) in keys.zip(compiled) {
        if !planned
            .iter()
            .any(|site| pattern.matches(site.module_path()))
        {
            faults.push(format!("the pattern \"{key}\" matches no targeted layer"));
        }
    }
    match faults.is_empty() {
        true => Ok(planned),
        false => Err(AdapterError::Config { faults }),
    }
}

/// The names that no module's path ends with. PEFT always lists the same names of heads; one of them is enough.
fn absent_modules<M: Module>(module: &M, names: &[String]) -> Vec<String> {
    let finds = |name: &String| !saved_parameters(module, std::slice::from_ref(name)).is_empty();
    let has_head = names
        .iter()
        .any(|name| PEFT_HEADS.contains(&name.as_str()) && finds(name));
    names
        .iter()
        .filter(|name| !(has_head && PEFT_HEADS.contains(&name.as_str())))
        .filter(|name| !finds(name))
        .map(|name| format!("modules_to_save has \"{name}\", with which no module's path ends"))
        .collect()
}

/// Refuses a name that a targeted weight already has, and a merged module.
pub(crate) fn check_name<M: Module>(
    module: &M,
    name: &str,
    plan: &[Planned],
) -> Result<(), AdapterError> {
    let paths: Vec<&str> = plan.iter().map(|site| site.path.as_str()).collect();
    check_name_at(module, name, &paths)
}

/// As [`check_name`], for weights by their paths.
pub(crate) fn check_name_at<M: Module>(
    module: &M,
    name: &str,
    paths: &[&str],
) -> Result<(), AdapterError> {
    if name.is_empty() || name.contains('.') {
        return Err(AdapterError::Config {
            faults: vec![format!(
                "the adapter's name \"{name}\" is empty or holds a dot; it becomes part of parameter paths"
            )],
        });
    }
    let adapted = adapted_weights(module);
    if adapted.iter().any(|weight| weight.stack.is_merged()) {
        return Err(AdapterError::Merged {
            action: "attaching another",
        });
    }
    let layers: Vec<String> = adapted
        .iter()
        .filter(|weight| weight.stack.get(name).is_some())
        .filter(|weight| paths.contains(&weight.path.as_str()))
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

/// Puts the adapters onto their weights, by the weights' paths, and freezes everything that is neither an adapter nor saved
/// as a whole.
pub(crate) fn place<M: Module>(
    module: M,
    name: &str,
    adapters: HashMap<String, Lora>,
    saved: &[String],
) -> M {
    let mut fresh = adapters;
    let mut grown = HashMap::new();
    for weight in adapted_weights(&module) {
        if let Some(lora) = fresh.remove(&weight.path) {
            let name = name.to_string();
            grown.insert(weight.path, weight.stack.push(NamedAdapter { name, lora }));
        }
    }
    let module = module.map(&mut FreezeBase {
        path: Path::default(),
        saved,
    });
    replace_stacks(module, grown).apply_reparameterization(Attach {
        name: name.to_string(),
        adapters: fresh,
    })
}

/// Switches gradients off for every parameter that is not an adapter's, and on for those that are saved as a whole.
struct FreezeBase<'a> {
    path: Path,
    saved: &'a [String],
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
                let trained = is_saved(&self.path.join(), self.saved);
                param.set_require_grad(trained)
            }
        }
    }
}

struct Attach {
    name: String,
    adapters: HashMap<String, Lora>,
}

impl Reparameterizer for Attach {
    type Reparam = AdapterStack;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<AdapterStack>) {
        let stack = self.adapters.remove(path).map(|lora| {
            AdapterStack::new(NamedAdapter {
                name: self.name.clone(),
                lora,
            })
        });
        (param, stack)
    }
}
