//! Pretrains the tiny base of `datasets/tiny-base` from random weights, by full training of every parameter.
//!
//! ```text
//! cargo run --release --example generate_dataset
//! cargo run --release --example pretrain_base
//! ```
//!
//! The first command writes the text and the tokenizer, the second reads them and writes `config.json` and
//! `model.safetensors` beside the tokenizer. With `--features cuda` or `wgpu` it runs on a GPU; the result is the same in
//! kind, not bit by bit.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::PathBuf;

use burn::module::Module;
use burn::tensor::DType;
use burn_lora::data::{EncodeOptions, Tokenizer, Truncation, encode, read_rows};
use burn_lora::train::{
    AdamWOptions, DeviceChoice, EvaluateOptions, Observer, OptimizerChoice, TrainConfig, TrainData,
    Warmup, evaluate, train,
};
use burn_lora::transformer::{Decoder, LlamaConfig};
use clap::Parser;
use serde_json::json;

/// Documents at the end of the text that are not learned but validated with.
const VALIDATION_DOCUMENTS: usize = 512;

/// Pretrain the tiny base from random weights.
#[derive(Parser)]
struct Options {
    /// The text, one `{"text"}` row a document, as `generate_dataset` writes it.
    #[arg(long, default_value = "target/pretraining/text.jsonl")]
    text: PathBuf,
    /// Folder with tokenizer.json and tokenizer_config.json.
    #[arg(long, default_value = "datasets/tiny-base")]
    tokenizer: PathBuf,
    /// Folder for config.json and model.safetensors.
    #[arg(long, default_value = "datasets/tiny-base")]
    output: PathBuf,
    /// Optimizer steps.
    #[arg(long, default_value_t = 2000)]
    steps: usize,
    /// Documents in a step.
    #[arg(long, default_value_t = 16)]
    batch_size: usize,
    /// Highest learning rate.
    #[arg(long, default_value_t = 2e-3)]
    learning_rate: f64,
    /// Seed of the weights and of the order of the documents.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Device to run on: flex, ndarray, cuda, cuda:1, wgpu, ... of those built.
    #[arg(long)]
    device: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let choice = DeviceChoice::resolve(options.device.as_deref())?;
    let device = choice.open()?;
    let tokenizer = Tokenizer::from_folder(&options.tokenizer)?;
    let shape = shape(&tokenizer);

    let config = TrainConfig {
        steps: options.steps,
        batch_size: options.batch_size,
        max_seq_len: shape.max_position_embeddings,
        learning_rate: options.learning_rate,
        warmup: Warmup::Steps(100.min(options.steps)),
        // A short run of small batches wants the squares of the gradients forgotten sooner than by PyTorch's 0.999.
        optimizer: OptimizerChoice::AdamW(AdamWOptions {
            beta_2: 0.99,
            ..AdamWOptions::default()
        }),
        eval_every: Some(500),
        log_every: 100,
        seed: options.seed,
        ..TrainConfig::default()
    };
    let rows = read_rows(&options.text)?;
    let whole = EncodeOptions {
        truncation: Truncation::Refuse,
        ..EncodeOptions::new(config.max_seq_len)
    };
    let encoded = encode(&rows, &tokenizer, &whole)?;
    println!("{}: {}", options.text.display(), encoded.report);
    let mut learned = encoded.examples;
    let valid = learned.split_off(learned.len().saturating_sub(VALIDATION_DOCUMENTS));

    // A new decoder is frozen, as every base is; here it is the base that learns.
    let base = Decoder::init(shape, &device, options.seed)?.set_require_grad(true);
    println!("{} parameters on {choice}", base.num_params());
    let data = TrainData {
        train: learned,
        valid: valid.clone(),
        pad: tokenizer.pad(),
    };
    let outcome = train(base, &config, data, Observer::auto(std::io::stdout()))?;

    let by_loss = EvaluateOptions {
        generate: false,
        ..EvaluateOptions::default()
    };
    let score = evaluate(&outcome.model, &tokenizer, &valid, &by_loss)?;
    println!(
        "{} steps, {} tokens in {:.0} s; validation loss {:.4}, perplexity {:.3}",
        outcome.steps, outcome.tokens, outcome.seconds, score.loss, score.perplexity
    );

    outcome.model.save(&options.output, DType::BF16)?;
    println!("saved to {}", options.output.display());
    Ok(())
}

/// A Llama of 0.8 million parameters: small enough for the CPU and for a repository, large enough to learn to look things
/// up in what it has read, which takes two layers that build on each other.
fn shape(tokenizer: &Tokenizer) -> LlamaConfig {
    let mut config = LlamaConfig {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 128,
        intermediate_size: 352,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 32,
        max_position_embeddings: 256,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: true,
        // About 1 / sqrt(hidden_size). The usual 0.02, meant for wide models, makes a narrow one learn late.
        initializer_range: 0.08,
        ..LlamaConfig::default()
    };
    config
        .extra
        .insert("eos_token_id".to_string(), json!(tokenizer.eos()));
    config
        .extra
        .insert("pad_token_id".to_string(), json!(tokenizer.pad()));
    config
}
