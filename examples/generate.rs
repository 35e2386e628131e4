//! Continues prompts with a model from a Hugging Face folder, under an adapter if there is one.
//!
//! ```text
//! cargo run --release --example generate -- --prompt "On Thursday the Osprey"
//! cargo run --release --example generate -- --model DIR --adapter DIR --prompt TEXT --temperature 0.7 --top-p 0.9
//! cargo run --release --example generate -- --prompt TEXT --beams 10 --length-penalty 0.9 --no-repeat-ngram-size 4
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use burn_lora::prelude::*;
use burn_lora::train::require_dtype;
use burn_lora::transformer::{
    BeamSearch, Decoding, Detokenizer, Sampling, TextEvent, WithParts, generate_text, stream_text,
};
use clap::Parser;

/// Continue prompts: the most likely token each time, unless an option says otherwise.
///
/// A single prompt is answered as the answer grows; several are answered together.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Options {
    /// Hugging Face folder of a decoder with its tokenizer.json
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/tiny-base"))]
    model: PathBuf,

    /// PEFT folder of an adapter
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,

    /// Text to continue; may be repeated
    #[arg(long, value_name = "TEXT", required = true)]
    prompt: Vec<String>,

    /// Most tokens of an answer
    #[arg(long, default_value_t = 64)]
    max_new_tokens: usize,

    /// End an answer before this text; may be repeated
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,

    /// Draw tokens at random, from logits divided by this
    #[arg(long)]
    temperature: Option<f64>,

    /// Draw among this many of the most likely tokens
    #[arg(long)]
    top_k: Option<usize>,

    /// Draw among the most likely tokens that together have this probability
    #[arg(long)]
    top_p: Option<f64>,

    /// Draw among tokens at least this many times as likely as the most likely one
    #[arg(long)]
    min_p: Option<f64>,

    /// Search for the most likely answer with this many beams
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p"])]
    beams: Option<usize>,

    /// Above 0 longer answers of a beam search gain, below 0 shorter ones
    #[arg(long, default_value_t = 1.0, requires = "beams")]
    length_penalty: f64,

    /// Above 1 tokens that stand there already become rarer
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f64,

    /// No sequence of this many tokens twice
    #[arg(long)]
    no_repeat_ngram_size: Option<usize>,

    /// Seed of random draws
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// f32, bf16 or f16
    #[arg(long, default_value = "f32", value_parser = dtype)]
    dtype: DType,

    /// flex, ndarray, wgpu, vulkan, metal, cuda, rocm; by default BURN_DEVICE, then the fastest built
    #[arg(long)]
    device: Option<String>,
}

fn dtype(name: &str) -> Result<DType, String> {
    match name {
        "f32" => Ok(DType::F32),
        "bf16" => Ok(DType::BF16),
        "f16" => Ok(DType::F16),
        other => Err(format!("\"{other}\" is none of f32, bf16, f16")),
    }
}

impl Options {
    fn decoding(&self) -> Decoding {
        let is_random = self.temperature.is_some()
            || self.top_k.is_some()
            || self.top_p.is_some()
            || self.min_p.is_some();
        match self.beams {
            Some(num_beams) => Decoding::Beam(BeamSearch {
                num_beams,
                length_penalty: self.length_penalty,
                ..BeamSearch::default()
            }),
            None if is_random => Decoding::Sample(Sampling {
                temperature: self.temperature.unwrap_or(1.0),
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
            }),
            None => Decoding::Greedy,
        }
    }
}

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
    let choice = DeviceChoice::resolve(options.device.as_deref())?;
    let device = choice.open()?;
    require_dtype(choice, &device, options.dtype)?;
    let tokenizer = Tokenizer::from_folder(&options.model)?;
    let mut model = Decoder::load(&options.model, &LoadOptions::new(options.dtype, device))?;
    if let Some(folder) = &options.adapter {
        model = model.load_adapters(folder)?;
    }

    let prompts = options
        .prompt
        .iter()
        .map(|text| tokenizer.encode_prompt(text));
    let prompts: Vec<Vec<u32>> = prompts.collect::<Result<_, _>>()?;
    let request = GenerateOptions {
        max_new_tokens: options.max_new_tokens,
        eos: tokenizer.stop_ids().to_vec(),
        decoding: options.decoding(),
        repetition_penalty: options.repetition_penalty,
        no_repeat_ngram_size: options.no_repeat_ngram_size,
        seed: options.seed,
        ..GenerateOptions::default()
    };
    let detokenizer = Detokenizer::new(|tokens: &[u32]| tokenizer.decode(tokens))
        .with_stop_strings(&options.stop);

    if let ([prompt], None) = (options.prompt.as_slice(), options.beams) {
        let events = stream_text(&model, &prompts, &request, &detokenizer)?;
        print!("{prompt}");
        for event in events {
            stdout().flush()?;
            if let TextEvent::Text { text, .. } = event? {
                print!("{text}");
            }
        }
        println!();
        return Ok(());
    }
    let answers = generate_text(&model, &prompts, &request, &detokenizer)?;
    for (prompt, answers) in options.prompt.iter().zip(answers) {
        for answer in answers {
            println!("{prompt}{}", answer.text);
        }
    }
    Ok(())
}
