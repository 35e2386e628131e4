use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn_lora_adapter::peft::{self, PeftMetadata};
use burn_lora_adapter::{AdapterError, DEFAULT_NAME, attach, changes, summary};
use burn_lora_data::{DataError, Progress, RowFormat, check_vocab};
use burn_lora_transformer::{Decoder, LoadError, LoadOptions};
use serde::Serialize;

use super::config::RunConfig;
use super::data::{RunData, read_data, read_tokenizer};
use crate::data::TrainData;
use crate::device::{DeviceChoice, DeviceError, require_dtype};
use crate::error::TrainError;
use crate::evaluate::{EvaluateOptions, evaluate};
use crate::facts::{FACTS_FILE, peak_memory_bytes, read_facts};
use crate::observer::Observer;
use crate::recipe::finetune;
use crate::report::{REPORT_FILE, Report};

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunResult {
    /// Mean loss of the last interval between validations; nothing if no step was left to do.
    pub train_loss: Option<f64>,
    /// Mean loss of the validation examples at the end.
    pub valid_loss: Option<f64>,
    /// What was measured at the end: `loss`, `perplexity`, and `exact_match` of completed prompts.
    pub metrics: BTreeMap<String, f64>,
    /// Optimizer steps, those before a resumed run included.
    pub steps: usize,
    /// Tokens trained on, without padding.
    pub tokens: usize,
    /// Of the training steps.
    pub tokens_per_second: f64,
    /// From the first step to the last.
    pub seconds: f64,
    /// The most memory that the process had, where the system tells (Linux); a GPU's is not in it.
    pub peak_memory_bytes: Option<u64>,
    /// The PEFT folder.
    pub adapter: PathBuf,
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
    /// The adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
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
    /// The training.
    pub observer: Observer,
}

/// Does what a configuration says: reads the data, loads the base of `folder`, attaches an adapter, trains it, measures
/// it, and writes it to `output/adapter` with the whole configuration beside it, in `output/config.yaml`.
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

    let tokenizer = read_tokenizer(config, folder)?;
    let data = read_data(config, &tokenizer, tokenized)?;
    tell_of(&data, tell);
    write(&config.output.join("config.yaml"), &config.to_yaml())?;

    let load = LoadOptions::new(config.dtype.into(), device);
    let base = Decoder::load(folder, &load)?.with_recompute(config.recompute);
    for part in [&data.train, &data.valid, &data.test] {
        check_vocab(part, &tokenizer, base.vocab_size())?;
    }
    let lora = config.lora_config();
    let fan_in_fan_out = base.config().fan_in_fan_out();
    let model = attach(base, DEFAULT_NAME, &lora)?;
    // The last line of the table, which has the sums.
    let table = summary(&model).to_string();
    tell("adapter", table.lines().last().unwrap_or(""));

    let train_data = TrainData {
        train: data.train,
        valid: data.valid,
        pad: tokenizer.pad(),
    };
    let trained = finetune(model, &config.train_config(), train_data, observer)?;

    let adapter = config.output.join("adapter");
    let metadata = PeftMetadata {
        base_model_name_or_path: Some(config.model.clone()),
        fan_in_fan_out,
        ..PeftMetadata::default()
    };
    let bytes = peft::save(&trained.model, DEFAULT_NAME, &lora, &metadata, &adapter)?;
    tell("saved", &format!("{} ({bytes} bytes)", adapter.display()));

    let mut metrics = BTreeMap::new();
    let mut samples = Vec::new();
    if !data.test.is_empty() {
        let options = EvaluateOptions {
            batch_size: config.training.batch_size,
            generate: config
                .evaluation
                .generate
                .unwrap_or(data.format == RowFormat::PromptCompletion),
        };
        let found = evaluate(&trained.model, &tokenizer, &data.test, &options)?;
        samples = found.completions;
        metrics.insert("loss".to_string(), found.loss);
        metrics.insert("perplexity".to_string(), found.perplexity);
        metrics.extend(
            found
                .exact_match
                .map(|share| ("exact_match".to_string(), share)),
        );
        let told: Vec<String> = metrics
            .iter()
            .map(|(name, value)| format!("{name} {value:.4}"))
            .collect();
        tell(
            "measured",
            &format!("{} on {} rows", told.join(", "), data.test.len()),
        );
    }
    tell("took", &format!("{:.1} s", started.elapsed().as_secs_f64()));
    let result = RunResult {
        train_loss: trained.train_loss,
        valid_loss: trained.valid_loss,
        metrics,
        steps: trained.steps,
        tokens: trained.tokens,
        tokens_per_second: trained.tokens_per_second,
        seconds: trained.seconds,
        peak_memory_bytes: peak_memory_bytes(),
        adapter,
    };
    // What the run is for is there; a page that cannot be written is no reason to fail.
    let facts = read_facts(&config.output.join("logs").join(FACTS_FILE)).unwrap_or_default();
    let report = Report {
        config,
        result: &result,
        device: &choice.to_string(),
        facts: &facts,
        parts: &data.parts,
        samples: &samples,
        changes: &changes(&trained.model, DEFAULT_NAME),
    };
    let page = config.output.join(REPORT_FILE);
    match write(&page, &report.html()) {
        Ok(()) => tell("report", &page.display().to_string()),
        Err(error) => tell("warning", &format!("no report: {error}")),
    }
    Ok(result)
}

fn tell_of(data: &RunData, tell: &mut dyn FnMut(&str, &str)) {
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
