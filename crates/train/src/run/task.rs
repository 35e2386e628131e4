use std::fmt;
use std::path::Path;

use burn_lora_data::{Label, Row, RowFormat, RowStream, StreamOptions, read_files};
use burn_lora_transformer::ModelConfig;
use serde::{Deserialize, Serialize};

use super::config::RunConfig;
use super::data::find;
use super::execute::RunError;
use crate::error::TrainError;

/// What a run learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// The next token of texts, and completions of prompts; a decoder.
    Causal,
    /// The assistant's turns of conversations; a decoder.
    Chat,
    /// A class of each text, or pair of texts; an encoder or a decoder.
    Classification,
    /// A number for each text, or pair of texts; an encoder or a decoder.
    Regression,
    /// A tag for each word; an encoder.
    Tagging,
    /// Hidden tokens of texts; an encoder.
    Masked,
    /// Completions of prompts; an encoder-decoder.
    Seq2seq,
    /// Preferences by DPO; a decoder.
    #[serde(alias = "preference")]
    Dpo,
    /// Preferences by IPO; a decoder.
    Ipo,
    /// Preferences by ORPO; a decoder.
    Orpo,
}

/// Kinds of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ModelKind {
    Decoder,
    Encoder,
    EncoderDecoder,
}

impl ModelKind {
    pub(crate) fn of(config: &ModelConfig) -> Self {
        match config {
            ModelConfig::Encoder(_) => Self::Encoder,
            ModelConfig::T5(_) => Self::EncoderDecoder,
            _ => Self::Decoder,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Decoder => "a decoder",
            Self::Encoder => "an encoder",
            Self::EncoderDecoder => "an encoder-decoder",
        }
    }
}

use ModelKind::{Decoder, Encoder, EncoderDecoder};

