use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{Tensor, TensorReadError};
use burn::train::metric::{Adaptor, ItemLazy};
use burn_std::ExecutionError;

use crate::task::{Counts, Notes, Told};

/// What a step leaves for the metrics: two numbers on the device and a few on the host, but no logits of a vocabulary.
#[derive(Debug)]
pub(crate) struct StepOutput {
    loss: Loss,
    gradient_norm: Option<f64>,
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
    /// `[1]`, or `[2]` with the norm of the gradients.
    Pending(Tensor<1>),
    Read(f64),
}

/// A finished step in numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StepReport {
    /// Mean over what is learned.
    pub(crate) loss: f64,
    /// L2 norm of all gradients together before they were clipped; nothing for a validation.
    pub(crate) gradient_norm: Option<f64>,
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
            gradient_norm: None,
            notes,
            told: Vec::new(),
            counts,
            started,
        }
    }

    /// With the norm of the gradients, which is read back together with the loss.
    pub(crate) fn with_gradient_norm(mut self, norm: Option<Tensor<1>>) -> Self {
        if let (Loss::Pending(loss), Some(norm)) = (&self.loss, norm) {
            self.loss = Loss::Pending(Tensor::cat(vec![loss.clone(), norm], 0));
        }
        self
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
        let (loss, gradient_norm) = match self.loss {
            Loss::Pending(numbers) => {
                let numbers = numbers.try_into_data()?;
                let mut numbers = numbers.iter::<f64>();
                (numbers.next().unwrap_or(f64::NAN), numbers.next())
            }
            Loss::Read(loss) => (loss, self.gradient_norm),
        };
        let mut told = self.told;
        for notes in self.notes {
            told.push(Arc::new(notes.read().map_err(unread)?));
        }
        Ok(Self {
            loss: Loss::Read(loss),
            gradient_norm,
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
            Loss::Pending(_) => f64::NAN,
        };
        StepReport {
            loss,
            gradient_norm: self.gradient_norm,
            learned: self.counts.learned,
            tokens: self.counts.tokens,
            told: self.told.clone(),
            started: self.started,
            finished: Instant::now(),
        }
    }
}
