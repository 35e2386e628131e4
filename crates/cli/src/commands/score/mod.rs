//! `burn-lora score`: what a model computes for given tokens, as a file that other programs can be compared with.

mod decoder;
mod encoder;
mod file;
mod log_probs;
mod model;
mod results;
mod rows;
mod seq2seq;
mod task;

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn_lora::transformer::{
    EncoderConfig, LoadError, LoadOptions, ModelConfig, NewRows, SentenceFolder,
};
use burn_lora_hub::Wanted;
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::compute::Compute;
use crate::failure::{Failure, Kind};
use crate::output::Output;
use crate::source;
use file::ScoreFile;
use model::{Loading, Model};
use rows::{Limits, Rows};
use task::ScoreTask;

/// The options of `score`.
#[derive(Debug, Args)]
#[command(after_help = FILE)]
pub struct ScoreOptions {
    /// Hugging Face folder of a model of any kind, or its name on the hub (organization/name)
    #[arg(long, value_name = "DIR|NAME")]
    pub model: String,

    /// Branch, tag or commit of a model on the hub
    #[arg(long, value_name = "NAME")]
    pub revision: Option<String>,

    /// PEFT folder of an adapter, or its name on the hub
    #[arg(long, value_name = "DIR|NAME")]
    pub adapter: Option<String>,

    /// What the model is asked. By default what the adapter, then what the folder is for
    #[arg(long, value_enum, value_name = "TASK")]
    pub task: Option<ScoreTask>,

    /// Labels of a head, where the adapter brings it and the folder does not say how many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub num_labels: Option<u16>,

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
    /// JSONL file, which the model's tokenizer reads: {"text"} or {"prompt", "completion"} for a decoder, {"text"} or
    /// {"text", "text_pair"} for an encoder, {"text", "choices"} where it chooses, {"source", "target"} for an
    /// encoder-decoder
    #[arg(long, value_name = "FILE.jsonl")]
    pub data: Option<PathBuf>,