impl TaskKind {
    /// All.
    pub const ALL: [Self; 10] = [
        Self::Causal,
        Self::Chat,
        Self::Classification,
        Self::Regression,
        Self::Tagging,
        Self::Masked,
        Self::Seq2seq,
        Self::Dpo,
        Self::Ipo,
        Self::Orpo,
    ];

    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Causal => "causal",
            Self::Chat => "chat",
            Self::Classification => "classification",
            Self::Regression => "regression",
            Self::Tagging => "tagging",
            Self::Masked => "masked",
            Self::Seq2seq => "seq2seq",
            Self::Dpo => "dpo",
            Self::Ipo => "ipo",
            Self::Orpo => "orpo",
        }
    }

    /// The formats of rows that it learns from, and the models that it is for.
    fn needs(self) -> (&'static [RowFormat], &'static [ModelKind]) {
        use RowFormat::{
            Alpaca, Classification, Messages, Preference, PromptCompletion, Sharegpt, Tagging, Text,
        };
        match self {
            Self::Causal => (&[Text, PromptCompletion], &[Decoder]),
            Self::Chat => (&[Messages, Alpaca, Sharegpt, PromptCompletion], &[Decoder]),
            Self::Classification | Self::Regression => (&[Classification], &[Encoder, Decoder]),
            Self::Tagging => (&[Tagging], &[Encoder]),
            Self::Masked => (&[Text], &[Encoder]),
            Self::Seq2seq => (&[PromptCompletion], &[EncoderDecoder]),
            Self::Dpo | Self::Ipo | Self::Orpo => (&[Preference], &[Decoder]),
        }
    }

    /// Whether models of a kind do it with rows of a format.
    fn fits(self, format: RowFormat, model: ModelKind) -> bool {
        let (formats, models) = self.needs();
        formats.contains(&format) && models.contains(&model)
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The task of a run, with the kind of its model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chosen {
    pub(crate) task: TaskKind,
    pub(crate) model: ModelKind,
}

/// The task that is asked for; otherwise the one that the rows and the model leave.
///
/// # Errors
/// [`TrainError::Config`] with what would work, where the rows, the model and the task do not go together.
pub(crate) fn choose(config: &RunConfig, folder: &Path) -> Result<Chosen, RunError> {
    let read = ModelConfig::read(folder)?;
    let model = ModelKind::of(&read);
    let format = first_format(config)?;
    let says = |problem: &str| read.problem_type() == Some(problem);
    let task = match config.task {
        Some(asked) => asked,
        None => match infer(format, model) {
            Some(TaskKind::Classification) if says("multi_label_classification") => {
                let fault = format!(
                    "{} gives a row several labels (problem_type), which is not built; task: classification trains it to give one",
                    folder.display()
                );
                return Err(TrainError::Config {
                    faults: vec![fault],
                }
                .into());
            }
            Some(TaskKind::Classification) if says("regression") || has_values(config)? => {
                TaskKind::Regression
            }
            Some(task) => task,
            None => return Err(refused(None, format, model)),
        },
    };
    match task.fits(format, model) {
        true => Ok(Chosen { task, model }),
        false => Err(refused(Some(task), format, model)),
    }
}

/// The first task that fits.
fn infer(format: RowFormat, model: ModelKind) -> Option<TaskKind> {
    TaskKind::ALL
        .into_iter()
        .find(|task| task.fits(format, model))
}

fn refused(task: Option<TaskKind>, format: RowFormat, model: ModelKind) -> RunError {
    let (rows, kind) = (format.columns(), model.name());
    let mut fault = match task {
        Some(task) => format!("task: {task} does not go with rows of {rows} and {kind}"),
        None => format!("nothing is learned from rows of {rows} by {kind}"),
    };
    let fitting: Vec<&str> = TaskKind::ALL
        .into_iter()
        .filter(|task| task.fits(format, model))
        .map(TaskKind::name)
        .collect();
    if !fitting.is_empty() {
        fault.push_str(&format!("; with these, {} would", fitting.join(", ")));
    }
    if let Some(task) = task {
        let (formats, models) = task.needs();
        let formats: Vec<&str> = formats.iter().map(|format| format.columns()).collect();
        let models: Vec<&str> = models.iter().map(|model| model.name()).collect();
        let (formats, models) = (formats.join(", or "), models.join(" or "));
        fault.push_str(&format!("; {task} wants rows of {formats}, and {models}"));
    } else if fitting.is_empty() {
        let others = TaskKind::ALL
            .into_iter()
            .filter(|task| task.needs().0.contains(&format));
        let others: Vec<String> = others
            .map(|task| {
                let models: Vec<&str> = task.needs().1.iter().map(|model| model.name()).collect();
                format!("{} ({task})", models.join(" or "))
            })
            .collect();
        fault.push_str(&format!("; such rows are for {}", others.join(", ")));
    }
    TrainError::Config {
        faults: vec![fault],
    }
    .into()
}

/// The format of the first training row.
fn first_format(config: &RunConfig) -> Result<RowFormat, RunError> {
    if let Some(format) = config.data.format {
        return Ok(format);
    }
    let files = find(config)?.train;
    let options = StreamOptions {
        read: config.read_options(),
        buffer: 1,
        ..StreamOptions::default()
    };
    // Files that are no streams, and faulty ones, are read as a whole, which tells every fault.
    let first = RowStream::open(&files, options).ok();
    match first.and_then(|mut rows| rows.next()) {
        Some(Ok(first)) => Ok(first.row.format()),
        _ => Ok(read_files(&files, &config.read_options())?.format()),
    }
}

/// Whether the labels are values to predict and no classes.
fn has_values(config: &RunConfig) -> Result<bool, RunError> {
    let rows = read_files(&find(config)?.train, &config.read_options())?;
    let is_value = |row: &Row| {
        matches!(
            row,
            Row::Classification {
                label: Label::Value(_),
                ..
            }
        )
    };
    Ok(rows.iter().any(|(_, row)| is_value(row)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_models_leave_one_task() {
        for (format, model, task) in [
            (RowFormat::Text, Decoder, Some(TaskKind::Causal)),
            (RowFormat::Text, Encoder, Some(TaskKind::Masked)),
            (RowFormat::Text, EncoderDecoder, None),
            (RowFormat::PromptCompletion, Decoder, Some(TaskKind::Causal)),
            (
                RowFormat::PromptCompletion,
                EncoderDecoder,
                Some(TaskKind::Seq2seq),
            ),
            (RowFormat::Messages, Decoder, Some(TaskKind::Chat)),
            (
                RowFormat::Classification,
                Encoder,
                Some(TaskKind::Classification),
            ),
            (
                RowFormat::Classification,
                Decoder,
                Some(TaskKind::Classification),
            ),
            (RowFormat::Tagging, Encoder, Some(TaskKind::Tagging)),
            (RowFormat::Tagging, Decoder, None),
            (RowFormat::Preference, Decoder, Some(TaskKind::Dpo)),
        ] {
            assert_eq!(infer(format, model), task, "{format:?} {model:?}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_told_with_what_would() {
        let asked = refused(Some(TaskKind::Tagging), RowFormat::Text, Encoder).to_string();
        for part in ["task: tagging does not go", "masked would", "an encoder"] {
            assert!(asked.contains(part), "{part}: {asked}");
        }
        let none = refused(None, RowFormat::Tagging, Decoder).to_string();
        assert!(
            none.contains("such rows are for an encoder (tagging)"),
            "{none}"
        );
    }
}
