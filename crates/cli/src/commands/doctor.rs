//! `burn-lora doctor`: what this build and this machine can do.

use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{DType, Device};
use burn_lora::data::{Batch, Example};
use burn_lora::kernels::{adamw_together, can_recompute};
use burn_lora::prelude::*;
use burn_lora::train::{Backend, TrainConfig, gradients, optimizer};
use burn_lora_hub::Wanted;
use clap::Args;
use serde_json::{Value, json};

use crate::compute::Compute;
use crate::failure::{Failure, Kind};
use crate::output::Output;
use crate::source;
use crate::units::bytes_text;

/// The options of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorOptions {
    /// Run training steps of this decoder (a folder, or a name on the hub), so that everything that is compiled or tuned
    /// for it is done, and kept where the backend keeps such things
    #[arg(long, value_name = "DIR|NAME")]
    pub warm: Option<String>,

    #[command(flatten)]
    pub compute: Compute,

    /// Rows of the steps
    #[arg(long, default_value_t = 4)]
    pub batch_size: usize,

    /// Tokens of a row
    #[arg(long, default_value_t = 512)]
    pub max_seq_len: usize,

    /// Rank of the adapter, on all linear layers
    #[arg(long, default_value_t = 16)]
    pub rank: usize,
}

const DTYPES: [(&str, DType); 3] = [
    ("f32", DType::F32),
    ("bf16", DType::BF16),
    ("f16", DType::F16),
];

/// The first step compiles, the second is one as all that follow.
const STEPS: usize = 2;

/// Runs the command.
pub fn run(options: &DoctorOptions, output: &Output) -> Result<(), Failure> {
    let threads = available_parallelism().map_or(1, usize::from);
    let mut lines = vec![
        format!("burn-lora  {}", env!("CARGO_PKG_VERSION")),
        format!("threads    {threads}"),
    ];
    let memory = memory();
    lines.extend(memory.map(|[all, free]| {
        let [all, free] = [all, free].map(bytes_text);
        format!("memory     {all}, of which {free} are free")
    }));
    let mut backends = Vec::new();
    for backend in Backend::built() {
        let name = backend.name();
        let (line, found) = match DeviceChoice::resolve(Some(name))?.open() {
            Ok(device) => state(&device),
            // A driver that is missing is a finding, and the other backends are looked at as well.
            Err(error) => (error.to_string(), json!({ "error": error.to_string() })),
        };
        lines.push(format!("{name:<10} {line}"));
        backends.push(json!({ "name": name, "state": found }));
    }
    let warmed = match &options.warm {
        Some(model) => Some(warm(model, options)?),
        None => None,
    };
    if let Some([first, second]) = warmed {
        lines.push(format!(
            "warm       first step {first:.2} s, second {second:.2} s"
        ));
    }
    let object = json!({
        "command": "doctor",
        "version": env!("CARGO_PKG_VERSION"),
        "threads": threads,
        "memory": memory.map(|[all, free]| json!({"total_bytes": all, "available_bytes": free})),
        "backends": backends,
        "warm": warmed.map(|seconds| json!({ "step_seconds": seconds })),
    });
    output.done(&lines, &object);
    Ok(())
}

/// The memory of the machine and what is free of it, in bytes, where the system tells (Linux).
fn memory() -> Option<[u64; 2]> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kilobytes * 1024)
    };
    Some([field("MemTotal:")?, field("MemAvailable:")?])
}

fn state(device: &Device) -> (String, Value) {
    let dtypes: Vec<&str> = DTYPES
        .into_iter()
        .filter(|(_, dtype)| device.supports_dtype(*dtype))
        .map(|(name, _)| name)
        .collect();
    let recomputes = can_recompute(device);
    let also = if recomputes { ", recomputation" } else { "" };
    (
        format!("works: {}{also}", dtypes.join(", ")),
        json!({ "dtypes": dtypes, "recompute": recomputes }),
    )
}

/// Seconds of each step.
fn warm(model: &str, options: &DoctorOptions) -> Result<[f64; STEPS], Failure> {
    let usage = |reason: String| Failure::new(Kind::Usage, reason);
    if options.batch_size == 0 || options.max_seq_len < 2 {
        let reason = "--batch-size must be at least 1, and --max-seq-len at least 2";
        return Err(usage(reason.to_string()));
    }
    let folder: PathBuf = source::folder(model, None, Wanted::Model)?;
    let (_, device) = options.compute.open()?;
    let load = LoadOptions::new(options.compute.dtype.into(), device.clone());
    let base = Decoder::load(&folder, &load)?;
    base.check_length(options.max_seq_len)
        .map_err(|error| usage(error.to_string()))?;
    let lora = LoraConfig::new(options.rank, 16.0).with_targets(Targets::AllLinear);
    let mut model = AdapterOnly::new(attach(base, DEFAULT_NAME, &lora)?).train();

    let row =
        Example::new(vec![0; options.max_seq_len], 1).map_err(|error| usage(error.to_string()))?;
    let rows = vec![row; options.batch_size];
    let batches = [Batch::new(&rows, 0).to_device(&device.clone().autodiff())];
    let config = TrainConfig::default();
    let mut optimizer = optimizer(&model, &config);
    let mut seconds = [0.0; STEPS];
    for seconds in &mut seconds {
        let started = Instant::now();
        let (grads, _) = gradients(&model, &batches);
        model = adamw_together(|| optimizer.step(config.learning_rate, model, grads));
        device
            .sync()
            .map_err(|error| Failure::new(Kind::Device, error.to_string()))?;
        *seconds = started.elapsed().as_secs_f64();
    }
    Ok(seconds)
}
