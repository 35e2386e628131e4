//! `burn-lora score`: what a model computes for given tokens, as a file that other programs can be compared with.

mod file;
mod log_probs;
mod model;
mod rows;

use std::path::PathBuf;
use std::time::Instant;

use burn_lora::transformer::{LoadError, LoadOptions, NewRows};
use burn_lora_hub::Wanted;
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::compute::Compute;
use crate::failure::{Failure, Kind};
use crate::output::Output;
use crate::source;
use file::{Column, ScoreFile};
use model::Model;
use rows::Rows;

/// The options of `score`.
#[derive(Debug, Args)]
#[command(after_help = FILE)]
pub struct ScoreOptions {
    /// Hugging Face folder of a decoder, or its name on the hub (organization/name)
    #[arg(long, value_name = "DIR|NAME")]
    pub model: String,

    /// Branch, tag or commit of a model on the hub
    #[arg(long, value_name = "NAME")]
    pub revision: Option<String>,

    /// PEFT folder of an adapter, or its name on the hub
    #[arg(long, value_name = "DIR|NAME")]
    pub adapter: Option<String>,

    #[command(flatten)]
    pub input: Input,

    /// The file to write
    #[arg(long, value_name = "FILE.safetensors")]
    pub output: PathBuf,

    /// Rows that are computed together
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch_size: u16,

    /// Only the first N rows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,

    /// Most tokens of a row; longer rows are cut at the end. Without it they are refused where the model has no
    /// position for them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_length: Option<u64>,

    /// Leave the logits out, which are most of the file
    #[arg(long)]
    pub no_logits: bool,

    /// Give the embedding rows for the tokens of a larger tokenizer: the mean of the others, or drawn with the
    /// configuration's initializer_range
    #[arg(long, value_enum, value_name = "HOW", num_args = 0..=1, default_missing_value = "mean")]
    pub resize_embeddings: Option<Resize>,

    /// Take weights that are NaN or infinite as they are
    #[arg(long)]
    pub allow_not_finite: bool,

    #[command(flatten)]
    pub compute: Compute,
}

/// The tokens, from one of two kinds of files.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Input {
    /// JSONL file of {"text"} or {"prompt", "completion"} rows, which the model's tokenizer reads
    #[arg(long, value_name = "FILE.jsonl")]
    pub data: Option<PathBuf>,

    /// Token ids: a JSON list of lists, or JSONL of a list or an {"input_ids"} a line
    #[arg(long, value_name = "FILE")]
    pub ids: Option<PathBuf>,
}

/// What the rows of new tokens hold.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Resize {
    /// The mean of the other rows
    Mean,
    /// Drawn with the configuration's initializer_range, seed 0
    Normal,
}

const FILE: &str = "\
The file holds, for n rows of up to t tokens, padded behind:
  input_ids       [n, t]         int64
  attention_mask  [n, t]         int64    1 for a token, 0 for padding
  logits          [n, t, vocab]  float32  unless --no-logits
  log_probs       [n, t]         float32  of each token after those before it; 0 for the first

docs/verify.md compares it with Transformers.";

/// Runs the command.
pub fn run(options: &ScoreOptions, output: &Output) -> Result<(), Failure> {
    let started = Instant::now();
    let revision = options.revision.as_deref();
    let folder = source::folder(&options.model, revision, Wanted::Model)?;
    let adapter = options.adapter.as_deref();
    let adapter = adapter.map(|name| source::folder(name, None, Wanted::Adapter));
    let adapter = adapter.transpose()?;

    let shape = Model::shape(&folder)?;
    let mut rows = Rows::read(&options.input, &folder)?;
    rows.limit(options.limit);
    rows.cut(options.max_length);
    let mut vocab_size = shape.vocab_size;
    if let Some(tokens) = rows.tokens().filter(|tokens| *tokens > vocab_size) {
        if options.resize_embeddings.is_none() {
            let error = LoadError::Vocabulary {
                dir: folder,
                tokens,
                embedding: vocab_size,
            };
            let reason = format!("{error} (--resize-embeddings)");
            return Err(Failure::new(Kind::Model, reason));
        }
        vocab_size = tokens;
    }
    rows.check(vocab_size, shape.max_positions)?;

    let (choice, device) = options.compute.open()?;
    let mut load = LoadOptions::new(options.compute.dtype.into(), device);
    load.tokens = rows.tokens();
    load.allow_not_finite = options.allow_not_finite;
    load.new_rows = options.resize_embeddings.map(|resize| match resize {
        Resize::Mean => NewRows::Mean,
        Resize::Normal => NewRows::Normal { seed: 0 },
    });
    let (model, report) = Model::load(&folder, load, adapter.as_deref())?;
    if report.new_rows > 0 {
        output.warn(&format!(
            "the embedding has {} new rows, which know nothing yet",
            report.new_rows
        ));
    }

    let mut columns = vec![
        Column::ints("input_ids", [rows.longest()]),
        Column::ints("attention_mask", [rows.longest()]),
    ];
    if !options.no_logits {
        columns.push(Column::floats(
            "logits",
            [rows.longest(), model.vocab_size()],
        ));
    }
    columns.push(Column::floats("log_probs", [rows.longest()]));
    let mut file = ScoreFile::create(&options.output, rows.len(), columns)?;
    let totals = model.score(&rows, usize::from(options.batch_size), &mut file)?;
    let bytes = file.finish()?;

    if totals.not_finite > 0 {
        output.warn(&format!(
            "the log-probabilities of {} tokens are not finite",
            totals.not_finite
        ));
    }
    let nll = totals.mean_nll();
    let shown = |number: f64| {
        if number.is_nan() {
            "none".into()
        } else {
            format!("{number:.6}")
        }
    };
    let lines = [
        format!(
            "rows      {}, {} tokens, longest {}",
            rows.len(),
            totals.tokens,
            rows.longest()
        ),
        format!(
            "loss      {} (mean over {} predicted tokens), perplexity {}",
            shown(nll),
            totals.predicted,
            shown(nll.exp())
        ),
        format!("written   {} ({bytes} bytes)", options.output.display()),
    ];
    let object = json!({
        "command": "score",
        "model": folder,
        "adapter": adapter,
        "device": choice.to_string(),
        "dtype": options.compute.dtype.name(),
        "rows": rows.len(),
        "tokens": totals.tokens,
        "predicted_tokens": totals.predicted,
        "mean_nll": nll,
        "perplexity": nll.exp(),
        "not_finite": totals.not_finite,
        "loaded_tensors": report.tensors,
        "loaded_bytes": report.bytes,
        "new_rows": report.new_rows,
        "output": options.output,
        "output_bytes": bytes,
        "seconds": started.elapsed().as_secs_f64(),
    });
    output.done(&lines, &object);
    Ok(())
}

/// An error of the file that is written.
fn unwritable(path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::new(
        Kind::Other,
        format!("cannot write {}: {error}", path.display()),
    )
}
