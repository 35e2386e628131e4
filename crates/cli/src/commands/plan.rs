//! `burn-lora plan`: what a run will take, before anything is loaded.

use std::path::{Path, PathBuf};

use burn_lora::train::{
    Backend, DeviceChoice, Fit, ModelDtype, PartSettings, Plan, PlanOptions, Planner, RunConfig,
    measure_rate,
};
use burn_lora::transformer::{Gpt3Shape, LoadError, ModelConfig, inspect_folder};
use burn_lora_hub::Wanted;
use clap::Args;
use serde_json::json;

use super::train;
use crate::compute::Precision;
use crate::failure::{Failure, Kind};
use crate::output::Output;
use crate::source;
use crate::units::{bytes_text, parse_bytes, thousands};

/// The options of `plan`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PlanArguments {
    /// The configuration of a run; or a model: its folder, its name on the hub, or gpt3:125M to gpt3:175B
    #[arg(value_name = "CONFIG.yaml|MODEL")]
    pub place: String,

    /// Settings as those of `train`: rank=16, batch_size=4, max_seq_len=2048, recompute=16
    #[arg(value_name = "key=value")]
    pub settings: Vec<String>,

    /// Branch, tag or commit of a model on the hub
    #[arg(long, value_name = "NAME")]
    pub revision: Option<String>,

    /// The adapter's method, one of those of docs/methods.md
    #[arg(long, value_name = "WORD")]
    pub method: Option<String>,

    /// Number format of the base
    #[arg(long, value_enum)]
    pub dtype: Option<Precision>,

    /// The device: its memory pools are counted, and its speed is measured with products of matrices if it is here
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,

    /// The speed of the device in TFLOP/s, in place of a measurement
    #[arg(long, value_name = "N")]
    pub tflops: Option<f64>,

    /// The largest batch and length that fit into so much memory: 24GiB, 80GB
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub fit: Option<u64>,
}

const EXAMPLES: &str = "\
Counts and the size of the adapter are exact. Memory is an estimate by part (docs/measurements.md says how far off it
was where it was measured); the time is that of the matrix products alone, which a step takes at least.";

/// Runs the command.
pub fn run(arguments: &PlanArguments, output: &Output) -> Result<(), Failure> {
    let (config, model) = read(arguments)?;
    let lora = config.weights_config();
    let planner = Planner::with_parts(&model.config, lora.as_ref(), &config.adapter.parts())?;
    let backend = config.device.as_deref().map(backend).transpose()?;
    let mut options = PlanOptions {
        backend,
        ..PlanOptions::from(&config)
    };
    let longest = planner.anatomy().max_positions;
    if let Some(longest) = longest.filter(|longest| options.seq_len > *longest) {
        output.warn(&format!(
            "max_seq_len is {}, the model has {longest} positions{}, which are planned for",
            options.seq_len,
            match planner.parts().iter().any(|part| part.virtual_tokens > 0) {
                true => " beside the virtual tokens",
                false => "",
            }
        ));
        options.seq_len = longest;
    }
    options.flops_per_second = rate(arguments, &config, &options, output)?;
    let plan = planner.plan(&options);
    let fit = arguments.fit.map(|budget| planner.fit(&options, budget));

    let mut lines = lines(&plan, &config, &options, &model);
    if let Some(fit) = &fit {
        lines.extend(fit_lines(fit, &options));
    }
    let object = json!({
        "command": "plan",
        "model": config.model,
        "method": config.adapter.method,
        "beside": config.adapter.beside.iter().map(PartSettings::word).collect::<Vec<_>>(),
        "dtype": config.dtype,
        "batch_size": options.batch_size,
        "seq_len": options.seq_len,
        "grad_accumulation": options.grad_accumulation,
        "recompute": options.recompute,
        "device": config.device,
        "flops_per_second": options.flops_per_second,
        "checkpoint_bytes": model.bytes,
        "plan": plan,
        "fit": fit,
    });
    output.done(&lines, &object);
    Ok(())
}

/// What is known of a model.
struct Known {
    config: ModelConfig,
    /// Bytes of its weights on disk, if they are here.
    bytes: Option<u64>,
}

fn read(arguments: &PlanArguments) -> Result<(RunConfig, Known), Failure> {
    let set = |key: &str, value: &str| format!("{key}={}", json!(value));
    let mut settings = arguments.settings.clone();
    settings.extend(
        arguments
            .method
            .iter()
            .map(|word| set("adapter.method", word)),
    );
    settings.extend(arguments.device.iter().map(|name| set("device", name)));
    settings.extend(arguments.dtype.map(|dtype| set("dtype", dtype.name())));
    let place = arguments.place.as_str();
    if place.ends_with(".yaml") || place.ends_with(".yml") {
        let config = train::read(Path::new(place), &settings)?;
        let model = known(&config.model, config.revision.as_deref())?;
        return Ok((config, model));
    }
    let model = known(place, arguments.revision.as_deref())?;
    // The data are nothing that a plan looks at.
    settings.push(set("model", place));
    settings.push(set("data.path", "none"));
    Ok((RunConfig::parse("", &settings)?, model))
}

fn known(place: &str, revision: Option<&str>) -> Result<Known, Failure> {
    if let Some(size) = place.strip_prefix("gpt3:") {
        let config = ModelConfig::Decoder(Gpt3Shape::named(size)?.config());
        return Ok(Known {
            config,
            bytes: None,
        });
    }
    // Of the hub the configuration is enough.
    let folder: PathBuf = source::folder(place, revision, Wanted::Tokenizer)?;
    match inspect_folder(&folder) {
        Ok(report) => Ok(Known {
            bytes: Some(report.files.iter().map(|(_, bytes)| bytes).sum()),
            config: report.config,
        }),
        Err(LoadError::NoWeights { .. }) => Ok(Known {
            config: ModelConfig::read(&folder)?,
            bytes: None,
        }),
        Err(error) => Err(error.into()),
    }
}

