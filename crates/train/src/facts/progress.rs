use std::sync::Arc;
use std::time::Instant;

use burn::tensor::TensorReadError;
use burn::train::metric::{Metric, MetricAttributes, MetricMetadata, MetricName, SerializedEntry};

use crate::output::StepReport;

/// Where the run is, and how long the steps to come take if they take what those before took; the dashboard knows of the
/// interval between two validations only.
#[derive(Clone)]
pub(crate) struct ProgressMetric {
    step: usize,
    steps: usize,
    last: Option<Instant>,
    /// Seconds of steps, and of how many.
    seconds: f64,
    done: usize,
}

impl ProgressMetric {
    /// A run of so many steps, of which the first were done before.
    pub(crate) fn new(first_step: usize, steps: usize) -> Self {
        Self {
            step: first_step,
            steps,
            last: None,
            seconds: 0.0,
            done: 0,
        }
    }

    fn entry(&self) -> SerializedEntry {
        let left = self.steps.saturating_sub(self.step) as f64;
        let left = duration(self.seconds / self.done.max(1) as f64 * left);
        let text = format!("step {} of {} - {left} to go", self.step, self.steps);
        SerializedEntry::new(text, self.step.to_string())
    }
}

impl Metric for ProgressMetric {
    type Input = StepReport;

    fn name(&self) -> MetricName {
        Arc::new("Progress".to_string())
    }

    fn attributes(&self) -> MetricAttributes {
        MetricAttributes::None
    }

    fn update(
        &mut self,
        report: &StepReport,
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.step += 1;
        self.done += 1;
        self.seconds += report.own_seconds(&mut self.last);
        Ok(self.entry())
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.entry())
    }

    /// The run goes on.
    fn clear(&mut self) {}
}

/// `75.2` as `1:15`, a day as `24:00:00`.
fn duration(seconds: f64) -> String {
    let seconds = seconds.clamp(0.0, 1e9) as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        hours => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use burn::data::dataloader::Progress;

    use super::*;

    #[test]
    fn the_time_to_go_is_that_of_steps_like_those_before() {
        let mut progress = ProgressMetric::new(10, 40);
        let begin = Instant::now();
        let metadata = MetricMetadata {
            progress: Progress::new(1, 1, None),
            iteration: None,
            lr: None,
        };
        let mut shown = String::new();
        // Three seconds each, with a pause of a minute for a validation.
        for start in [0, 3, 66] {
            let report = StepReport {
                loss: 1.0,
                gradient_norm: None,
                learned: 1,
                tokens: 1,
                told: Vec::new(),
                started: begin + Duration::from_secs(start),
                finished: begin + Duration::from_secs(start + 3),
            };
            let entry = progress.update(&report, &metadata).expect("no tensor");
            shown = entry.formatted;
            progress.clear();
        }
        assert_eq!(shown, "step 13 of 40 - 1:21 to go");
        assert_eq!(duration(90_061.0), "25:01:01");
    }
}
