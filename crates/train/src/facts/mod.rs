//! What is known of every step, in files beside the adapter: JSON lines for programs, events for TensorBoard.
//!
//! It is what the dashboard shows: every metric of the run by its name, and where the run is. A [`FactsRenderer`] stands
//! before whatever shows the run and writes down what passes.

mod crc32c;
mod events;
mod gradient_norm;
mod json_lines;
mod memory;
mod progress;
mod renderer;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use events::EventFile;

pub(crate) use json_lines::{JsonLines, Stepped, read_lines};

pub(crate) use gradient_norm::GradientNormMetric;
pub(crate) use memory::{MemoryMetric, peak_memory_bytes};
pub(crate) use progress::ProgressMetric;
pub(crate) use renderer::FactsRenderer;

/// The file of the facts, in the folder of the logs.
pub const FACTS_FILE: &str = "facts.jsonl";
/// The folder of the events, beside it.
pub const EVENTS_FOLDER: &str = "tensorboard";

/// What is known at one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// Whether it was trained or validated.
    pub kind: FactKind,
    /// Optimizer steps done, counted from 1.
    pub step: usize,
    /// Of all.
    pub steps: usize,
    /// Seconds since the run was begun or resumed.
    pub seconds: f64,
    /// Seconds that the steps to come take, if they take what those before took; validations are not counted.
    pub seconds_left: Option<f64>,
    /// The metrics, by their names in lower case: `loss`, `learning_rate`, `gradient_norm`, `tokens_per_second`,
    /// `memory_mib`. A number that is not finite is null.
    pub metrics: BTreeMap<String, Option<f64>>,
}

impl Stepped for Fact {
    fn step(&self) -> usize {
        self.step
    }
}

/// What a fact is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FactKind {
    /// One training step.
    Train,
    /// A validation after that step.
    Valid,
}

impl FactKind {
    fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
        }
    }
}

/// Reads the facts of a run; lines that are none, such as one that was cut off, are left out.
///
/// # Errors
/// [`TrainError::Io`].
pub fn read_facts(path: &Path) -> Result<Vec<Fact>, TrainError> {
    read_lines(path)
}

/// Both files.
pub(crate) struct FactFiles {
    lines: JsonLines<Fact>,
    events: EventFile,
    clock: Clock,
}

/// Where a run is in time.
struct Clock {
    started: Instant,
    first_step: usize,
    steps: usize,
    /// Seconds of training, and of how many steps.
    trained: f64,
    since: Option<Instant>,
}

impl FactFiles {
    /// Opens the files in a folder of logs. Of a run that is resumed the facts up to its step are kept.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub(crate) fn open(logs: &Path, first_step: usize, steps: usize) -> Result<Self, TrainError> {
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| TrainError::Io { path, source }
        };
        let path = logs.join(FACTS_FILE);
        let lines = JsonLines::open(&path, first_step).map_err(io(&path))?;
        let folder = logs.join(EVENTS_FOLDER);
        fs::create_dir_all(&folder).map_err(io(&folder))?;
        let events = EventFile::create(&folder, first_step).map_err(io(&folder))?;
        Ok(Self {
            lines,
            events,
            clock: Clock {
                started: Instant::now(),
                first_step,
                steps,
                trained: 0.0,
                since: None,
            },
        })
    }

    /// A step begins after something that was none: a validation, or the start.
    fn begin(&mut self) {
        self.clock.since = Some(Instant::now());
    }

    /// A step was done.
    fn trained(&mut self, step: usize, metrics: BTreeMap<String, Option<f64>>) {
        self.clock.step();
        self.write(FactKind::Train, step, metrics);
    }

    fn validated(&mut self, step: usize, metrics: BTreeMap<String, Option<f64>>) {
        self.write(FactKind::Valid, step, metrics);
    }

    /// A full disk must not end the training, so a failed write is let go: what the run is for is its adapter.
    fn write(&mut self, kind: FactKind, step: usize, metrics: BTreeMap<String, Option<f64>>) {
        let fact = Fact {
            kind,
            step,
            steps: self.clock.steps,
            seconds: self.clock.started.elapsed().as_secs_f64(),
            seconds_left: self.clock.left(step),
            metrics,
        };
        let _ = self.lines.write(&fact);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0.0, |now| now.as_secs_f64());
        let scalars = fact.metrics.iter().filter_map(|(name, value)| {
            let tag = format!("{}/{name}", kind.name());
            Some((tag, (*value)? as f32))
        });
        let _ = self.events.write(now, step, scalars);
    }
}

impl Clock {
    fn step(&mut self) {
        let now = Instant::now();
        let since = self.since.replace(now).unwrap_or(now);
        self.trained += (now - since).as_secs_f64();
    }

    fn left(&self, step: usize) -> Option<f64> {
        let done = step.checked_sub(self.first_step).filter(|done| *done > 0)?;
        Some(self.trained / done as f64 * self.steps.saturating_sub(step) as f64)
    }
}

#[cfg(test)]
mod tests;
