//! What a model makes of a few prompts on its way.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::evaluate::Completion;
use crate::facts::{JsonLines, Stepped, read_lines};

/// The file of the samples, in the folder of the logs.
pub const SAMPLES_FILE: &str = "samples.jsonl";

/// What a model made of a prompt after some steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Optimizer steps done.
    pub step: usize,
    /// The text given.
    pub prompt: String,
    /// The text wanted.
    pub expected: String,
    /// The text made.
    pub generated: String,
}

impl Stepped for Sample {
    fn step(&self) -> usize {
        self.step
    }
}

/// Reads the samples of a run; lines that are none, such as one that was cut off, are left out.
///
/// # Errors
/// [`TrainError::Io`].
pub fn read_samples(path: &Path) -> Result<Vec<Sample>, TrainError> {
    read_lines(path)
}

/// Completes the prompts of a run by a model that is ready for inference.
pub(crate) struct Sampler<M>(Arc<dyn Complete<M>>);

/// How prompts are completed.
pub(crate) trait Complete<M>:
    Fn(&M) -> Result<Vec<Completion>, TrainError> + Send + Sync
{
}

impl<M, F: Fn(&M) -> Result<Vec<Completion>, TrainError> + Send + Sync> Complete<M> for F {}

impl<M> Sampler<M> {
    pub(crate) fn new(complete: impl Complete<M> + 'static) -> Self {
        Self(Arc::new(complete))
    }

    pub(crate) fn complete(&self, model: &M) -> Result<Vec<Completion>, TrainError> {
        (self.0)(model)
    }
}

impl<M> Clone for Sampler<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M> fmt::Debug for Sampler<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sampler")
    }
}

/// Where samples are written.
pub(crate) struct SampleFile(Mutex<JsonLines<Sample>>);

impl SampleFile {
    /// Opens the file in a folder of logs. Of a run that is resumed the samples up to its step are kept.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub(crate) fn open(logs: &Path, first_step: usize) -> Result<Self, TrainError> {
        let path = logs.join(SAMPLES_FILE);
        match JsonLines::open(&path, first_step) {
            Ok(lines) => Ok(Self(Mutex::new(lines))),
            Err(source) => Err(TrainError::Io { path, source }),
        }
    }

    /// As with facts, a write that fails is let go.
    pub(crate) fn write(&self, step: usize, completions: Vec<Completion>) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for made in completions {
            let _ = lines.write(&Sample {
                step,
                prompt: made.prompt,
                expected: made.expected,
                generated: made.generated,
            });
        }
    }
}
