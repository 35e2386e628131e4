//! `burn-lora evaluate`: what a model knows of a data set, without training.

use std::path::PathBuf;

use burn_lora::adapter::{DEFAULT_NAME, peft};
use burn_lora::data::{RowFormat, check_vocab};
use burn_lora::train::{DeviceChoice, evaluate, read_data, read_tokenizer, require_dtype};
use burn_lora::transformer::{Decoder, LoadOptions};
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
    let tokenizer = read_tokenizer(&config, &folder)?;
    let bar = Bar::rows("tokenizing");
    let tokenized = |done: usize, all: usize| bar.set(done as u64, all as u64);
    let data = read_data(&config, &tokenizer, &tokenized)?;

    let choice = DeviceChoice::resolve(config.device.as_deref())?;
    let device = choice.open()?;
    require_dtype(choice, &device, config.dtype.into())?;
    let mut model = Decoder::load(&folder, &LoadOptions::new(config.dtype.into(), device))?;
    check_vocab(&data.test, &tokenizer, model.vocab_size())?;
    if let Some(adapter) = &adapter {
        model = peft::load(model, DEFAULT_NAME, adapter)?.0;
    }
    let have_prompts = data.format == RowFormat::PromptCompletion;
    let how = config
        .evaluation
        .options(config.training.batch_size, have_prompts);
    let found = evaluate(&model, &tokenizer, &data.test, &how)?;

    let mut lines = vec![
        format!("rows        {}", data.test.len()),
        format!(
            "loss        {:.6}, perplexity {:.4}",
            found.loss, found.perplexity
        ),
    ];
    lines.extend(
        found
            .exact_match
            .map(|share| format!("exact match {share:.4}")),
    );
    for sample in found.completions.iter().take(options.samples) {
        lines.push(format!("  prompt    {:?}", sample.prompt));
        lines.push(format!("  expected  {:?}", sample.expected));
        lines.push(format!("  generated {:?}", sample.generated));
    }
    let samples = found.completions.iter().map(|sample| {
        json!({"prompt": sample.prompt, "expected": sample.expected, "generated": sample.generated})
    });
    let object = json!({
        "command": "evaluate",
        "device": choice.to_string(),
        "adapter": adapter,
        "rows": data.test.len(),
        "learned_tokens": found.learned_tokens,
        "loss": found.loss,
        "perplexity": found.perplexity,
        "exact_match": found.exact_match,
        "completions": samples.collect::<Vec<_>>(),
    });
    output.done(&lines, &object);
    Ok(())
}
