//! `burn-lora extract`: a LoRA adapter of the difference between two models.

use std::path::PathBuf;

use burn_lora::adapter::{ExtractRank, Targets, extract};
use burn_lora::prelude::*;
use burn_lora::transformer::WeightPairs;
use burn_lora_hub::Wanted;
use clap::Args;
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Bar;
use crate::source;

/// The options of `extract`.
#[derive(Debug, Args)]
pub struct ExtractOptions {
    /// The folder of the model as it was, or its name on the hub
    #[arg(long, value_name = "DIR|NAME")]
    pub base: String,

    /// The folder of the model as it was fine-tuned, or its name on the hub
    #[arg(long, value_name = "DIR|NAME")]
    pub tuned: String,

    /// Rank of every layer; with --energy the largest of any layer
    #[arg(long)]
    pub rank: usize,

    /// Keep as few directions of a layer as hold this share of the difference's energy, in (0, 1]
    #[arg(long, conflicts_with = "power_iterations")]
    pub energy: Option<f64>,

    /// Decompose by a random sketch with so many power iterations: for large models, whose exact decomposition takes hours
    #[arg(long, value_name = "N")]
    pub power_iterations: Option<usize>,

    /// all-linear, names such as q_proj,v_proj, or a regular expression on the whole path
    #[arg(long, default_value = "all-linear")]
    pub targets: String,

    /// Fold every scale into B and give all layers one rank, for runtimes that read no patterns
    #[arg(long)]
    pub portable: bool,

    /// The folder to write
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

impl ExtractOptions {
    fn rank(&self) -> ExtractRank {
        match (self.energy, self.power_iterations) {
            (Some(share), _) => ExtractRank::Energy {
                share,
                at_most: self.rank,
            },
            (None, Some(iterations)) => ExtractRank::Sketched {
                rank: self.rank,
                iterations,
            },
            (None, None) => ExtractRank::Fixed(self.rank),
        }
    }
}

/// Runs the command.
pub fn run(options: &ExtractOptions, output: &Output) -> Result<(), Failure> {
    let base = source::folder(&options.base, None, Wanted::Model)?;
    let tuned = source::folder(&options.tuned, None, Wanted::Model)?;
    let pairs = WeightPairs::open(&base, &tuned, &Targets::parse(&options.targets))?;
    let others = pairs.other_differences()?;
    let metadata = PeftMetadata {
        base_model_name_or_path: Some(options.base.clone()),
        fan_in_fan_out: pairs.fan_in_fan_out(),
        ..PeftMetadata::default()
    };
    let bar = Bar::layers("extracting");
    let total = pairs.layers() as u64;
    let counted = pairs.zip(1..).map(|(pair, index)| {
        bar.set(index, total);
        pair
    });
    let mut layers = Vec::new();
    let mut adapter = extract(counted, options.rank(), |path, rank, kept| {
        layers.push((path.to_string(), rank, kept));
    })?;
    drop(bar);
    if options.portable {
        adapter = adapter.portable();
    }
    let bytes = adapter.save(&options.output, &metadata, None)?;

    let width = layers
        .iter()
        .map(|(path, ..)| path.len())
        .max()
        .unwrap_or(0);
    let mut lines: Vec<String> = layers
        .iter()
        .map(|(path, rank, kept)| format!("{path:width$}  rank {rank:>4}  energy {kept:.4}"))
        .collect();
    if !others.is_empty() {
        lines.push(format!(
            "warning   {} further tensors differ, which the adapter cannot say: {}",
            others.len(),
            others.join(", ")
        ));
    }
    lines.push(format!("extracted {} layers", layers.len()));
    lines.push(format!(
        "written   {} ({bytes} bytes)",
        options.output.display()
    ));
    let told = |(path, rank, kept): &(String, usize, f64)| json!({"layer": path, "rank": rank, "energy": kept});
    let object = json!({
        "command": "extract",
        "layers": layers.iter().map(told).collect::<Vec<_>>(),
        "other_differences": others,
        "output": options.output,
        "bytes": bytes,
    });
    output.done(&lines, &object);
    Ok(())
}
