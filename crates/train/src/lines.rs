use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use burn::train::LearnerSummary;
use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricDefinition, MetricId, MetricName, NumericEntry};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};

use crate::metrics::{LEARNING_RATE, LOSS, PERPLEXITY, SPEED};

/// Progress as plain lines, for a pipe, a log file or CI.
///
/// Every few steps `step 40/220  loss 0.812  ppl 2.25  lr 1.8e-3  3,100 tok/s`, the loss and the speed being means since
/// the line before, and after every validation `step 40/220  validation loss 0.790  ppl 2.20`; where the task has metrics
/// of its own, these follow instead (`accuracy 0.912`).
pub struct LineRenderer {
    sink: Mutex<Box<dyn Write + Send>>,
    names: HashMap<MetricId, MetricName>,
    total: usize,
    every: usize,
    step: usize,
    validating: bool,
    window: Window,
    valid_loss: Option<f64>,
    /// What a task measured.
    valid_metrics: Vec<(MetricName, f64)>,
}

/// What came in since the last line.
#[derive(Default)]
struct Window {
    loss: Mean,
    tokens: f64,
    seconds: f64,
    learning_rate: f64,
}

#[derive(Default)]
struct Mean {
    sum: f64,
    count: f64,
}

impl Mean {
    fn add(&mut self, value: f64, count: usize) {
        self.sum += value * count as f64;
        self.count += count as f64;
    }

    fn get(&self) -> f64 {
        self.sum / self.count
    }
}

impl LineRenderer {
    /// Writes to `sink` a line for every `every` of `total` steps, after `first_step` that were done before.
    pub fn new(sink: Box<dyn Write + Send>, first_step: usize, total: usize, every: usize) -> Self {
        Self {
            sink: Mutex::new(sink),
            names: HashMap::new(),
            total,
            every: every.max(1),
            step: first_step,
            validating: false,
            window: Window::default(),
            valid_loss: None,
            valid_metrics: Vec::new(),
        }
    }

    /// A reader that went away must not end the training, so a failed write is let go.
    fn write(&self, line: &str) {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(sink, "{line}").and_then(|()| sink.flush());
    }

    fn at(&self) -> String {
        let (step, total) = (self.step, self.total);
        let width = total.to_string().len();
        format!("step {step:>width$}/{total}")
    }

    fn name(&self, id: &MetricId) -> &str {
        self.names.get(id).map_or("", |name| name.as_str())
    }

    /// The loss, with its perplexity if it has one.
    fn loss_text(&self, loss: f64) -> String {
        match self.names.values().any(|name| name.as_str() == PERPLEXITY) {
            true => perplexity_text(loss),
            false => format!("{loss:.3}"),
        }
    }

    fn write_step(&mut self) {
        let Window {
            loss,
            tokens,
            seconds,
            learning_rate,
        } = std::mem::take(&mut self.window);
        let (loss, speed) = (loss.get(), tokens / seconds);
        self.write(&format!(
            "{}  loss {}  lr {learning_rate:.1e}  {} tok/s",
            self.at(),
            self.loss_text(loss),
            thousands(speed)
        ));
    }
}

/// Whether the recipe itself measures it, of every task.
fn is_common(name: &str) -> bool {
    [LOSS, PERPLEXITY, SPEED, LEARNING_RATE].contains(&name)
}

/// `0.812  ppl 2.25`
fn perplexity_text(loss: f64) -> String {
    let perplexity = loss.exp();
    match perplexity < 1e4 {
        true => format!("{loss:.3}  ppl {perplexity:.2}"),
        false => format!("{loss:.3}  ppl {perplexity:.1e}"),
    }
}

/// `3100.4` as `3,100`.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 && value.is_finite() {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl MetricsRendererTraining for LineRenderer {
    fn update_train(&mut self, state: MetricState) {
        let MetricState::Numeric(
            entry,
            Some(NumericEntry::Aggregated {
                aggregated_value,
                count,
            }),
        ) = state
        else {
            return;
        };
        match self.name(&entry.metric_id) {
            LOSS => self.window.loss.add(aggregated_value, count),
            SPEED => {
                self.window.tokens += count as f64;
                self.window.seconds += count as f64 / aggregated_value;
            }
            LEARNING_RATE => self.window.learning_rate = aggregated_value,
            _ => {}
        }
    }

    fn update_valid(&mut self, state: MetricState) {
        let MetricState::Numeric(entry, Some(NumericEntry::Final(value))) = state else {
            return;
        };
        match self.names.get(&entry.metric_id) {
            Some(name) if name.as_str() == LOSS => self.valid_loss = Some(value),
            Some(name) if !is_common(name) => self.valid_metrics.push((name.clone(), value)),
            _ => {}
        }
    }

    fn on_train_end(
        &mut self,
        _summary: Option<LearnerSummary>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        Ok(())
    }
}

