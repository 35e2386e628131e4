use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn_lora_adapter::peft::PeftMetadata;
use burn_lora_adapter::{AdapterError, DEFAULT_NAME, Evidence, changes, summary};
use burn_lora_data::{DataError, Progress, RowFormat};
use burn_lora_transformer::{
    ConfigError, LoadError, LoadOptions, PartError, WithParts, adapter_folders,
};
use serde::Serialize;

use super::attach::Adapters;
use super::config::RunConfig;
use super::data::{RunData, RunPart};
use super::job::{Job, with_job};
use super::same::check_same;
use super::task::{TaskKind, choose};
use crate::data::TaskData;
use crate::device::{DeviceChoice, DeviceError, require_dtype};
use crate::error::TrainError;
use crate::evaluate::Completion;
use crate::facts::{FACTS_FILE, peak_memory_bytes, read_facts};
use crate::initialize::{evidence, needs_gradients};
use crate::observer::Observer;
use crate::plan::PlanError;
use crate::recipe::{Learned, finetune_learned, resume_facts};
use crate::report::{REPORT_FILE, Report};
use crate::samples::{SAMPLES_FILE, read_samples};
use crate::stop::Stopped;
use crate::task::{Task, lies_in};

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunResult {
    /// Mean loss of the last interval between validations; nothing if no step was left to do.
    pub train_loss: Option<f64>,
    /// Mean loss of the validation examples at the end.
    pub valid_loss: Option<f64>,
    /// What was measured at the end: `loss`, and what the task measures; of a language `perplexity`, and of what was written
    /// `exact_match`, `bleu` and `rouge_l`.
    pub metrics: BTreeMap<String, f64>,
    /// Optimizer steps, those before a resumed run included.
    pub steps: usize,
    /// Steps of the adapter: fewer than `steps` where the best is kept.
    pub adapter_steps: usize,
    /// Why the run ended before its last step, if it did: `asked`, `dashboard`, `max_minutes`, `max_tokens` or `patience`.
    pub stopped: Option<String>,
    /// Tokens trained on, without padding, those before a resumed run included.
    pub tokens: usize,
    /// Tokens among them that were learned.
    pub learned_tokens: usize,
    /// Of the training steps.
    pub tokens_per_second: f64,
    /// From the first step to the last.
    pub seconds: f64,
    /// The most memory that the process had, where the system tells (Linux); a GPU's is not in it.
    pub peak_memory_bytes: Option<u64>,
    /// The PEFT folder; nothing if the run was asked to stop and left a checkpoint.
    pub adapter: Option<PathBuf>,
    /// The last checkpoint, if there is any.
    pub checkpoint: Option<PathBuf>,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The data or the tokenizer.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The base.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The base's configuration.
    #[error(transparent)]
    Model(#[from] ConfigError),
    /// The adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// A method beside the weights, or an adapter's folder.
    #[error(transparent)]
    Part(#[from] PartError),
    /// What the adapter would come to on this model.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The training.
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// Who is told how a run goes.
pub struct RunWatcher<'a> {
    /// Of each part as it begins: a name and a fact.
    pub tell: &'a mut dyn FnMut(&str, &str),
    /// Rows tokenized, of all.
    pub tokenized: Progress<'a>,
    /// The training, and who may stop it.
    pub observer: Observer,
}

/// Does what a configuration says: reads the data, loads the base of `folder`, attaches an adapter, trains it, measures
/// it, and writes it to `output/adapter` with the whole configuration beside it, in `output/config.yaml`.
///
/// If somebody asks it to stop ([`Observer::until`]), it leaves a checkpoint, or the adapter where checkpoints are off, and
/// measures nothing.
///
/// # Errors
/// Whatever can be wrong with one of these. Everything that can be checked is, before the base is loaded.
pub fn run(
    config: &RunConfig,
    folder: &Path,
    watcher: RunWatcher<'_>,
) -> Result<RunResult, RunError> {
    let faults = config.faults();
    if !faults.is_empty() {
        return Err(TrainError::Config { faults }.into());
    }
    let chosen = choose(config, folder)?;
    with_job!(chosen, run_as(config, folder, chosen.task, watcher))
}

fn run_as<J: Job>(
    config: &RunConfig,
    folder: &Path,
    task: TaskKind,
    watcher: RunWatcher<'_>,
) -> Result<RunResult, RunError> {
    let RunWatcher {
        tell,
        tokenized,
        observer,
    } = watcher;
    let started = Instant::now();
    let choice = DeviceChoice::resolve(config.device.as_deref())?;
    let device = choice.open()?;
    require_dtype(choice, &device, config.dtype.into())?;
    device.seed(config.training.seed);
    tell("device", &choice.to_string());
    tell("task", task.name());

    let mut adapters = Adapters::read(config, folder)?;
    let (job, data) = J::read(config, task, folder, tokenized)?;
    tell_of(&data, tell);
    check_same(config)?;
    if !job.classes().is_empty() {
        tell("labels", &job.classes().join(", "));
    }
    let sampler = job.sampler(config, &data)?;
    let written = settled(config, task, job.classes()).to_yaml();
    write(&config.output.join("config.yaml"), &written)?;

    let load = |recompute| {
        let config = RunConfig {
            recompute,
            ..config.clone()
        };
        let options = LoadOptions::new(config.dtype.into(), device.clone());
        job.load(&config, folder, options)
    };
    let training = config.train_config();
    // Blocks that are computed again give gradients to adapters only.
    let is_shown_whole =
        config.recompute > 0 && adapters.lora.as_ref().is_some_and(needs_gradients);
    let mut base = load(if is_shown_whole { 0 } else { config.recompute })?;
    let task = job.task(&base);
    let saved_modules = task.saved_modules().to_vec();
    let mut seen = Evidence::default();
    if let Some(lora) = &mut adapters.lora {
        lora.modules_to_save = saved_modules.clone();
        let batches = config.adapter.initialization_batches;
        seen = evidence(&base, lora, &task, &data.train, &training, batches)?;
    }
    if is_shown_whole {
        // One at a time in memory.
        drop(base);
        base = load(config.recompute)?;
    }
    let fan_in_fan_out = J::fan_in_fan_out(&base);
    let (model, attached) = adapters.attach(base, &saved_modules, &seen)?;
    // The last line of the table, which has the sums.
    let table = summary(&model).to_string();
    tell("adapter", table.lines().last().unwrap_or(""));

    let RunData {
        train,
        valid,
        test,
        format,
        parts,
    } = data;
    for fact in resume_facts(&training, &train, &valid)? {
        let name = match fact.starts_with("left out") {
            true => "warning",
            false => "resume",
        };
        tell(name, &fact);
    }
    let learned = Learned {
        data: TaskData { train, valid },
        stream: job.stream(config)?,
    };
    let trained = finetune_learned(model, &task, &training, learned, sampler, observer)?;
    if let Some(stopped) = trained.stopped {
        tell(
            "stopped",
            &format!("after step {}: {stopped}", trained.steps),
        );
    }
    if trained.model_step < trained.steps {
        tell(
            "best",
            &format!("the parameters after step {}", trained.model_step),
        );
    }
    let mut result = RunResult {
        train_loss: trained.train_loss,
        valid_loss: trained.valid_loss,
        metrics: BTreeMap::new(),
        steps: trained.steps,
        adapter_steps: trained.model_step,
        stopped: trained.stopped.map(|stopped| stopped.to_string()),
        tokens: trained.tokens,
        learned_tokens: trained.learned_tokens,
        tokens_per_second: trained.tokens_per_second,
        seconds: trained.seconds,
        peak_memory_bytes: None,
        adapter: None,
        checkpoint: trained.checkpoint.clone(),
    };
    let is_hurry = trained.stopped.is_some_and(Stopped::is_hurry);
    if is_hurry && let Some(checkpoint) = &trained.checkpoint {
        tell("saved", &checkpoint.display().to_string());
        result.peak_memory_bytes = peak_memory_bytes();
        return Ok(result);
    }

    let adapter = config.output.join("adapter");
    let metadata = PeftMetadata {
        base_model_name_or_path: Some(config.model.clone()),
        task_type: Some(J::PEFT.into()),
        fan_in_fan_out,
        ..PeftMetadata::default()
    };
    let bytes = attached.save(&trained.model, &adapter, &metadata)?;
    tell("saved", &format!("{} ({bytes} bytes)", adapter.display()));

    let data = RunData {
        train: Vec::new(),
        valid: Vec::new(),
        test,
        format,
        parts,
    };
    let mut samples = Vec::new();
    if !data.test.is_empty() && !is_hurry {
        let measured = job.measure(config, &trained.model, &data)?;
        samples = measured.completions;
        let metrics = finite(measured.metrics);
        let told: Vec<String> = metrics
            .iter()
            .map(|(name, value)| format!("{name} {value:.4}"))
            .collect();
        tell(
            "measured",
            &format!("{} on {} rows", told.join(", "), data.test.len()),
        );
        result.metrics = metrics;
    }
    tell("took", &format!("{:.1} s", started.elapsed().as_secs_f64()));
    result.peak_memory_bytes = peak_memory_bytes();
    result.adapter = Some(adapter);
    // What the run is for is there; a page that cannot be written is no reason to fail.
    let facts = read_facts(&config.output.join("logs").join(FACTS_FILE)).unwrap_or_default();
    let made = read_samples(&config.output.join("logs").join(SAMPLES_FILE)).unwrap_or_default();
    let report = Report {
        config,
        result: &result,
        device: &choice.to_string(),
        facts: &facts,
        parts: &data.parts,
        samples: &samples,
        made: &made,
        changes: &changes(&trained.model, DEFAULT_NAME),
    };
    let page = config.output.join(REPORT_FILE);
    match write(&page, &report.html()) {
        Ok(()) => tell("report", &page.display().to_string()),
        Err(error) => tell("warning", &format!("no report: {error}")),
    }
    Ok(result)
}

/// Without the metrics that these rows leave undefined, as a correlation with a constant is.
fn finite(metrics: BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let is_finite = |(_, value): &(String, f64)| value.is_finite();
    metrics.into_iter().filter(is_finite).collect()
}

/// The configuration with what it left to the rows and the model, so that another evaluation needs neither.
fn settled(config: &RunConfig, task: TaskKind, classes: &[String]) -> RunConfig {
    let mut config = config.clone();
    config.task = Some(task);
    if !classes.is_empty() {
        config.data.labels = Some(classes.to_vec());
    }
    config
}

/// What a model knows of a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct RunEvaluation {
    /// What was evaluated.
    pub task: TaskKind,
    /// `loss`, and what the task measures.
    pub metrics: BTreeMap<String, f64>,
    /// Rows of the test set, or of the validation set without one.
    pub rows: usize,
    /// Tokens, rows or pairs that the loss is a mean over.
    pub learned: usize,
    /// The prompts that were completed, of a decoder.
    pub completions: Vec<Completion>,
}

/// Evaluates the model of a configuration, with an adapter or bare, on its test set, or on its validation set without one.
///
/// # Errors
/// As for [`run`]; a head that neither the model's folder nor the adapter holds.
pub fn evaluate_run(
    config: &RunConfig,
    folder: &Path,
    adapter: Option<&Path>,
    tokenized: Progress<'_>,
) -> Result<RunEvaluation, RunError> {
    let chosen = choose(config, folder)?;
    with_job!(
        chosen,
        evaluate_as(config, folder, chosen.task, adapter, tokenized)
    )
}

fn evaluate_as<J: Job>(
    config: &RunConfig,
    folder: &Path,
    task: TaskKind,
    adapter: Option<&Path>,
    tokenized: Progress<'_>,
) -> Result<RunEvaluation, RunError> {
    let choice = DeviceChoice::resolve(config.device.as_deref())?;
    let device = choice.open()?;
    require_dtype(choice, &device, config.dtype.into())?;
    let (job, data) = J::read(config, task, folder, tokenized)?;
    let load = LoadOptions::new(config.dtype.into(), device);
    let mut model = job.load(config, folder, load)?;
    check_head(folder, J::fresh(&model), adapter)?;
    if let Some(adapter) = adapter {
        model = model.load_adapters(adapter)?;
    }
    let found = job.measure(config, &model, &data)?;
    Ok(RunEvaluation {
        task,
        metrics: finite(found.metrics),
        rows: data.test.len(),
        learned: found.learned,
        completions: found.completions,
    })
}

/// Refuses a head that knows nothing: the folder does not hold it, nor does the adapter.
fn check_head(folder: &Path, fresh: &[String], adapter: Option<&Path>) -> Result<(), RunError> {
    let adapters = adapter.map(adapter_folders).transpose()?.into_iter();
    let saved = adapters
        .flatten()
        .flat_map(|adapter| adapter.modules_to_save);
    let saved: Vec<String> = saved.collect();
    let unknown: Vec<&str> = fresh
        .iter()
        .filter(|parameter| !lies_in(parameter, &saved))
        .map(String::as_str)
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let fault = format!(
        "{} has no trained head for this task, nor has the adapter: {} would be random",
        folder.display(),
        unknown.join(", ")
    );
    Err(TrainError::Config {
        faults: vec![fault],
    }
    .into())
}

/// What a configuration comes to before anything is loaded.
#[derive(Debug)]
pub struct RunPreview {
    /// What would be learned.
    pub task: TaskKind,
    /// The format of the training rows.
    pub format: RowFormat,
    /// The names of the classes, by number, where there are such.
    pub labels: Vec<String>,
    /// What was read.
    pub parts: Vec<RunPart>,
    /// Examples to learn, to validate with, and to measure at the end.
    pub examples: [usize; 3],
}

/// Reads the data of a configuration as [`run`] would.
///
/// # Errors
/// As for [`run`].
pub fn preview(
    config: &RunConfig,
    folder: &Path,
    tokenized: Progress<'_>,
) -> Result<RunPreview, RunError> {
    let chosen = choose(config, folder)?;
    with_job!(chosen, preview_as(config, folder, chosen.task, tokenized))
}

fn preview_as<J: Job>(
    config: &RunConfig,
    folder: &Path,
    task: TaskKind,
    tokenized: Progress<'_>,
) -> Result<RunPreview, RunError> {
    Adapters::read(config, folder)?;
    let (job, data) = J::read(config, task, folder, tokenized)?;
    Ok(RunPreview {
        task,
        format: data.format,
        labels: job.classes().to_vec(),
        examples: [data.train.len(), data.valid.len(), data.test.len()],
        parts: data.parts,
    })
}

fn tell_of<E>(data: &RunData<E>, tell: &mut dyn FnMut(&str, &str)) {
    for part in &data.parts {
        let cached = if part.was_cached {
            ", from the cache"
        } else {
            ""
        };
        tell(part.name, &format!("{}{cached}", part.report));
        // Rows that were cut have lost their end, which is told already.
        let no_end = part.report.without_end;
        if no_end > part.report.truncated {
            let fact = format!("{no_end} examples end without a token that ends generation");
            tell("warning", &fact);
        }
        if let Some(warning) = &part.warning {
            tell("warning", warning);
        }
    }
    tell(
        "split",
        &format!(
            "{} to learn, {} to validate with, {} to measure at the end",
            data.train.len(),
            data.valid.len(),
            data.test.len()
        ),
    );
}

/// Writes a file to the side, then gives it its name.
fn write(path: &Path, text: &str) -> Result<(), TrainError> {
    let partial = path.with_extension("partial");
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    let written = folder
        .and_then(|()| fs::write(&partial, text))
        .and_then(|()| fs::rename(&partial, path));
    written.map_err(|source| TrainError::Io {
        path: path.into(),
        source,
    })
}
