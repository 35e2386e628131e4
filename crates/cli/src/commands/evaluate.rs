//! `burn-lora evaluate`: what a model knows of a data set, without training.

use std::path::PathBuf;

use burn_lora::train::{DeviceChoice, evaluate_run};
use burn_lora_hub::Wanted;
use clap::Args;
use serde_json::json;

use super::train;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Bar;
use crate::source;

/// The options of `evaluate`.
#[derive(Debug, Args)]
pub struct EvaluateOptions {
    /// The configuration of the run: its model, and its test set, or the validation set without one
    #[arg(value_name = "CONFIG.yaml")]
    pub config: PathBuf,

    /// Settings that go before the file's
    #[arg(value_name = "key=value")]
    pub settings: Vec<String>,

    /// PEFT folder of an adapter, or its name on the hub; the bare model without it
    #[arg(long, value_name = "DIR|NAME")]
    pub adapter: Option<String>,

    /// Completions to show
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub samples: usize,
}

/// Runs the command.
pub fn run(options: &EvaluateOptions, output: &Output) -> Result<(), Failure> {
    let config = train::read(&options.config, &options.settings)?;
    let folder = source::folder(&config.model, config.revision.as_deref(), Wanted::Model)?;
    let adapter = options.adapter.as_deref();
    let adapter = adapter
        .map(|name| source::folder(name, None, Wanted::Adapter))
        .transpose()?;
    let bar = Bar::rows("tokenizing");
    let tokenized = |done: usize, all: usize| bar.set(done as u64, all as u64);
    let found = evaluate_run(&config, &folder, adapter.as_deref(), &tokenized)?;
    let choice = DeviceChoice::resolve(config.device.as_deref())?;

    let width = found.metrics.keys().map(String::len).max().unwrap_or(0);
    let mut lines = vec![
        format!("{:width$}  {}", "task", found.task),
        format!("{:width$}  {}", "rows", found.rows),
    ];
    let metrics = found.metrics.iter();
    lines.extend(metrics.map(|(name, value)| format!("{name:width$}  {value:.6}")));
    for sample in found.completions.iter().take(options.samples) {
        lines.push(format!("  prompt    {:?}", sample.prompt));
        lines.push(format!("  expected  {:?}", sample.expected));
        lines.push(format!("  generated {:?}", sample.generated));
    }
    let samples = found.completions.iter().map(|sample| {
        json!({"prompt": sample.prompt, "expected": sample.expected, "generated": sample.generated})
    });
    let metric = |name: &str| found.metrics.get(name).copied();
    let object = json!({
        "command": "evaluate",
        "device": choice.to_string(),
        "adapter": adapter,
        "task": found.task,
        "rows": found.rows,
        "learned": found.learned,
        "metrics": found.metrics,
        "loss": metric("loss"),
        "perplexity": metric("perplexity"),
        "exact_match": metric("exact_match"),
        "completions": samples.collect::<Vec<_>>(),
    });
    output.done(&lines, &object);
    Ok(())
}
