//! `burn-lora train`: what a configuration says, from the rows to the adapter.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use burn_lora::train::{Observer, RunConfig, RunWatcher, Stop, preview, run as run_config};
use burn_lora_hub::Wanted;
use clap::Args;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::failure::{Failure, Kind};
use crate::output::Output;
use crate::progress::Bar;
use crate::source;

/// The options of `train`.
#[derive(Debug, Args)]
#[command(after_help = RESULT)]
pub struct TrainOptions {
    /// The configuration; `burn-lora recipes` has some to begin with
    #[arg(value_name = "CONFIG.yaml")]
    pub config: PathBuf,

    /// Settings that go before the file's: training.steps=20, or steps=20 where no other ends like it
    #[arg(value_name = "key=value")]
    pub settings: Vec<String>,

    /// Go on from the last checkpoint of the run (training.resume=true)
    #[arg(long)]
    pub resume: bool,

    /// Check the configuration and the data, tell what they come to, and stop
    #[arg(long)]
    pub dry_run: bool,
}

const RESULT: &str = "\
The last line is `RESULT {json}` with train_loss, valid_loss, metrics, steps, adapter_steps, stopped, tokens, learned_tokens,
tokens_per_second, seconds, peak_memory_bytes, adapter (its folder, in PEFT's format) and checkpoint. The whole
configuration, defaults included, is written to config.yaml beside the adapter.

Ctrl-C or SIGTERM ends the run after the step that it is at, with a checkpoint (or the adapter where save_every is not
set); the exit code is then 130 or 143. A second one ends it at once. --resume goes on, to the same bits on a CPU.";

/// Runs the command; the exit code tells a run that was asked to stop from one that is over.
pub fn run(options: &TrainOptions, output: &Output) -> Result<ExitCode, Failure> {
    let mut settings = options.settings.clone();
    settings.extend(options.resume.then(|| "training.resume=true".to_string()));
    let config = read(&options.config, &settings)?;
    let folder = source::folder(&config.model, config.revision.as_deref(), Wanted::Model)?;
    let bar = Bar::rows("tokenizing");
    let tokenized = |done: usize, all: usize| bar.set(done as u64, all as u64);
    if options.dry_run {
        return dry_run(&config, &folder, &tokenized, output).map(|()| ExitCode::SUCCESS);
    }
    let mut tell = |name: &str, fact: &str| {
        let _ = writeln!(std::io::stderr(), "{name:<9} {fact}");
    };
    let observer = match output.is_json() {
        true => Observer::Lines(Box::new(std::io::stderr())),
        false => Observer::auto(std::io::stderr()),
    };
    let stop = stop_on_signals().map_err(|error| Failure::new(Kind::Other, error))?;
    let watcher = RunWatcher {
        tell: &mut tell,
        tokenized: &tokenized,
        observer: observer.until(&stop),
    };
    let result = run_config(&config, &folder, watcher)?;
    if result.stopped.is_some() && result.checkpoint.is_some() {
        let goes_on = format!("burn-lora train {} --resume", options.config.display());
        tell("go on", &format!("with the same settings: {goes_on}"));
    }
    let signal = stop
        .asked_by()
        .filter(|_| result.stopped.as_deref() == Some("asked"));
    let result = serde_json::to_value(&result).map_err(|error| Failure::new(Kind::Other, error))?;
    output.done(&[format!("RESULT {result}")], &result);
    Ok(match signal.and_then(|signal| u8::try_from(signal).ok()) {
        Some(signal) => ExitCode::from(128 + signal),
        None => ExitCode::SUCCESS,
    })
}

/// Ctrl-C and SIGTERM ask the run to stop; they end the process where there is nothing to wait for.
fn stop_on_signals() -> std::io::Result<Stop> {
    let stop = Stop::new();
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds a run that is not idle, and makes it so.
        flag::register_conditional_shutdown(signal, 128 + signal, stop.is_idle())?;
        flag::register_usize(signal, stop.asked(), signal as usize)?;
        flag::register(signal, stop.is_idle())?;
    }
    Ok(stop)
}

/// Reads a configuration.
pub fn read(path: &std::path::Path, settings: &[String]) -> Result<RunConfig, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(
            Kind::Usage,
            format!("cannot read {}: {error}", path.display()),
        )
    })?;
    Ok(RunConfig::parse(&text, settings)?)
}

fn dry_run(
    config: &RunConfig,
    folder: &std::path::Path,
    tokenized: &(dyn Fn(usize, usize) + Sync),
    output: &Output,
) -> Result<(), Failure> {
    let data = preview(config, folder, tokenized)?;
    let mut lines = vec![format!("task: {}", data.task)];
    if !data.labels.is_empty() {
        lines.push(format!("labels: {}", data.labels.join(", ")));
    }
    for part in &data.parts {
        let files: Vec<String> = part
            .files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        lines.push(format!("{}: {}", part.name, files.join(", ")));
        lines.extend(
            part.report
                .lines()
                .into_iter()
                .map(|line| format!("  {line}")),
        );
    }
    let [train, valid, test] = data.examples;
    lines.push(format!(
        "examples: {train} to learn, {valid} to validate with, {test} to measure at the end"
    ));
    let parts = data.parts.iter();
    let parts =
        parts.map(|part| json!({"name": part.name, "files": part.files, "report": part.report}));
    let object = json!({
        "command": "train",
        "dry_run": true,
        "config": config,
        "task": data.task,
        "labels": data.labels,
        "format": data.format,
        "parts": parts.collect::<Vec<_>>(),
        "examples": {"train": train, "valid": valid, "test": test},
    });
    output.done(&lines, &object);
    Ok(())
}
