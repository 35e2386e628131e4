use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use burn::train::Interrupter;

use crate::error::TrainError;
use crate::output::StepReport;

/// What the recipe learns about the run while burn-train's learner has the loop.
///
/// The learner hands step outputs to the metrics only. One of them reports to this record, which the recipe reads when
/// the learner returns; a loss that is not finite interrupts the run at once.
#[derive(Clone)]
pub(crate) struct Watch {
    tally: Arc<Mutex<Tally>>,
    interrupter: Interrupter,
}

/// What was counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Optimizer steps done, those before a resumed run included.
    pub(crate) steps: usize,
    /// Tokens trained on, without padding.
    pub(crate) tokens: usize,
    /// Learned tokens trained on.
    pub(crate) learned: usize,
    /// Seconds of training steps, without validations.
    pub(crate) step_seconds: f64,
    /// Seconds of the first of them.
    pub(crate) first_step_seconds: Option<f64>,
    /// Mean loss of the last interval.
    pub(crate) train_loss: Option<f64>,
    /// Loss of the last validation.
    pub(crate) valid_loss: Option<f64>,
    /// Metrics of the last validation.
    pub(crate) valid_metrics: BTreeMap<String, f64>,
    last_step: Option<Instant>,
    fault: Option<Fault>,
}

#[derive(Clone, Debug)]
enum Fault {
    NotFinite {
        split: Split,
        step: usize,
        loss: f64,
    },
    Other(String),
}

/// Which data a metric is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    Train,
    Valid,
}

impl Watch {
    pub(crate) fn new(first_step: usize, interrupter: Interrupter) -> Self {
        let tally = Tally {
            steps: first_step,
            ..Tally::default()
        };
        Self {
            tally: Arc::new(Mutex::new(tally)),
            interrupter,
        }
    }

    /// Takes note of a step or of a validation batch.
    pub(crate) fn saw(&self, split: Split, report: &StepReport) {
        let mut tally = self.lock();
        if split == Split::Train {
            tally.steps += 1;
            tally.tokens += report.tokens;
            tally.learned += report.learned;
            let seconds = report.own_seconds(&mut tally.last_step);
            tally.step_seconds += seconds;
            tally.first_step_seconds.get_or_insert(seconds);
        }
        if !report.loss.is_finite() {
            let fault = Fault::NotFinite {
                split,
                step: tally.steps,
                loss: report.loss,
            };
            tally.fault.get_or_insert(fault);
            self.interrupter.stop(Some("the loss is not finite"));
        }
    }

    /// Takes note of an error outside the step.
    pub(crate) fn failed(&self, error: impl ToString) {
        self.lock()
            .fault
            .get_or_insert(Fault::Other(error.to_string()));
    }

    /// Takes note of the mean loss of an interval or of a validation.
    pub(crate) fn concluded(&self, split: Split, loss: f64) {
        let mut tally = self.lock();
        match split {
            Split::Train => tally.train_loss = Some(loss),
            Split::Valid => tally.valid_loss = Some(loss),
        }
        // The dashboard makes the learner forget its error when it closes.
        if let Some(error) = self.interrupter.error() {
            tally.fault.get_or_insert(Fault::Other(error.to_string()));
        }
    }

    /// Takes note of a metric of a validation.
    pub(crate) fn measured(&self, name: &str, value: f64) {
        self.lock().valid_metrics.insert(name.to_string(), value);
    }

    /// What was counted.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] if a loss was not finite, [`TrainError::Learner`] for any other error.
    pub(crate) fn tally(&self) -> Result<Tally, TrainError> {
        let tally = self.lock().clone();
        match tally.fault {
            Some(Fault::NotFinite { split, step, loss }) => Err(TrainError::NotFinite {
                split: match split {
                    Split::Train => "training",
                    Split::Valid => "validation",
                },
                step,
                loss,
            }),
            Some(Fault::Other(error)) => Err(TrainError::Learner(error)),
            None => Ok(tally),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
