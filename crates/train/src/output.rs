use std::time::Instant;

use burn::tensor::Tensor;
use burn::train::metric::{Adaptor, ItemLazy};
use burn_lora_data::BatchTensors;
use burn_std::ExecutionError;

/// What a step leaves for the metrics: two numbers on the device and a few on the host, but no logits.
#[derive(Debug)]
pub(crate) struct StepOutput {
    loss: Loss,
    gradient_norm: Option<f64>,
    learned: usize,
    tokens: usize,
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StepReport {
    /// Mean of `-log p` over the learned tokens.
    pub(crate) loss: f64,
    /// L2 norm of all gradients together before they were clipped; nothing for a validation.
    pub(crate) gradient_norm: Option<f64>,
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
    pub(crate) fn new(loss: Tensor<1>, batches: &[BatchTensors], started: Instant) -> Self {
        Self {
            loss: Loss::Pending(loss),
            gradient_norm: None,
            learned: batches.iter().map(|batch| batch.learned).sum(),
            tokens: batches.iter().map(|batch| batch.tokens).sum(),
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
        Ok(Self {
            loss: Loss::Read(loss),
            gradient_norm,
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
            learned: self.learned,
            tokens: self.tokens,
            started: self.started,
            finished: Instant::now(),
        }
    }
}
