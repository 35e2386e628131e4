//! Writes everything that the tiny base and its task are made from: the pretraining text, the tokenizer and the task.
//!
//! ```text
//! cargo run --release --example generate_dataset
//! ```
//!
//! The same seed writes the same bytes. The pretraining text goes to `target/`, since it is large and quickly made again;
//! the tokenizer and the task go to `datasets/`, where they are committed.

#![allow(clippy::print_stdout)]

mod bpe;
mod grammar;
mod task;
mod text;

use std::error::Error;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Parser;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use task::{Row, Task};

/// Generate the pretraining text, the tokenizer and the fine-tuning task of the tiny base.
#[derive(Parser)]
struct Options {
    /// Seed of everything.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Number of pretraining documents.
    #[arg(long, default_value_t = 40_000)]
    documents: usize,
    /// Most tokens of the tokenizer, the 256 bytes included.
    #[arg(long, default_value_t = 640)]
    vocab_size: usize,
    /// Rows of train.jsonl, valid.jsonl and test.jsonl.
    #[arg(long, num_args = 3, default_values_t = [2400, 200, 200])]
    rows: Vec<usize>,
    /// File for the pretraining text, one `{"text"}` row a document.
    #[arg(long, default_value = "target/pretraining/text.jsonl")]
    text: PathBuf,
    /// Folder for tokenizer.json and tokenizer_config.json.
    #[arg(long, default_value = "datasets/tiny-base")]
    base: PathBuf,
    /// Folder for the task.
    #[arg(long, default_value = "datasets/market-records")]
    task: PathBuf,
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let options = Options::parse();

    // One generator for each part, so that more documents do not change the task.
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let documents: Vec<String> = (0..options.documents)
        .map(|_| text::document(&mut rng))
        .collect();
    write_lines(
        &options.text,
        documents.iter().map(|text| json!({ "text": text })),
    )?;

    rng = ChaCha8Rng::seed_from_u64(options.seed.wrapping_add(1));
    let task = Task::draw(options.rows[0], options.rows[1], options.rows[2], &mut rng);
    for (name, rows) in [
        ("train", &task.train),
        ("valid", &task.valid),
        ("test", &task.test),
    ] {
        let lines = rows.iter().map(
            |Row { prompt, completion }| json!({ "prompt": prompt, "completion": completion }),
        );
        write_lines(&options.task.join(name).with_extension("jsonl"), lines)?;
    }

    // A sample is enough for the merges. It has no task rows: the tokenizer belongs to the base.
    let sample = documents.iter().take(20_000).map(String::as_str);
    let tokenizer = bpe::train(sample, options.vocab_size)?;
    fs::create_dir_all(&options.base)?;
    bpe::save(&tokenizer, &options.base)?;

    let tokens = documents.iter().take(1000).try_fold(0, |sum, text| {
        tokenizer
            .encode(text.as_str(), false)
            .map(|encoding| sum + encoding.len() + 1)
    })?;
    println!(
        "{}: {} documents of about {} tokens",
        options.text.display(),
        documents.len(),
        tokens / 1000
    );
    println!(
        "{}: tokenizer of {} tokens",
        options.base.display(),
        tokenizer.get_vocab_size(true)
    );
    println!(
        "{}: {} + {} + {} rows",
        options.task.display(),
        task.train.len(),
        task.valid.len(),
        task.test.len()
    );
    Ok(())
}

/// Writes one JSON value a line, and makes the folder when it is not there.
fn write_lines(path: &Path, lines: impl Iterator<Item = serde_json::Value>) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = BufWriter::new(fs::File::create(path)?);
    for line in lines {
        writeln!(file, "{line}")?;
    }
    file.flush()
}
