//! What a configuration means for a module.

use std::collections::HashMap;

use burn::module::Module;
use burn::tensor::Device;

use crate::blueprint::Blueprint;
use crate::config::{LoraConfig, Patterns};
use crate::error::{AdapterError, noted};
use crate::method::{LoKrShape, MethodConfig};
use crate::saved::is_saved;
use crate::sites::{Site, module_path, sites};
use crate::targets::{Targets, is_suffix, select};
use crate::unmatched::{absent_modules, check_patterns};
use crate::view::{Kind, View};

/// A parameter that is to be adapted, with the rank and alpha that apply to it.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) path: String,
    pub(crate) view: View,
    pub(crate) rank: usize,
    pub(crate) alpha: f64,
    pub(crate) device: Device,
    pub(crate) blueprint: Blueprint,
    /// Position among the adapted parameters; numbers the stream of random values.
    pub(crate) index: u64,
}

impl Planned {
    /// Whether it comes along with a targeted layer, and is none itself.
    pub(crate) fn is_beside(&self) -> bool {
        match &self.blueprint {
            Blueprint::TiedBias { .. } => true,
            Blueprint::Dense { key, .. } => key == "lora_B.bias",
            Blueprint::Tokens { is_nested, .. } => *is_nested,
            _ => false,
        }
    }

    /// The path of the layer, under which a file has its tensors.
    pub(crate) fn module_path(&self) -> &str {
        match self.view.shape.len() < 2 {
            true => self.path.rsplit_once('.').map_or("", |(owner, _)| owner),
            false => module_path(&self.path),
        }
    }
}

/// The parameters that a configuration adapts, in the module's order but for those of a layer's bias, which follow at the end.
///
/// # Errors
/// All that is wrong with the configuration, by itself and for this module.
pub(crate) fn plan<M: Module>(
    module: &M,
    config: &LoraConfig,
) -> Result<Vec<Planned>, AdapterError> {
    let all = sites(module);
    let mut errors = Vec::new();
    let patterns = noted(config.check(), &mut errors);
    let selected = noted(targeted(&all, config), &mut errors);
    AdapterError::all(errors)?;
    let (Some(patterns), Some(mut selected)) = (patterns, selected) else {
        return Ok(Vec::new());
    };
    let mut faults = Vec::new();
    let names = &config.modules_to_save;
    if !names.is_empty() {
        // A module that is trained as a whole needs no adapter, whatever the targets say.
        selected.retain(|site| !is_saved(&site.path, names));
        faults.extend(absent_modules(module, names));
    }
    if selected.is_empty() {
        faults.push(match names.is_empty() {
            true => "the module has nothing that the method could go onto".to_string(),
            false => "every target lies in a module that is saved as a whole".to_string(),
        });
    }
    let mut planned = Vec::new();
    for (site, index) in selected.iter().zip(0..) {
        planned.extend(planned_site(site, index, config, &patterns, &mut faults));
    }
    let biases = bias_sites(&planned, &all, config, &mut faults);
    planned.extend(biases);
    let tokens = token_sites(&planned, &all, config, &mut faults);
    planned.extend(tokens);
    check_patterns(config, &patterns, &planned, &mut faults);
    match faults.is_empty() {
        true => Ok(planned),
        false => Err(AdapterError::Config { faults }),
    }
}

/// What is wrong with the targets of a configuration, whatever else is wrong with it.
pub(crate) fn check_targets<M: Module>(
    module: &M,
    config: &LoraConfig,
) -> Result<(), AdapterError> {
    targeted(&sites(module), config).map(drop)
}

/// The parameters that the targets mean, those in modules that are saved as a whole among them.
fn targeted(all: &[Site], config: &LoraConfig) -> Result<Vec<Site>, AdapterError> {
    let candidates = all.iter().filter(|site| is_candidate(site, &config.method));
    let candidates: Vec<Site> = candidates.cloned().collect();
    let selected = match &config.method {
        MethodConfig::Tokens(_) if config.targets == Targets::AllLinear => {
            candidates.into_iter().take(1).collect()
        }
        _ => select(&candidates, config)?,
    };
    let own = selected.iter();
    let own = own.filter(|site| !is_saved(&site.path, &config.modules_to_save));
    check_kinds(own, config)?;
    Ok(selected)
}

