//! Whether a configuration describes an adapter, and in which words it is written.

use std::collections::HashMap;

use burn::module::Module;

use super::config::TargetModules;
use crate::attach::{Planned, plan};
use crate::config::LoraConfig;
use crate::error::AdapterError;
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
        let (Some(lora), layer) = (weight.stack.get(name), weight.module_path()) else {
            continue;
        };
        let Some(site) = planned.remove(weight.path.as_str()) else {
            faults.push(format!(
                "{layer} is adapted, but the configuration leaves it out"
            ));
            continue;
        };
        let scale = config.scale(site.rank, site.alpha);
        if (lora.rank(), lora.scale) != (site.rank, scale) {
            faults.push(format!(
                "{layer} has rank {} and scale {}, the configuration means rank {} and scale {scale}",
                lora.rank(),
                lora.scale,
                site.rank,
            ));
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

/// The targets as every reader understands them: "all linear layers" by name, or by path where names would select more.
pub(super) fn portable_targets<M: Module>(
    module: &M,
    config: &LoraConfig,
    planned: &[Planned],
) -> TargetModules {
    if config.targets != Targets::AllLinear {
        return (&config.targets).into();
    }
    let paths = planned.iter().map(Planned::module_path);
    let mut names: Vec<String> = Vec::new();
    for path in paths.clone() {
        let name = path.rsplit('.').next().unwrap_or(path);
        if !names.iter().any(|known| known == name) {
            names.push(name.to_string());
        }
    }
    let by_name = config.clone().with_targets(Targets::Names(names.clone()));
    let same = plan(module, &by_name).is_ok_and(|sites| {
        let sites = sites.iter().map(Planned::module_path);
        sites.eq(paths.clone())
    });
    TargetModules::Names(match same {
        true => names,
        false => paths.map(str::to_string).collect(),
    })
}
