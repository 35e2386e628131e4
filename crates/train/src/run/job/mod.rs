//! What each task makes of a configuration: its data, its model and what is measured at the end.

mod causal;
mod masked;
mod preference;
mod seq2seq;
mod sequence;
mod tagging;

use std::collections::BTreeMap;
use std::path::Path;

use burn_lora_data::Progress;
use burn_lora_transformer::{FolderOptions, LoadOptions, ModelConfig, WithParts};

pub(crate) use causal::CausalJob;
pub(crate) use masked::MaskedJob;
pub(crate) use preference::PreferenceJob;
pub(crate) use seq2seq::Seq2SeqJob;
pub(crate) use sequence::{ClassificationJob, RegressionJob};
pub(crate) use tagging::TaggingJob;

use super::config::RunConfig;
use super::data::RunData;
use super::execute::RunError;
use super::task::{ModelKind, TaskKind};
use crate::error::TrainError;
use crate::evaluate::{Completion, evaluate_task};
use crate::samples::Sampler;
use crate::source::ExampleSource;
use crate::task::Task;

/// The examples of a job.
pub(crate) type Examples<J> = RunData<<<J as Job>::Task as Task<<J as Job>::Model>>::Example>;

/// Examples of a job that are not all in memory.
pub(crate) type Stream<J> =
    Box<dyn ExampleSource<<<J as Job>::Task as Task<<J as Job>::Model>>::Example>>;

/// A task with all that it needs of files.
pub(crate) trait Job: Sized {
    /// The model.
    type Model: WithParts + 'static;
    /// What it learns.
    type Task: Task<Self::Model>;

    /// PEFT's name of the task.
    const PEFT: &'static str;

    /// Reads the data, and what else stands beside the weights.
    fn read(
        config: &RunConfig,
        task: TaskKind,
        folder: &Path,
        progress: Progress<'_>,
    ) -> Result<(Self, Examples<Self>), RunError>;

    /// Loads the base.
    fn load(
        &self,
        config: &RunConfig,
        folder: &Path,
        options: LoadOptions,
    ) -> Result<Self::Model, RunError>;

    /// The task of a model without an adapter.
    fn task(&self, model: &Self::Model) -> Self::Task;

    /// Whether the checkpoint has the weights of linear layers `[in, out]`.
    fn fan_in_fan_out(_model: &Self::Model) -> bool {
        false
    }

    /// The parameters of a head that the folder did not hold.
    fn fresh(_model: &Self::Model) -> &[String] {
        &[]
    }

    /// The names of the classes, by number.
    fn classes(&self) -> &[String] {
        &[]
    }

    /// The training examples, where they are not read beforehand.
    fn stream(&self, config: &RunConfig) -> Result<Option<Stream<Self>>, RunError> {
        match config.data.stream {
            false => Ok(None),
            true => Err(TrainError::Config {
                faults: vec!["data.stream is for tasks that predict the next token".into()],
            }
            .into()),
        }
    }

    /// What completes the prompts of a run after each validation, if that is asked for.
    fn sampler(
        &self,
        config: &RunConfig,
        _data: &Examples<Self>,
    ) -> Result<Option<Sampler<Self::Model>>, RunError> {
        match config.evaluation.samples {
            0 => Ok(None),
            _ => Err(fault(
                "evaluation.samples is for decoders that complete prompts",
            )),
        }
    }

    /// Measures a model on the examples that are kept for the end.
    fn measure(
        &self,
        config: &RunConfig,
        model: &Self::Model,
        data: &Examples<Self>,
    ) -> Result<Measured, RunError> {
        let task = self.task(model);
        let batch_size = config.training.batch_size;
        let found = evaluate_task(model, &task, &data.test, batch_size)?;
        Ok(Measured {
            metrics: found.metrics,
            learned: found.counts.learned,
            completions: Vec::new(),
        })
    }
}

/// What was measured at the end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) metrics: BTreeMap<String, f64>,
    /// Tokens, rows or pairs that the loss is a mean over.
    pub(crate) learned: usize,
    /// Of a decoder that completes prompts.
    pub(crate) completions: Vec<Completion>,
}

/// Calls a function of a job with the job that a task and its model need.
macro_rules! with_job {
    ($chosen:expr, $run:ident($($argument:expr),*)) => {{
        use $crate::run::job::{
            CausalJob, ClassificationJob, MaskedJob, PreferenceJob, RegressionJob, Seq2SeqJob,
            TaggingJob,
        };
        use $crate::run::task::{ModelKind, TaskKind};
        use burn_lora_transformer::{DecoderClassifier, SequenceClassifier};
        match ($chosen.task, $chosen.model) {
            (TaskKind::Causal | TaskKind::Chat, _) => $run::<CausalJob>($($argument),*),
            (TaskKind::Classification, ModelKind::Decoder) => {
                $run::<ClassificationJob<DecoderClassifier>>($($argument),*)
            }
            (TaskKind::Classification, _) => {
                $run::<ClassificationJob<SequenceClassifier>>($($argument),*)
            }
            (TaskKind::Regression, ModelKind::Decoder) => {
                $run::<RegressionJob<DecoderClassifier>>($($argument),*)
            }
            (TaskKind::Regression, _) => $run::<RegressionJob<SequenceClassifier>>($($argument),*),
            (TaskKind::Tagging, _) => $run::<TaggingJob>($($argument),*),
            (TaskKind::Masked, _) => $run::<MaskedJob>($($argument),*),
            (TaskKind::Seq2seq, _) => $run::<Seq2SeqJob>($($argument),*),
            (TaskKind::Dpo | TaskKind::Ipo | TaskKind::Orpo, _) => {
                $run::<PreferenceJob>($($argument),*)
            }
        }
    }};
}
pub(crate) use with_job;

/// How a model with a head of so many labels is loaded.
fn with_head(config: &RunConfig, load: LoadOptions, labels: Option<usize>) -> FolderOptions {
    FolderOptions {
        num_labels: labels,
        seed: config.training.seed,
        load,
    }
}

/// The names of the classes that are known before the rows are read: those of the configuration, or of a checkpoint that has
/// been trained to tell them apart.
fn known_classes(
    config: &RunConfig,
    folder: &Path,
    class: &str,
) -> Result<Option<Vec<String>>, RunError> {
    if let Some(labels) = &config.data.labels {
        return Ok(Some(labels.clone()));
    }
    let model = ModelConfig::read(folder)?;
    let is_trained = model
        .architecture()
        .is_some_and(|name| name.ends_with(class));
    let names = model.label_names().unwrap_or_default();
    // Names that say nothing are those of a library.
    let is_named = names.iter().any(|name| !name.starts_with("LABEL_"));
    Ok((is_trained && is_named).then_some(names))
}

/// A fault of what was read.
fn fault(text: impl Into<String>) -> RunError {
    TrainError::Config {
        faults: vec![text.into()],
    }
    .into()
}

/// Refuses a setting that models of a kind do not have.
fn no_recompute(config: &RunConfig, model: ModelKind) -> Result<(), RunError> {
    match config.recompute > 0 && model == ModelKind::EncoderDecoder {
        true => Err(fault(
            "recompute is not built for encoder-decoders: leave it out",
        )),
        false => Ok(()),
    }
}
