//! Loads a decoder's folder, and says how long it took and what memory it needed.
//!
//!     cargo run --release --example load_model -- --model DIR --dtype bf16
//!
//! `benches/loading/run.py` runs it over a folder of a billion parameters.

#![allow(clippy::print_stdout)]

use std::path::PathBuf;
use std::time::Instant;

use burn::tensor::Tensor;
use burn_lora::prelude::*;
use clap::Parser;

/// What to load, and where to.
#[derive(Parser)]
struct Arguments {
    /// A Hugging Face folder of a decoder.
    #[arg(long)]
    model: PathBuf,
    /// f32, bf16 or f16.
    #[arg(long, default_value = "bf16")]
    dtype: String,
    /// The device; by default `BURN_DEVICE`, then the fastest that was built.
    #[arg(long)]
    device: Option<String>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let dtype = match arguments.dtype.as_str() {
        "f32" => DType::F32,
        "bf16" => DType::BF16,
        "f16" => DType::F16,
        other => return Err(format!("no dtype `{other}`; f32, bf16 and f16 are").into()),
    };
    let choice = DeviceChoice::resolve(arguments.device.as_deref())?;
    let device = choice.open()?;
    // What a device takes by being there is not the load's.
    Tensor::<1>::ones([8], &device).try_into_data()?;
    let before = resident("VmRSS");
    let started = Instant::now();
    let options = LoadOptions::new(dtype, device);
    let (model, report) = Decoder::load_reported(&arguments.model, &options)?;
    let seconds = started.elapsed().as_secs_f64();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "{} parameters in {} tensors, {:.0} MiB on {choice}: {seconds:.2} s, {:.2} GB/s",
        model.config().parameters(),
        report.tensors,
        mib(report.bytes),
        report.bytes as f64 / 1e9 / seconds,
    );
    if let (Some(before), Some(peak)) = (before, resident("VmHWM")) {
        println!(
            "host memory: {:.0} MiB before, {:.0} MiB more at the peak",
            mib(before),
            mib(peak.saturating_sub(before))
        );
    }
    Ok(())
}

/// A line of `/proc/self/status` in bytes, where there is one.
fn resident(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}