impl TrainingProgressLogger for LineRenderer {
    fn start(
        &mut self,
        _epochs: usize,
        _first: usize,
        _items: Option<usize>,
        _label: Option<&str>,
    ) {
    }

    fn update_epoch(&mut self, _epoch: usize) {}

    fn start_split(&mut self, split: &str, _total_items: usize) {
        self.validating = split != "train";
    }

    fn update_split(&mut self, _items_processed: usize) {
        if self.validating {
            return;
        }
        self.step += 1;
        if self.step.is_multiple_of(self.every) || self.step == 1 || self.step == self.total {
            self.write_step();
        }
    }

    fn end_split(&mut self) {
        if let Some(loss) = self.valid_loss.take() {
            let metrics = std::mem::take(&mut self.valid_metrics);
            let metrics = metrics
                .iter()
                .map(|(name, value)| format!("  {name} {value:.3}"));
            self.write(&format!(
                "{}  validation loss {}{}",
                self.at(),
                self.loss_text(loss),
                metrics.collect::<String>()
            ));
        }
    }

    fn end(&mut self) {}

    fn log_event_training(&mut self, _event: String) {}
}

impl MetricsRenderer for LineRenderer {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.names.insert(definition.metric_id, definition.name);
    }
}

/// The recipe evaluates by itself, so there is nothing to show.
impl MetricsRendererEvaluation for LineRenderer {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl EvaluationProgressLogger for LineRenderer {
    fn start_global_progress(&mut self, _total_tests: usize) {}

    fn start_test(&mut self, _name: &str, _total_items: usize) {}

    fn update_test_progress(&mut self, _items_processed: usize) {}

    fn end_test(&mut self) {}

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, _event: String) {}
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use burn::train::metric::{MetricAttributes, MetricEntry, SerializedEntry};

    use super::*;
    use crate::testing::SharedSink;

    fn id(name: &str) -> MetricId {
        MetricId::new(Arc::new(name.to_string()))
    }

    fn state(name: &str, value: NumericEntry) -> MetricState {
        let text = SerializedEntry::new(String::new(), String::new());
        MetricState::Numeric(MetricEntry::new(id(name), text), Some(value))
    }

    fn renderer(sink: &SharedSink, total: usize, every: usize) -> LineRenderer {
        let mut lines = LineRenderer::new(Box::new(sink.clone()), 0, total, every);
        for name in [LOSS, PERPLEXITY, SPEED, LEARNING_RATE] {
            lines.register_metric(MetricDefinition {
                metric_id: id(name),
                name: Arc::new(name.to_string()),
                description: None,
                attributes: MetricAttributes::None,
            });
        }
        lines
    }

    fn step(lines: &mut LineRenderer, loss: f64, learned: usize, rate: f64) {
        let counted = |aggregated_value, count| NumericEntry::Aggregated {
            aggregated_value,
            count,
        };
        lines.update_train(state(LOSS, counted(loss, learned)));
        lines.update_train(state(SPEED, counted(3100.4, 2 * learned)));
        lines.update_train(state(LEARNING_RATE, counted(rate, 1)));
        lines.update_split(0);
    }

    #[test]
    fn lines_show_means_since_the_line_before() {
        let sink = SharedSink::default();
        let mut lines = renderer(&sink, 220, 2);
        lines.start_split("train", 4);
        step(&mut lines, 2.0, 10, 9e-4);
        step(&mut lines, 1.0, 10, 1.8e-3);
        step(&mut lines, 1.0, 30, 1.8e-3);
        step(&mut lines, 0.248, 10, 1.8e-3);
        lines.end_split();
        lines.start_split("valid", 1);
        lines.update_valid(state(LOSS, NumericEntry::Final(0.79)));
        lines.update_split(1);
        lines.end_split();
        assert_eq!(
            sink.text(),
            "step   1/220  loss 2.000  ppl 7.39  lr 9.0e-4  3,100 tok/s\n\
             step   2/220  loss 1.000  ppl 2.72  lr 1.8e-3  3,100 tok/s\n\
             step   4/220  loss 0.812  ppl 2.25  lr 1.8e-3  3,100 tok/s\n\
             step   4/220  validation loss 0.790  ppl 2.20\n"
        );
    }

    #[test]
    fn the_last_step_always_has_a_line() {
        let sink = SharedSink::default();
        let mut lines = renderer(&sink, 3, 10);
        lines.start_split("train", 3);
        (0..3).for_each(|_| step(&mut lines, 1.0, 1, 1e-3));
        let text = sink.text();
        assert!(
            text.lines()
                .last()
                .is_some_and(|line| line.starts_with("step 3/3")),
            "{text}"
        );
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(thousands(999.6), "1,000");
        assert_eq!(thousands(12.0), "12");
        assert_eq!(thousands(1_234_567.0), "1,234,567");
        assert_eq!(perplexity_text(11.0), "11.000  ppl 6.0e4");
    }
}