/// Whether a method is for parameters of this kind at all, so that targets are looked for among them.
fn is_candidate(site: &Site, method: &MethodConfig) -> bool {
    match method {
        MethodConfig::Full => true,
        MethodConfig::BitFit => site.is_vector() && site.path.ends_with(".bias"),
        MethodConfig::Tokens(_) => site.is_embedding(),
        _ => !site.is_vector(),
    }
}

/// Refuses targets of a kind that the method is not made for.
fn check_kinds<'a>(
    selected: impl Iterator<Item = &'a Site>,
    config: &LoraConfig,
) -> Result<(), AdapterError> {
    let takes = |kind: Kind| match &config.method {
        MethodConfig::Vera(_) => matches!(kind, Kind::Linear | Kind::Other),
        MethodConfig::LoHa(_)
        | MethodConfig::LoKr(_)
        | MethodConfig::AdaLora(_)
        | MethodConfig::Ia3(_) => kind != Kind::Embedding,
        _ => true,
    };
    let wrong = selected.filter(|site| !takes(site.view.kind));
    let layers: Vec<String> = wrong.map(|site| site.module_path().to_string()).collect();
    match layers.is_empty() {
        true => Ok(()),
        false => Err(AdapterError::NotAdaptable {
            layers,
            kind: format!(
                "\"{}\" cannot adapt these layers, {}",
                config.method,
                match config.method {
                    MethodConfig::Vera(_) => "which are not linear",
                    _ => "which are embeddings",
                }
            ),
        }),
    }
}

fn planned_site(
    site: &Site,
    index: u64,
    config: &LoraConfig,
    patterns: &Patterns,
    faults: &mut Vec<String>,
) -> Option<Planned> {
    let path = site.module_path();
    let [d_in, d_out] = site.view.dims();
    let mut rank = patterns.rank(path, config.rank);
    if config.method.is_lora() || matches!(config.method, MethodConfig::AdaLora(_)) {
        // As many changes of their own as there are groups.
        let most = d_in.saturating_mul(config.groups_of(path)).min(d_out);
        if rank > most {
            faults.push(format!(
                "rank {rank} exceeds {most}, the smaller side of {path} [{d_in}, {d_out}]"
            ));
        }
    }
    let blueprint = match &config.method {
        MethodConfig::Lora => match config.parts.iter().find(|(name, _)| is_suffix(path, name)) {
            None => Blueprint::Lora { is_a_frozen: false },
            Some((_, columns)) => match columns.ranges(d_out) {
                Ok(ranges) => {
                    rank *= ranges.len();
                    Blueprint::Parts(ranges)
                }
                Err(fault) => {
                    faults.push(format!("the parts of {path}: {fault}"));
                    return None;
                }
            },
        },
        MethodConfig::LoraFa => Blueprint::Lora { is_a_frozen: true },
        MethodConfig::Dora => Blueprint::Dora,
        MethodConfig::Vera(vera) => Blueprint::Vera {
            d_initial: vera.d_initial,
        },
        MethodConfig::LoHa(loha) => Blueprint::LoHa {
            has_core: loha.use_effective_conv2d && site.view.kernel() > 1,
        },
        MethodConfig::LoKr(lokr) => {
            let (channels, kernel) = (site.view.channels(), site.view.kernel());
            Blueprint::LoKr(LoKrShape::new([channels, kernel, d_out], rank, lokr))
        }
        MethodConfig::AdaLora(adalora) => {
            let start_rank = rank;
            if let Some((_, kept)) = adalora.kept.iter().find(|(layer, _)| layer == path) {
                rank = kept.iter().filter(|kept| **kept).count();
                if kept.len() != start_rank || rank == 0 {
                    faults.push(format!(
                        "of {path}, {rank} of {} singular values are kept; at least 1 of {start_rank} must be",
                        kept.len()
                    ));
                }
            }
            Blueprint::AdaLora { start_rank }
        }
        MethodConfig::Ia3(ia3) => Blueprint::Ia3 {
            inputs: match ia3.feedforward.as_ref().map(Targets::compile) {
                Some(Ok(targets)) => targets.matches_path(path),
                Some(Err(error)) => {
                    faults.push(error.to_string());
                    false
                }
                None => false,
            },
        },
        MethodConfig::BitFit | MethodConfig::Full => {
            let name = site.path.rsplit('.').next().unwrap_or("weight");
            Blueprint::Dense {
                key: format!("delta.{name}"),
                scale: 1.0,
            }
        }
        MethodConfig::Tokens(indices) => {
            if let Some(index) = indices.iter().find(|index| **index >= d_in) {
                faults.push(format!("{path} has {d_in} rows and no token {index}"));
                return None;
            }
            Blueprint::Tokens {
                indices: indices.clone(),
                is_nested: false,
            }
        }
    };
    Some(Planned {
        path: site.path.clone(),
        view: site.view.clone(),
        rank,
        alpha: patterns.alpha(path, config.alpha),
        device: site.device.clone(),
        blueprint,
        index,
    })
}

