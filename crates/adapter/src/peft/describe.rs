//! Whether a configuration describes an adapter, and in which words it is written.

use std::collections::HashMap;

use burn::module::Module;

use super::config::TargetModules;
use crate::config::LoraConfig;
use crate::error::AdapterError;
use crate::plan::{Planned, plan};
use crate::reach::AdaptedWeight;
use crate::targets::Targets;

/// Refuses a configuration whose layers, ranks or scales are not those of the adapter: PEFT would build another one.
pub(super) fn check_same(
    planned: &[Planned],
    weights: &[AdaptedWeight],
    name: &str,
    config: &LoraConfig,
) -> Result<(), AdapterError> {
    let mut planned: HashMap<&str, &Planned> = planned
        .iter()
        .map(|site| (site.path.as_str(), site))
        .collect();
    let mut faults = Vec::new();
    for weight in weights {
        let (Some(method), layer) = (weight.stack.method(name), weight.module_path()) else {
            continue;
        };
        match planned.remove(weight.path.as_str()) {
            Some(site) => faults.extend(site.describes(method, config).err()),
            None => faults.push(format!(
                "{layer} is adapted, but the configuration leaves it out"
            )),
        }
    }
    let mut missing: Vec<&str> = planned.into_values().map(Planned::module_path).collect();
    missing.sort_unstable();
    let missing = missing.into_iter();
    faults.extend(
        missing.map(|layer| format!("{layer} is not adapted, but the configuration targets it")),
    );
    match faults.is_empty() {
        true => Ok(()),
        false => Err(AdapterError::Config { faults }),
    }
}

/// The targets as every reader understands them: "all linear layers" by name, or by path where names would select more; an
/// expression by path where it counts in some layers only, since PEFT has `layers_to_transform` for lists alone.
pub(super) fn portable_targets<M: Module>(
    module: &M,
    config: &LoraConfig,
    planned: &[Planned],
) -> TargetModules {
    let is_list = matches!(config.targets, Targets::Names(_));
    let is_expression = matches!(config.targets, Targets::Regex(_));
    if is_list || (is_expression && config.layers_to_transform.is_none()) {
        return (&config.targets).into();
    }
    // Biases and tokens beside the targeted layers are no targets.
    let targeted = planned.iter().filter(|site| !site.is_beside());
    let paths = targeted.map(Planned::module_path);
    let mut names: Vec<String> = Vec::new();
    for path in paths.clone() {
        let name = path.rsplit('.').next().unwrap_or(path);
        if !names.iter().any(|known| known == name) {
            names.push(name.to_string());
        }
    }
    let by_name = config.clone().with_targets(Targets::Names(names.clone()));
    let same = !is_expression
        && plan(module, &by_name).is_ok_and(|sites| {
            let sites = sites.iter().filter(|site| !site.is_beside());
            sites.map(Planned::module_path).eq(paths.clone())
        });
    TargetModules::Names(match same {
        true => names,
        false => paths.map(str::to_string).collect(),
    })
}