/// The backend of a device, which may be another machine's.
fn backend(device: &str) -> Result<Backend, Failure> {
    let name = device.split(':').next().unwrap_or(device);
    let mut known = Backend::BY_PRIORITY.into_iter();
    match known.find(|backend| backend.name() == name) {
        Some(backend) => Ok(backend),
        // It says what there is.
        None => Ok(DeviceChoice::resolve(Some(device))?.backend()),
    }
}

/// Operations per second: those that are given, or those of a device that was named and is in this build.
fn rate(
    arguments: &PlanArguments,
    config: &RunConfig,
    options: &PlanOptions,
    output: &Output,
) -> Result<Option<f64>, Failure> {
    match (arguments.tflops, options.backend) {
        (Some(tflops), _) if tflops.is_finite() && tflops > 0.0 => Ok(Some(tflops * 1e12)),
        (Some(_), _) => Err(Failure::new(Kind::Usage, "--tflops must be above 0")),
        (None, Some(backend)) if backend.is_built() => {
            let device = DeviceChoice::resolve(config.device.as_deref())?.open()?;
            Ok(Some(measure_rate(&device, options.dtype)?.flops_per_second))
        }
        (None, Some(backend)) => {
            output.warn(&format!(
                "{} is not in this build, so that its speed cannot be measured; give --tflops",
                backend.name()
            ));
            Ok(None)
        }
        (None, None) => Ok(None),
    }
}

fn lines(plan: &Plan, config: &RunConfig, options: &PlanOptions, model: &Known) -> Vec<String> {
    let parameters = &plan.parameters;
    let share = 100.0 * parameters.trained as f64 / parameters.total.max(1) as f64;
    let dtype = match config.dtype {
        ModelDtype::F32 => "f32",
        ModelDtype::Bf16 => "bf16",
        ModelDtype::F16 => "f16",
    };
    let again = match options.recompute {
        0 => String::new(),
        blocks => format!(", {blocks} blocks computed again"),
    };
    let mut lines = vec![
        format!("model       {} ({})", config.model, plan.model_type),
        format!("adapter     {}", adapter_text(config, parameters.layers)),
        format!(
            "parameters  {} in the base, {} trained ({share:.4}%)",
            thousands(parameters.base as u64),
            thousands(parameters.trained as u64)
        ),
        format!(
            "on disk     {} for the adapter{}",
            bytes_text(plan.adapter_bytes),
            match model.bytes {
                Some(bytes) => format!(", {} for the base", bytes_text(bytes)),
                None => String::new(),
            }
        ),
        format!(
            "step        {} x {} tokens, {} times, {dtype}{again}",
            options.batch_size, options.seq_len, options.grad_accumulation
        ),
        format!(
            "memory      about {} at the peak",
            bytes_text(plan.memory.total)
        ),
    ];
    let parts = plan.memory.parts().into_iter();
    lines.extend(
        parts
            .filter(|(_, bytes)| *bytes > 0)
            .map(|(name, bytes)| format!("  {name:<12} {:>10}", bytes_text(bytes))),
    );
    lines.push(format!(
        "work        {:.3} TFLOP a step ({:.3} forward, {:.3} backward{})",
        plan.flops.total as f64 / 1e12,
        plan.flops.forward as f64 / 1e12,
        plan.flops.backward as f64 / 1e12,
        match plan.flops.recomputed {
            0 => String::new(),
            flops => format!(", {:.3} again", flops as f64 / 1e12),
        }
    ));
    lines.push(match (plan.seconds, options.flops_per_second) {
        (Some(seconds), Some(rate)) => format!(
            "time        at least {} a step at {:.3} TFLOP/s ({} tokens/s at most); an estimate",
            seconds_text(seconds),
            rate / 1e12,
            thousands((plan.tokens as f64 / seconds) as u64)
        ),
        _ => "time        unknown: give --tflops, or a --device of this machine to be measured"
            .into(),
    });
    lines
}

/// The methods, each with how much of it there is.
fn adapter_text(config: &RunConfig, layers: usize) -> String {
    let adapter = &config.adapter;
    let on_weights = format!(
        "{} on {layers} layers, rank {}",
        adapter.method, adapter.rank
    );
    let own = adapter.is_on_weights().then_some(on_weights);
    let parts = adapter.parts().into_iter().map(|part| part.to_string());
    let methods: Vec<String> = own.into_iter().chain(parts).collect();
    methods.join("; ")
}

fn fit_lines(fit: &Fit, options: &PlanOptions) -> Vec<String> {
    let mut lines = vec![format!(
        "fits        into {}: {} rows of {} tokens, or {} rows of {} tokens",
        bytes_text(fit.budget),
        fit.batch_size,
        options.seq_len,
        options.batch_size,
        fit.seq_len
    )];
    lines.push("  tokens a row   rows   rows if all blocks are computed again".to_string());
    lines.extend(fit.lengths.iter().map(|at| {
        format!(
            "  {:>12} {:>6}   {:>6}",
            at.seq_len, at.batch_size, at.batch_size_recomputed
        )
    }));
    lines
}

fn seconds_text(seconds: f64) -> String {
    match seconds < 1.0 {
        true => format!("{:.1} ms", seconds * 1e3),
        false => format!("{seconds:.2} s"),
    }
}
