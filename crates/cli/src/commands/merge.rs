//! `burn-lora merge`: a model with its adapter worked into the weights.

use std::fs;
use std::path::PathBuf;

use burn_lora::adapter::merge_and_unload;
use burn_lora::transformer::{AdapterFolder, adapter_folders};
use clap::Args;
use serde_json::json;

use crate::failure::{Failure, Kind};
use crate::model::ModelOptions;
use crate::output::Output;

/// The options of `merge`.
#[derive(Debug, Args)]
pub struct MergeOptions {
    #[command(flatten)]
    pub model: ModelOptions,

    /// The folder to write: configuration, weights in the format of --dtype, and the files of the tokenizer
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

/// What a tokenizer consists of.
const TOKENIZER: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
];

/// Runs the command.
pub fn run(options: &MergeOptions, output: &Output) -> Result<(), Failure> {
    let Some(adapter) = options.model.adapter_folder()? else {
        return Err(Failure::new(
            Kind::Usage,
            "--adapter is missing: there is nothing to merge",
        ));
    };
    let adapters = adapter_folders(&adapter)?;
    let reasons: Vec<String> = adapters
        .iter()
        .filter_map(AdapterFolder::why_unmergeable)
        .collect();
    if !reasons.is_empty() {
        return Err(Failure::new(Kind::Model, reasons.join("\n")));
    }
    let loaded = options.model.load()?;
    let is_same = |a: &PathBuf, b: &PathBuf| match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    };
    if is_same(&loaded.folder, &options.output) {
        let reason = "--output is the folder of the model, which is never written";
        return Err(Failure::new(Kind::Usage, reason));
    }
    let merged = merge_and_unload(loaded.model)?;
    let unwritable = |error: Box<dyn std::error::Error>| Failure::new(Kind::Other, error);
    merged
        .save(&options.output, options.model.compute.dtype.into())
        .map_err(|error| unwritable(error.into()))?;
    let mut copied = Vec::new();
    for name in TOKENIZER {
        let from = loaded.folder.join(name);
        if from.exists() {
            fs::copy(&from, options.output.join(name)).map_err(|error| unwritable(error.into()))?;
            copied.push(name);
        }
    }
    let lines = [
        format!("written   {}", options.output.display()),
        format!("copied    {}", copied.join(", ")),
    ];
    let object = json!({
        "command": "merge",
        "device": loaded.device,
        "output": options.output,
        "copied": copied,
    });
    output.done(&lines, &object);
    Ok(())
}
