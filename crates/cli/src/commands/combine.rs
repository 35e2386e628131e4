//! `burn-lora combine`: one LoRA adapter of several.

use std::path::{Path, PathBuf};

use burn_lora::adapter::{Combination, CombinationMethod, FactorSet, MajoritySign, combine};
use burn_lora::prelude::*;
use burn_lora_hub::Wanted;
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::failure::{Failure, Kind};
use crate::output::Output;
use crate::source;

/// The options of `combine`.
#[derive(Debug, Args)]
pub struct CombineOptions {
    /// PEFT folders of LoRA adapters, or their names on the hub
    #[arg(required = true, value_name = "DIR|NAME")]
    pub adapters: Vec<String>,

    /// What each counts, such as 0.7,0.3; a negative one takes away. All count 1 if left out
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true)]
    pub weights: Option<Vec<f64>>,

    /// linear, cat, svd, ties, ties_svd, dare_linear, dare_linear_svd, dare_ties, dare_ties_svd, magnitude_prune or
    /// magnitude_prune_svd
    #[arg(long, default_value = "linear", value_parser = method)]
    pub method: CombinationMethod,

    /// Share of the elements that is kept, by the methods that drop some
    #[arg(long)]
    pub density: Option<f64>,

    /// A share for each adapter in the place of one for all, such as 0.5,0.8
    #[arg(long, value_delimiter = ',', conflicts_with = "density")]
    pub densities: Option<Vec<f64>>,

    /// How ties elects the sign of an element
    #[arg(long, value_enum, default_value_t = Majority::Total)]
    pub majority_sign: Majority,

    /// Rank that the svd methods keep; the largest of the adapters if left out
    #[arg(long)]
    pub rank: Option<usize>,

    /// Seed of what dare drops
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    /// Fold every scale into B and give all layers one rank, for runtimes that read no patterns
    #[arg(long)]
    pub portable: bool,

    /// The folder to write
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

/// How a sign is elected.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Majority {
    /// That of the sum
    Total,
    /// That most of them have
    Frequency,
}

fn method(word: &str) -> Result<CombinationMethod, String> {
    CombinationMethod::parse(word).map_err(|error| error.to_string())
}

/// Runs the command.
pub fn run(options: &CombineOptions, output: &Output) -> Result<(), Failure> {
    let count = options.adapters.len();
    let weights = options.weights.clone().unwrap_or(vec![1.0; count]);
    let densities = options.densities.clone().unwrap_or_default();
    let reasons: Vec<String> = [
        ("--weights", Some(weights.len())),
        ("--densities", options.densities.as_ref().map(Vec::len)),
    ]
    .into_iter()
    .filter_map(|(option, given)| Some((option, given.filter(|given| *given != count)?)))
    .map(|(option, given)| format!("{option} has {given} numbers for {count} adapters"))
    .collect();
    if !reasons.is_empty() {
        return Err(Failure::new(Kind::Usage, reasons.join("; ")));
    }
    let folders = options.adapters.iter().map(|name| {
        let folder = source::folder(name, None, Wanted::Adapter)?;
        Ok((FactorSet::load(&folder)?, folder))
    });
    let folders = folders.collect::<Result<Vec<_>, Failure>>()?;
    let weighted: Vec<(&FactorSet, f64)> =
        folders.iter().map(|(set, _)| set).zip(weights).collect();
    let combination = Combination {
        density: options.density,
        densities,
        majority_sign: match options.majority_sign {
            Majority::Total => MajoritySign::Total,
            Majority::Frequency => MajoritySign::Frequency,
        },
        rank: options.rank,
        seed: options.seed,
        ..Combination::new(options.method)
    };
    let mut combined = combine(&weighted, &combination)?;
    if options.portable {
        combined = combined.portable();
    }
    let bytes = combined.save(&options.output, &metadata(&folders[0].1)?, None)?;
    let config = combined.config();
    let lines = [
        format!(
            "combined  {count} adapters on {} layers",
            combined.layers.len()
        ),
        format!("rank      {}", config.rank),
        format!("written   {} ({bytes} bytes)", options.output.display()),
    ];
    let object = json!({
        "command": "combine",
        "method": options.method.word(),
        "layers": combined.layers.len(),
        "rank": config.rank,
        "output": options.output,
        "bytes": bytes,
    });
    output.done(&lines, &object);
    Ok(())
}

/// What an adapter's folder says of its base.
pub(super) fn metadata(folder: &Path) -> Result<PeftMetadata, Failure> {
    let config = peft::read_config(folder)?;
    Ok(PeftMetadata {
        base_model_name_or_path: config.base_model_name_or_path,
        task_type: config.task_type,
        fan_in_fan_out: config.fan_in_fan_out,
        ..PeftMetadata::default()
    })
}
