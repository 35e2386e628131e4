use std::time::Instant;

use burn::tensor::{Tensor, TensorReadError};
use burn::train::metric::{Adaptor, ItemLazy};
use burn_lora_data::BatchTensors;
use burn_std::ExecutionError;

/// What a step leaves for the metrics: one number on the device and a few on the host, but no logits.
#[derive(Debug)]
pub(crate) struct StepOutput {
    loss: Loss,
    learned: usize,
    tokens: usize,
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StepReport {
    /// Mean of `-log p` over the learned tokens.
    pub(crate) loss: f64,
    /// Learned tokens.
    pub(crate) learned: usize,
    /// Tokens without padding.
    pub(crate) tokens: usize,
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
        self.tokens
    }

    pub(crate) fn new(loss: Tensor<1>, batches: &[BatchTensors], started: Instant) -> Self {
        Self {
            loss: Loss::Pending(loss),
            learned: batches.iter().map(|batch| batch.learned).sum(),
            tokens: batches.iter().map(|batch| batch.tokens).sum(),
            started,
        }
    }
}

/// The loss is read once per step, in the thread of the metrics: the training thread goes on meanwhile.
impl ItemLazy for StepOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        let loss = match self.loss {
            Loss::Pending(loss) => match loss.try_into_scalar::<f64>() {
                Ok(loss) => loss,
                Err(TensorReadError::Execution(error)) => return Err(error),
                Err(error) => return Err(ExecutionError::with_context(error.to_string())),
            },
            Loss::Read(loss) => loss,
        };
        Ok(Self {
            loss: Loss::Read(loss),
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
            learned: self.learned,
            tokens: self.tokens,
            started: self.started,
            finished: Instant::now(),
        }
    }
}
