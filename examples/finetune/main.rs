//! The main job: tune a decoder by LoRA, show what it learned, and leave an adapter that merges.
//!
//! ```text
//! cargo run --release --example finetune
//! cargo run --release --example finetune -- --model DIR --data FILE.jsonl --output DIR
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod options;
mod rows;

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use burn::tensor::{DType, Int, Tensor};
use burn_lora::data::check_vocab;
use burn_lora::kernels::can_recompute;
use burn_lora::prelude::*;
use burn_lora::train::{Evaluation, attach_adapter, require_dtype};
use clap::Parser;
use options::Options;
use rows::Rows;
use serde_json::json;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let config = options.training();
    config.validate()?;
    let lora = options.lora();

    let choice = DeviceChoice::resolve(options.device.as_deref())?;
    let device = choice.open()?;
    let dtype = options.dtype.into();
    require_dtype(choice, &device, dtype)?;
    device.seed(options.seed);
    if options.recompute > 0 && !can_recompute(&device) {
        return Err(format!("--recompute is not built for {choice}").into());
    }
    println!("device    {choice}");

    let tokenizer = Tokenizer::from_folder(&options.model)?;
    let rows = Rows::read(options, &tokenizer)?;
    let base = Decoder::load(&options.model, &LoadOptions::new(dtype, device))?;
    for part in [&rows.train, &rows.valid, &rows.test] {
        check_vocab(part, &tokenizer, base.vocab_size())?;
    }
    let data = TrainData {
        train: rows.train,
        valid: rows.valid,
        pad: tokenizer.pad(),
    };
    // Of the batches that training begins with, as many as an initialization that looks at data sees.
    let batches = 8;
    let (model, lora) = attach_adapter(base.clone(), DEFAULT_NAME, &lora, &data, &config, batches)?;
    let model = model.with_recompute(options.recompute);
    let parameters = summary(&model);
    println!("{parameters}\n");

    let evaluation = EvaluateOptions {
        batch_size: options.batch_size,
        generate: rows.have_prompts,
        ..EvaluateOptions::default()
    };
    let before = evaluate(&base, &tokenizer, &rows.test, &evaluation)?;
    show("before", &before);

    let tuned = finetune(model, &config, data, Observer::auto(std::io::stdout()))?;

    println!();
    let after = evaluate(&tuned.model, &tokenizer, &rows.test, &evaluation)?;
    show("after", &after);

    let adapter_dir = options.output.join("adapter");
    let metadata = PeftMetadata {
        base_model_name_or_path: Some(options.model.display().to_string()),
        fan_in_fan_out: base.config().fan_in_fan_out(),
        ..PeftMetadata::default()
    };
    let adapter_bytes = peft::save(&tuned.model, DEFAULT_NAME, &lora, &metadata, &adapter_dir)?;
    println!(
        "adapter   {} ({adapter_bytes} bytes)",
        adapter_dir.display()
    );

    let (reloaded, _) = peft::load(base, DEFAULT_NAME, &adapter_dir)?;
    let probe = Tensor::<1, Int>::from_ints(rows.test[0].ids(), &reloaded.device()).unsqueeze();
    let expected = tuned.model.logits(probe.clone());
    let difference = |model: &Decoder| distance(&expected, &model.logits(probe.clone()));
    println!(
        "reloaded  logits differ by at most {:.1e}",
        difference(&reloaded)
    );
    let merged = merge_and_unload(reloaded)?;
    println!(
        "merged    logits differ by at most {:.1e}\n",
        difference(&merged)
    );

    let result = json!({
        "base_loss": before.loss,
        "tuned_loss": after.loss,
        "base_score": before.exact_match,
        "tuned_score": after.exact_match,
        "trainable_params": parameters.trainable,
        "total_params": parameters.total,
        "adapter_bytes": adapter_bytes,
        "seconds": started.elapsed().as_secs_f64(),
        "device": choice.to_string(),
        "tokens_per_second": tuned.tokens_per_second,
        "first_step_seconds": tuned.first_step_seconds,
        "steps": tuned.steps,
    });
    println!("RESULT {result}");
    Ok(())
}

/// Prints what a model knows of the held-out rows, with three samples.
fn show(when: &str, evaluation: &Evaluation) {
    let score = evaluation
        .exact_match
        .map_or(String::new(), |score| format!(", exact match {score:.3}"));
    println!(
        "{when:9} loss {:.4}, perplexity {:.3}{score}",
        evaluation.loss, evaluation.perplexity
    );
    for sample in evaluation.completions.iter().take(3) {
        println!("  prompt    {:?}", sample.prompt);
        println!("  expected  {:?}", sample.expected);
        println!("  generated {:?}", sample.generated);
    }
    println!();
}

/// The largest difference of two tensors.
fn distance(left: &Tensor<3>, right: &Tensor<3>) -> f32 {
    let left = left.clone().cast(DType::F32);
    (left - right.clone().cast(DType::F32))
        .abs()
        .max()
        .into_scalar()
}
