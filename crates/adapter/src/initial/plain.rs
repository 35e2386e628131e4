//! Adapters over a weight that lost what their factors started from, as LoRA for the weight as it was: so files have them.

use std::collections::HashMap;
use std::f64::consts::SQRT_2;

use burn::module::Module;
use burn_lora_linalg::{LinalgError, Matrix};

use super::attach::begin;
use super::{Evidence, Initialization, Layer};
use crate::blueprint::Blueprint;
use crate::config::LoraConfig;
use crate::error::AdapterError;
use crate::factors::{Factors, host, plain_layer};
use crate::plan::Planned;
use crate::reach::bases;
use crate::view::Kind;

/// Such an adapter, with what describes it.
#[derive(Debug)]
pub(crate) struct Plain {
    pub(crate) config: LoraConfig,
    pub(crate) plan: Vec<Planned>,
    /// The factors of each layer by the path of its weight.
    pub(crate) factors: HashMap<String, Factors>,
}

/// Makes the trained factors and those that they started from one LoRA. `pairs` has both by the path of the weight.
///
/// # Errors
/// [`AdapterError::Factors`] with every layer whose factors cannot be decomposed.
pub(crate) fn plain_of(
    config: &LoraConfig,
    plan: &[Planned],
    pairs: HashMap<String, [Factors; 2]>,
) -> Result<Plain, AdapterError> {
    // The alpha that leaves the scale as it is.
    let growth = match config.use_rslora {
        true => SQRT_2,
        false => 2.0,
    };
    let mut wide = config.clone();
    wide.rank *= 2;
    wide.alpha *= growth;
    for (_, rank) in &mut wide.rank_pattern {
        *rank *= 2;
    }
    for (_, alpha) in &mut wide.alpha_pattern {
        *alpha *= growth;
    }
    let mut faults = Vec::new();
    let mut factors = HashMap::new();
    let mut planned = plan.to_vec();
    for site in &mut planned {
        let Some([now, then]) = pairs.get(&site.path) else {
            continue;
        };
        let plain = match plain_layer(now, then) {
            Ok(plain) => plain,
            Err(error) => {
                faults.push(format!("{}: {error}", site.module_path()));
                continue;
            }
        };
        let rank = plain.rank();
        site.alpha *= growth;
        if rank != site.rank * 2 {
            // The layer has no more directions than its smaller side.
            let share = rank as f64 / (site.rank * 2) as f64;
            site.alpha *= if config.use_rslora {
                share.sqrt()
            } else {
                share
            };
            let key = regex::escape(site.module_path());
            wide.rank_pattern.insert(0, (key.clone(), rank));
            wide.alpha_pattern.insert(0, (key, site.alpha));
        }
        site.rank = rank;
        factors.insert(site.path.clone(), plain);
    }
    match faults.is_empty() {
        true => Ok(Plain {
            config: wide,
            plan: planned,
            factors,
        }),
        false => Err(AdapterError::Factors {
            action: "conversion to plain LoRA",
            faults,
        }),
    }
}

/// The factors that an initialization without chance or data makes of a weight `[d_in, d_out]`.
pub(crate) fn start_of(
    initialization: &Initialization,
    weight: &Matrix,
    rank: usize,
    scale: f64,
) -> Result<Factors, LinalgError> {
    let layer = Layer {
        weight,
        rank,
        scale,
        seed: 0,
        index: 0,
    };
    let begun = begin(&layer, "", initialization, &Evidence::default());
    begun.map(|beginning| beginning.factors)
}

/// The factors that PEFT makes of a module's weights when it loads a folder with this initialization, by the path of each
/// weight. They are what the file's factors started from.
///
/// # Errors
/// [`AdapterError::Factors`] with every layer for which there is no such initialization, or that is not finite.
pub(crate) fn started_over<M: Module>(
    module: &M,
    config: &LoraConfig,
    plan: &[Planned],
    initialization: &Initialization,
) -> Result<HashMap<String, Factors>, AdapterError> {
    let is_factored =
        |site: &&Planned| matches!(site.blueprint, Blueprint::Lora { .. } | Blueprint::Dora);
    let factored = || plan.iter().filter(is_factored);
    let weights = bases(module, factored().map(|site| site.path.as_str()));
    let mut starts = HashMap::new();
    let mut faults = Vec::new();
    for site in factored() {
        let path = site.module_path();
        let Some(weight) = weights.get(&site.path).cloned().map(host) else {
            continue;
        };
        if !matches!(site.view.kind, Kind::Linear | Kind::Other) {
            let word = initialization.word();
            faults.push(format!("{path} is no linear layer, which {word} is for"));
            continue;
        }
        match start_of(initialization, &weight, site.rank, site.scale(config)) {
            Ok(factors) => drop(starts.insert(site.path.clone(), factors)),
            Err(error) => faults.push(format!("{path}: {error}")),
        }
    }
    match faults.is_empty() {
        true => Ok(starts),
        false => Err(AdapterError::Factors {
            action: "taking the initial factors from the weights",
            faults,
        }),
    }
}
