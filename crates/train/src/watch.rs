use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use burn::train::Interrupter;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::exact;
use crate::output::StepReport;

/// What the recipe learns about the run while burn-train's learner has the loop.
///
/// The loss of a step is known in the thread of the metrics only. One of them reports to this record, which the loop reads for
/// its checkpoints and the recipe at the end; a loss that is not finite interrupts the run at once.
#[derive(Clone)]
pub(crate) struct Watch {
    tally: Arc<Mutex<Tally>>,
    interrupter: Interrupter,
}

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Optimizer steps done, those before a resumed run included.
    pub(crate) steps: usize,
    /// What goes on in a resumed run.
    pub(crate) counts: Counts,
    /// Tokens trained on by this process.
    pub(crate) own_tokens: usize,
    /// Seconds of training steps, without validations.
    pub(crate) step_seconds: f64,
    /// Seconds of the first of them.
    pub(crate) first_step_seconds: Option<f64>,
    /// What was measured by the last validation, beside the loss.
    pub(crate) valid_metrics: BTreeMap<String, f64>,
    last_step: Option<Instant>,
    fault: Option<TrainError>,
}

/// What a checkpoint takes of the counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Counts {
    /// Tokens trained on, without padding.
    pub(crate) tokens: usize,
    /// Learned tokens trained on.
    pub(crate) learned: usize,
    /// The losses of the interval so far, each times its learned tokens.
    #[serde(with = "exact")]
    interval_loss: f64,
    /// Learned tokens of the interval so far.
    interval_learned: usize,
    /// Mean loss of the last interval.
    #[serde(with = "exact::option")]
    pub(crate) train_loss: Option<f64>,
    /// Loss of the last validation.
    #[serde(with = "exact::option")]
    pub(crate) valid_loss: Option<f64>,
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

    /// Goes on from what an earlier process counted.
    pub(crate) fn with_counts(self, counts: Counts) -> Self {
        self.lock().counts = counts;
        self
    }

    /// Takes note of a step or of a validation batch.
    pub(crate) fn saw(&self, split: Split, report: &StepReport) {
        let mut tally = self.lock();
        if split == Split::Train {
            tally.steps += 1;
            tally.own_tokens += report.tokens;
            tally.counts.tokens += report.tokens;
            tally.counts.learned += report.learned;
            tally.counts.interval_loss += report.loss * report.learned as f64;
            tally.counts.interval_learned += report.learned;
            let seconds = report.own_seconds(&mut tally.last_step);
            tally.step_seconds += seconds;
            tally.first_step_seconds.get_or_insert(seconds);
        }
        if !report.loss.is_finite() {
            let fault = TrainError::NotFinite {
                split: match split {
                    Split::Train => "training",
                    Split::Valid => "validation",
                },
                step: tally.steps,
                loss: report.loss,
            };
            tally.fault.get_or_insert(fault);
            self.interrupter.stop(Some("the loss is not finite"));
        }
    }

    /// Takes note of an error outside the step, of which the first counts.
    pub(crate) fn failed(&self, error: TrainError) {
        self.lock().fault.get_or_insert(error);
        self.interrupter.stop(Some("an error"));
    }

    /// Takes note that an interval or a validation, of this mean loss, is over.
    pub(crate) fn concluded(&self, split: Split, loss: f64) {
        let mut tally = self.lock();
        let counts = &mut tally.counts;
        match split {
            // The interval may have begun in another process, which the metric does not know.
            Split::Train if counts.interval_learned > 0 => {
                counts.train_loss = Some(counts.interval_loss / counts.interval_learned as f64);
                (counts.interval_loss, counts.interval_learned) = (0.0, 0);
            }
            Split::Train => {}
            Split::Valid => counts.valid_loss = Some(loss),
        }
        // The dashboard makes the learner forget its error when it closes.
        if let Some(error) = self.interrupter.error() {
            let error = TrainError::Learner(error.to_string());
            tally.fault.get_or_insert(error);
        }
    }

    /// Takes note of what a validation measured beside the loss.
    pub(crate) fn measured(&self, metric: &str, value: f64) {
        let mut tally = self.lock();
        tally.valid_metrics.insert(metric.to_string(), value);
    }

    /// What the last validation measured.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a metric that it did not measure.
    pub(crate) fn metric(&self, name: &str) -> Result<f64, TrainError> {
        let tally = self.lock();
        if name == "loss"
            && let Some(loss) = tally.counts.valid_loss
        {
            return Ok(loss);
        }
        if let Some(value) = tally.valid_metrics.get(name) {
            return Ok(*value);
        }
        let known: Vec<&str> = tally.valid_metrics.keys().map(String::as_str).collect();
        let fault = format!(
            "best_metric: a validation measures no \"{name}\", but {}",
            [&["loss"], known.as_slice()].concat().join(", ")
        );
        Err(TrainError::Config {
            faults: vec![fault],
        })
    }

    /// Whether there was an error.
    pub(crate) fn has_failed(&self) -> bool {
        self.lock().fault.is_some() || self.interrupter.error().is_some()
    }

    /// What is saved of the counts.
    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    /// What was counted.
    ///
    /// # Errors
    /// The first error of the run.
    pub(crate) fn tally(&self) -> Result<Tally, TrainError> {
        let mut tally = std::mem::take(&mut *self.lock());
        match tally.fault.take() {
            Some(fault) => Err(fault),
            None => Ok(tally),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
