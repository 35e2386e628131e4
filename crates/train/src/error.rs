use std::path::PathBuf;

use burn::store::RecordError;

/// Why a training run or an evaluation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The configuration contradicts itself, the model or the data.
    #[error("the training configuration is wrong:{}", list(faults))]
    Config {
        /// Every fault, in words.
        faults: Vec<String>,
    },
    /// No parameter of the model would change.
    #[error(
        "the model has no trainable parameter: attach an adapter, or open all parameters with `set_require_grad(true)`"
    )]
    NothingTrainable,
    /// The dashboard was asked for, but standard output is no terminal.
    #[error("the dashboard needs a terminal on standard output; show plain lines instead")]
    NoTerminal,
    /// The loss became NaN or infinite; the model at that point is of no use.
    #[error(
        "the {split} loss is {loss} at step {step}; a lower learning rate, a longer warmup, grad_clip_norm, or f32 instead of \
         f16 usually helps"
    )]
    NotFinite {
        /// `training` or `validation`.
        split: &'static str,
        /// Optimizer steps done when it was seen, counted from 1.
        step: usize,
        /// The value.
        loss: f64,
    },
    /// A file or folder of the run could not be read or written.
    #[error("{}: {source}{}", path.display(), advice(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A checkpoint does not fit the model, or its tensors could not be read from the device.
    #[error("{}: {source}", path.display())]
    Checkpoint {
        /// The checkpoint's file.
        path: PathBuf,
        /// What does not fit.
        source: RecordError,
    },
    /// There is nothing to resume from.
    #[error("{} holds no run to resume{}", path.display(), list(faults))]
    NoCheckpoint {
        /// The folder that was searched.
        path: PathBuf,
        /// The checkpoints that are there, and what is wrong with each.
        faults: Vec<String>,
    },
    /// The run stopped, but can go on.
    #[error("{fault}\n{} is whole: resume goes on from there", checkpoint.display())]
    Resumable {
        /// Why it stopped.
        fault: Box<TrainError>,
        /// The last checkpoint.
        checkpoint: PathBuf,
    },
    /// The run to resume was started with other settings, so that it would continue another run.
    #[error(
        "{} was written by a run with other settings (allow_changes goes on all the same):{}",
        path.display(),
        list(differences)
    )]
    ResumeMismatch {
        /// The file that holds the settings of the run.
        path: PathBuf,
        /// Every setting that differs: its name, then its old and its new value.
        differences: Vec<String>,
    },
    /// Burn's learner stopped: the device failed, or a checkpoint could not be written.
    #[error("training stopped: {0}")]
    Learner(String),
    /// The device failed while the model was evaluated.
    #[error("the device failed during evaluation: {0}")]
    Evaluation(String),
    /// The tokenizer failed, or data could not be batched.
    #[error(transparent)]
    Data(#[from] burn_lora_data::DataError),
    /// The adapter could not be attached.
    #[error(transparent)]
    Adapter(#[from] burn_lora_adapter::AdapterError),
    /// A prompt could not be completed.
    #[error(transparent)]
    Generate(#[from] burn_lora_transformer::GenerateError),
}

/// What to try.
fn advice(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::{FileTooLarge, PermissionDenied, QuotaExceeded, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => {
            "; make room, or write less: a larger save_every, a smaller keep"
        }
        PermissionDenied => "; the output must be a folder that may be written",
        _ => "",
    }
}

/// Faults below a headline, one line each.
pub(crate) fn list(items: &[String]) -> String {
    items.iter().map(|item| format!("\n  - {item}")).collect()
}
