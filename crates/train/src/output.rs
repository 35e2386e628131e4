use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{Tensor, TensorReadError};
use burn::train::metric::{Adaptor, ItemLazy};
use burn_std::ExecutionError;

use crate::task::{Counts, Notes, Told};

/// What a step leaves for the metrics: one number on the device and a few on the host, but no logits of a vocabulary.
#[derive(Debug)]
pub(crate) struct StepOutput {
    loss: Loss,
    /// Of a validation, for the metrics of the task.
    notes: Vec<Notes>,
    told: Vec<Arc<Told>>,
    counts: Counts,
    started: Instant,
}

/// One per step and never stored, so the size of its variants does not matter.
#[derive(Debug)]
#[expect(clippy::large_enum_variant)]
enum Loss {
    Pending(Tensor<1>),
    Read(f64),
}

/// A finished step in numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StepReport {
    /// Mean over what is learned.
    pub(crate) loss: f64,
    /// Learned tokens, rows or pairs.
    pub(crate) learned: usize,
    /// Tokens without padding.
    pub(crate) tokens: usize,
    /// What the task noted of a validation batch.
    pub(crate) told: Vec<Arc<Told>>,
    /// When the step was begun.
    pub(crate) started: Instant,
    /// When its loss was known on the host.
    pub(crate) finished: Instant,
}

impl StepReport {
    /// Seconds of the step itself, given when the one before it was done, which is then set to this one.
    ///
    /// A step is queued while the one before it still runs, so its own time begins when that one is done.
    pub(crate) fn own_seconds(&self, last: &mut Option<Instant>) -> f64 {
        let begin = last.map_or(self.started, |last| last.max(self.started));
        *last = Some(self.finished);
        (self.finished - begin).as_secs_f64().max(1e-9)
    }
}

impl StepOutput {
    /// Tokens without padding, known before the loss is.
    pub(crate) fn tokens(&self) -> usize {
        self.counts.tokens
    }

    pub(crate) fn new(
        loss: Tensor<1>,
        counts: Counts,
        notes: Vec<Notes>,
        started: Instant,
    ) -> Self {
        Self {
            loss: Loss::Pending(loss),
            notes,
            told: Vec::new(),
            counts,
            started,
        }
    }
}

fn unread(error: TensorReadError) -> ExecutionError {
    match error {
        TensorReadError::Execution(error) => error,
        error => ExecutionError::with_context(error.to_string()),
    }
}

/// The loss is read once per step, in the thread of the metrics: the training thread goes on meanwhile.
impl ItemLazy for StepOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        let loss = match self.loss {
            Loss::Pending(loss) => loss.try_into_scalar::<f64>().map_err(unread)?,
            Loss::Read(loss) => loss,
        };
        let mut told = self.told;
        for notes in self.notes {
            told.push(Arc::new(notes.read().map_err(unread)?));
        }
        Ok(Self {
            loss: Loss::Read(loss),
            notes: Vec::new(),
            told,
            ..self
        })
    }
}

impl Adaptor<StepReport> for StepOutput {
    fn adapt(&self) -> StepReport {
        let loss = match &self.loss {
            Loss::Read(loss) => *loss,
            // The learner syncs every item before its metrics see it.
            Loss::Pending(loss) => loss.clone().try_into_scalar().unwrap_or(f64::NAN),
        };
        StepReport {
            loss,
            learned: self.counts.learned,
            tokens: self.counts.tokens,
            told: self.told.clone(),
            started: self.started,
            finished: Instant::now(),
        }
    }
}
