//! What of a configuration is for single layers or modules, and matches none.

use burn::module::Module;

use crate::beside::Beside;
use crate::config::{LoraConfig, Patterns};
use crate::method::MethodConfig;
use crate::plan::Planned;
use crate::saved::{PEFT_HEADS, saved_parameters};
use crate::targets::is_suffix;
use crate::view::Kind;

/// Says of every pattern and name that is for single layers whether it is for any that is adapted.
pub(crate) fn check_patterns(
    config: &LoraConfig,
    patterns: &Patterns,
    planned: &[Planned],
    faults: &mut Vec<String>,
) {
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
    for (name, _) in &config.parts {
        if !planned
            .iter()
            .any(|site| is_suffix(site.module_path(), name))
        {
            faults.push(format!(
                "\"{name}\", which is to be adapted in part, is no targeted layer"
            ));
        }
    }
    for (name, groups) in &config.conv_groups {
        let mut named = planned.iter();
        let named = named.find(|site| is_suffix(site.module_path(), name));
        let d_out = named.map(|site| site.view.dims()[1]);
        let fault = match (named.map(|site| site.view.kind), d_out) {
            (Some(Kind::Conv), Some(d_out)) if *groups > 0 && d_out.is_multiple_of(*groups) => {
                continue;
            }
            (Some(Kind::Conv), Some(d_out)) => {
                format!("conv_groups gives \"{name}\" {groups} groups, for {d_out} outputs")
            }
            _ => format!("conv_groups names \"{name}\", no targeted convolution"),
        };
        faults.push(fault);
    }
    if let MethodConfig::AdaLora(adalora) = &config.method {
        for (layer, _) in &adalora.kept {
            if !planned.iter().any(|site| site.module_path() == layer) {
                faults.push(format!(
                    "the rank_pattern names \"{layer}\", no targeted layer"
                ));
            }
        }
    }
}

/// The names that no module's path ends with. PEFT always lists the same names of heads; one of them is enough.
pub(crate) fn absent_modules<M: Module>(module: &M, names: &[String]) -> Vec<String> {
    let finds = |name: &String| {
        let beside = Beside::modules(std::slice::from_ref(name));
        !saved_parameters(module, &beside).is_empty()
    };
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