/// What goes onto the biases of the planned layers.
fn bias_sites(
    planned: &[Planned],
    all: &[Site],
    config: &LoraConfig,
    faults: &mut Vec<String>,
) -> Vec<Planned> {
    let by_path: HashMap<&str, &Site> = all.iter().map(|site| (site.path.as_str(), site)).collect();
    let mut found = Vec::new();
    let first = planned.len() as u64;
    for planned in planned {
        let bias = format!("{}.bias", planned.module_path());
        let site = by_path.get(bias.as_str()).filter(|site| site.is_vector());
        let blueprint = match &planned.blueprint {
            Blueprint::Ia3 { inputs: false } => Blueprint::TiedBias {
                weight: planned.path.clone(),
            },
            _ if config.lora_bias => Blueprint::Dense {
                key: "lora_B.bias".to_string(),
                scale: planned.scale(config),
            },
            _ => continue,
        };
        match site {
            Some(site) => found.push(Planned {
                path: bias,
                view: site.view.clone(),
                blueprint,
                index: first + found.len() as u64,
                ..planned.clone()
            }),
            None if config.lora_bias => faults.push(format!(
                "lora_bias adds to a layer's bias, and {} has none",
                planned.module_path()
            )),
            None => {}
        }
    }
    found
}

/// The rows of embeddings that are trained beside LoRA.
fn token_sites(
    planned: &[Planned],
    all: &[Site],
    config: &LoraConfig,
    faults: &mut Vec<String>,
) -> Vec<Planned> {
    let mut found = Vec::new();
    for (layer, indices) in &config.trainable_tokens {
        let mut embeddings = all.iter().filter(|site| site.is_embedding());
        let is_meant = |site: &&Site| layer.is_empty() || is_suffix(site.module_path(), layer);
        let Some(site) = embeddings.find(is_meant) else {
            faults.push(format!("trainable_tokens names \"{layer}\", no embedding"));
            continue;
        };
        let path = site.module_path();
        if planned.iter().any(|planned| planned.path == site.path) {
            faults.push(format!(
                "{path} is targeted, and has trainable tokens beside"
            ));
        }
        let rows = site.view.dims()[0];
        match indices.iter().find(|index| **index >= rows) {
            Some(index) => faults.push(format!("{path} has {rows} rows and no token {index}")),
            None => found.push(Planned {
                path: site.path.clone(),
                view: site.view.clone(),
                rank: 0,
                alpha: config.alpha,
                device: site.device.clone(),
                blueprint: Blueprint::Tokens {
                    indices: indices.clone(),
                    is_nested: true,
                },
                index: (planned.len() + found.len()) as u64,
            }),
        }
    }
    found
}
