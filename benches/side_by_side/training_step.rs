//! One measurement of ours: training steps of one shape, as one line of JSON.
//!
//! ```text
//! cargo bench --bench training_step -- --shape llama --method lora --device flex --steps 10 --threads 2
//! cargo bench --bench training_step -- --floor
//! ```
//!
//! `run.py` and `gpu.py` start it, one process for each measurement, in turn with `peft_step.py`, which prints the same
//! fields.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod measure;
mod memory;
mod pools;
mod shape;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use burn_lora::prelude::*;
use clap::{Parser, ValueEnum};
use serde_json::json;

/// One measurement, as one line of JSON.
#[derive(Debug, Parser)]
struct Options {
    /// A name in shapes.json.
    #[arg(long, default_value = "llama")]
    shape: String,
    /// What is trained.
    #[arg(long, value_enum, default_value_t = Method::Lora)]
    method: Method,
    #[arg(long, default_value_t = 10)]
    steps: usize,
    /// All that the process may have, if it is left out.
    #[arg(long)]
    threads: Option<usize>,
    #[arg(long, default_value = "flex")]
    device: String,
    /// Of the first blocks, how many are computed again in the backward instead of kept.
    #[arg(long, default_value_t = 0)]
    recompute: usize,
    /// Weights, adapter and tokens that prepare.py wrote, instead of random ones.
    #[arg(long, value_name = "DIR")]
    prepared: Option<PathBuf>,
    /// Of the prepared weights.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
    /// Also say what the device's allocator holds, and the most that was in use, which slows the steps.
    #[arg(long)]
    pools: bool,
    /// Leave the pages of the device's allocator as it makes them.
    #[arg(long)]
    plain_pages: bool,
    /// Measure one large product on the device instead of steps.
    #[arg(long)]
    floor: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Dtype {
    F32,
    F16,
    Bf16,
}

impl From<Dtype> for DType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::BF16,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Method {
    Lora,
    Full,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Lora => "lora",
            Self::Full => "full",
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
    if let Some(threads) = options.threads {
        for pool in ["RAYON_NUM_THREADS", "MATMUL_NUM_THREADS"] {
            // SAFETY: the process has one thread so far; the pools read these variables when they are first used.
            unsafe { std::env::set_var(pool, threads.to_string()) };
        }
    }
    let device = DeviceChoice::resolve(Some(&options.device))?.open()?;
    let mut result = match options.floor {
        true => measure::product(&device),
        false => {
            let shape = shape::read(&options.shape)?;
            let mut result = measure::steps(&shape, options, &device)?;
            result["shape"] = json!(options.shape);
            result
        }
    };
    result["implementation"] = json!(options.device);
    result["threads"] = json!(options.threads);
    result["versions"] = json!({ "burn-lora": env!("CARGO_PKG_VERSION") });
    println!("{result}");
    Ok(())
}
