//! What can go wrong, by the exit code that it ends in.

use std::error::Error;
use std::process::ExitCode;

use burn_lora::adapter::AdapterError;
use burn_lora::data::DataError;
use burn_lora::train::{DeviceError, PlanError, RunError, TrainError};
use burn_lora::transformer::{ConfigError, LoadError, PartError, SentenceError};
use burn_lora_hub::HubError;

/// What the exit codes mean, for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  anything not below, among it a file that cannot be written
  2  the command line or the configuration
  3  the model, its tokenizer or the adapter
  4  the data
  5  the hub
  6  the device
  7  the training, such as a loss that is no number
  130, 143  a run was stopped by Ctrl-C or SIGTERM, with a checkpoint";

/// Where the fault lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anything else.
    Other = 1,
    /// What the user typed, there or in the configuration.
    Usage = 2,
    /// The model, its tokenizer or the adapter.
    Model = 3,
    /// The rows.
    Data = 4,
    /// The hub, or the way to it.
    Hub = 5,
    /// The device.
    Device = 6,
    /// The training.
    Training = 7,
}

impl From<Kind> for ExitCode {
    fn from(kind: Kind) -> Self {
        Self::from(kind as u8)
    }
}

/// An error and where its fault lies.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    error: Box<dyn Error>,
}

impl Failure {
    /// An error of this kind.
    pub fn new(kind: Kind, error: impl Into<Box<dyn Error>>) -> Self {
        Self {
            kind,
            error: error.into(),
        }
    }

    /// The kind, which is the exit code.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The error and its causes, each that the one before has not told already.
    pub fn chain(&self) -> Vec<String> {
        let mut chain = vec![self.error.to_string()];
        let mut cause = self.error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if chain.last().is_none_or(|last| !last.contains(&text)) {
                chain.push(text);
            }
            cause = error.source();
        }
        chain
    }
}

macro_rules! failures {
    ($($error:ty => $kind:ident),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(Kind::$kind, error)
            }
        })*
    };
}

failures! {
    LoadError => Model,
    ConfigError => Model,
    SentenceError => Model,
    AdapterError => Model,
    HubError => Hub,
    DeviceError => Device,
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Self::new(data_kind(&error), error)
    }
}

impl From<PartError> for Failure {
    fn from(error: PartError) -> Self {
        let kind = match error.is_of_settings() {
            true => Kind::Usage,
            false => Kind::Model,
        };
        Self::new(kind, error)
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Part(error) => error.into(),
            error => Self::new(Kind::Model, error),
        }
    }
}

fn data_kind(error: &DataError) -> Kind {
    match error {
        DataError::NoTokenizer { .. }
        | DataError::BadTokenizer { .. }
        | DataError::BadConfig { .. }
        | DataError::BadConfigValue { .. }
        | DataError::NotInVocabulary { .. }
        | DataError::NoEos { .. }
        | DataError::NoBos { .. }
        | DataError::NoChatTemplate
        | DataError::BadTemplate { .. } => Kind::Model,
        _ => Kind::Data,
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Data(error) => error.into(),
            TrainError::Adapter(error) => error.into(),
            error => Self::new(training_kind(&error), error),
        }
    }
}

fn training_kind(error: &TrainError) -> Kind {
    match error {
        TrainError::Config { .. } | TrainError::ResumeMismatch { .. } => Kind::Usage,
        TrainError::Io { .. } => Kind::Other,
        TrainError::Data(error) => data_kind(error),
        TrainError::Resumable { fault, .. } => training_kind(fault),
        _ => Kind::Training,
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Data(error) => error.into(),
            RunError::Load(error) => error.into(),
            RunError::Model(error) => error.into(),
            RunError::Adapter(error) => error.into(),
            RunError::Part(error) => error.into(),
            RunError::Plan(error) => error.into(),
            RunError::Device(error) => error.into(),
            RunError::Train(error) => error.into(),
            other => Self::new(Kind::Other, other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Told(&'static str, #[source] Option<Box<Told>>);

    #[test]
    fn a_cause_is_told_once() {
        let inner = Told("no such file", None);
        let middle = Told("cannot read a: no such file", Some(Box::new(inner)));
        let failure = Failure::new(Kind::Other, Told("no model", Some(Box::new(middle))));
        assert_eq!(failure.chain(), ["no model", "cannot read a: no such file"]);
    }
}