    /// Token ids: a JSON list of lists, or JSONL of a list or an {"input_ids"} a line, with "token_type_ids" or "labels"
    /// where the model takes them
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
The file holds, for n rows of up to t tokens, padded behind, what went into the model:
  input_ids          [n, t]         int64    [n, choices, t] where it chooses
  attention_mask     [n, t]         int64    1 for a token, 0 for padding
  token_type_ids     [n, t]         int64    where it knows segments
  decoder_input_ids  [n, u]         int64    of an encoder-decoder, with labels [n, u], -100 at padding

and what came out of it, by the task:
  causal-lm, masked-lm, seq2seq
    logits           [n, t, vocab]  float32  unless --no-logits; [n, u, vocab] of an encoder-decoder
    log_probs        [n, t]         float32  of each token after those before it, 0 for the first; at each place,
                                             seen from both sides (masked-lm); of each label (seq2seq)
  sequence           logits [n, labels], float32
  tokens             logits [n, t, labels], float32
  choice             logits [n, choices], float32
  embedding          embeddings [n, hidden], float32

docs/verify.md compares it with Transformers.";

/// Runs the command.
pub fn run(options: &ScoreOptions, output: &Output) -> Result<(), Failure> {
    let started = Instant::now();
    let revision = options.revision.as_deref();
    let folder = source::folder(&options.model, revision, Wanted::Model)?;
    let adapter = options.adapter.as_deref();
    let adapter = adapter.map(|name| source::folder(name, None, Wanted::Adapter));
    let adapter = adapter.transpose()?;

    // Older folders of sentence-transformers have the encoder one step below.
    let inner = match folder.join("config.json").is_file() {
        true => folder.clone(),
        false if SentenceFolder::is_one(&folder) => SentenceFolder::read(&folder)?.transformer,
        false => folder.clone(),
    };
    let config = ModelConfig::read(&inner)?;
    let task = ScoreTask::find(options.task, &folder, &config, adapter.as_deref())?;
    if options.no_logits && !task.has_log_probs() {
        let reason = format!("--no-logits leaves nothing of the task {}", task.name());
        return Err(Failure::new(Kind::Usage, reason));
    }
    let longest = options.max_length.map(whole);
    let mut rows = Rows::read(&options.input, task, &inner, longest)?;
    rows.limit(options.limit.map(whole));
    let vocab_size = vocabulary(options, &inner, &config, &rows)?;
    rows.check(Limits {
        vocab_size,
        max_positions: positions(task, &folder, &config)?,
        segments: encoder(&config).map_or(0, EncoderConfig::segments),
    })?;

    let (choice, device) = options.compute.open()?;
    let mut load = LoadOptions::new(options.compute.dtype.into(), device);
    load.tokens = rows.tokens();
    load.allow_not_finite = options.allow_not_finite;
    load.new_rows = options.resize_embeddings.map(|resize| match resize {
        Resize::Mean => NewRows::Mean,
        Resize::Normal => NewRows::Normal { seed: 0 },
    });
    let loading = Loading {
        folder: match task {
            ScoreTask::Embedding => &folder,
            _ => &inner,
        },
        options: load,
        num_labels: options.num_labels.map(usize::from),
        adapter: adapter.as_deref(),
    };
    let is_decoder = matches!(config, ModelConfig::Decoder(_));
    let (model, report) = Model::load(task, is_decoder, loading)?;
    if report.new_rows > 0 {
        output.warn(&format!(
            "the embedding has {} new rows, which know nothing yet",
            report.new_rows
        ));
    }

    let columns = model.columns(&rows, !options.no_logits);
    let mut file = ScoreFile::create(&options.output, rows.len(), columns)?;
    let totals = model.score(&rows, usize::from(options.batch_size), &mut file)?;
    let bytes = file.finish()?;

    if totals.not_finite > 0 {
        output.warn(&match task.has_log_probs() {
            true => format!(
                "the log-probabilities of {} tokens are not finite",
                totals.not_finite
            ),
            false => format!("{} results are not finite", totals.not_finite),
        });
    }
    let nll = totals.mean_nll();
    let mut lines = vec![format!(
        "rows      {}, {} tokens, longest {}",
        rows.len(),
        totals.tokens,
        rows.longest()
    )];
    if task.has_log_probs() {
        lines.push(format!(
            "loss      {} (mean over {} predicted tokens), perplexity {}",
            shown(nll),
            totals.predicted,
            shown(nll.exp())
        ));
    }
    lines.push(format!(
        "written   {} ({bytes} bytes)",
        options.output.display()
    ));
    let object = json!({
        "command": "score",
        "model": folder,
        "adapter": adapter,
        "task": task.name(),
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

fn whole(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn shown(number: f64) -> String {
    match number.is_nan() {
        true => "none".into(),
        false => format!("{number:.6}"),
    }
}

fn encoder(config: &ModelConfig) -> Option<&EncoderConfig> {
    match config {
        ModelConfig::Encoder(config) => Some(config),
        _ => None,
    }
}

/// The tokens that the model will know, those of a larger tokenizer among them where they are asked for.
fn vocabulary(
    options: &ScoreOptions,
    folder: &Path,
    config: &ModelConfig,
    rows: &Rows,
) -> Result<usize, Failure> {
    let embedding = config.vocab_size();
    match rows.tokens() {
        Some(tokens) if tokens > embedding => match options.resize_embeddings {
            Some(_) => Ok(tokens),
            None => {
                let error = LoadError::Vocabulary {
                    dir: folder.into(),
                    tokens,
                    embedding,
                };
                let reason = format!("{error} (--resize-embeddings)");
                Err(Failure::new(Kind::Model, reason))
            }
        },
        _ => Ok(embedding),
    }
}

/// The longest sequence: sentence encoders may be for shorter ones than their positions allow.
fn positions(task: ScoreTask, folder: &Path, config: &ModelConfig) -> Result<usize, Failure> {
    let positions = config.max_positions();
    if task != ScoreTask::Embedding {
        return Ok(positions);
    }
    let stated = SentenceFolder::read(folder)?.pooling.max_length;
    Ok(stated.map_or(positions, |length| length.min(positions)))
}

/// An error of the file that is written.
fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        Kind::Other,
        format!("cannot write {}: {error}", path.display()),
    )
}
