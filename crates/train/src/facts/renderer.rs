//! Between the run and whoever shows it: what passes is written down.

use std::collections::{BTreeMap, HashMap};

use burn::train::LearnerSummary;
use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricDefinition, MetricId, NumericEntry};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};

use super::FactFiles;

/// Shows what another one shows, and writes the facts.
///
/// Every metric of the run comes through here under its name, so that a new one is in the files, too.
pub(crate) struct FactsRenderer {
    shown: Box<dyn MetricsRenderer>,
    files: FactFiles,
    names: HashMap<MetricId, String>,
    step: usize,
    validating: bool,
    train: BTreeMap<String, Option<f64>>,
    valid: BTreeMap<String, Option<f64>>,
}

impl FactsRenderer {
    pub(crate) fn new(
        shown: Box<dyn MetricsRenderer>,
        files: FactFiles,
        first_step: usize,
    ) -> Self {
        Self {
            shown,
            files,
            names: HashMap::new(),
            step: first_step,
            validating: false,
            train: BTreeMap::new(),
            valid: BTreeMap::new(),
        }
    }

    fn name(&self, state: &MetricState) -> Option<String> {
        match state {
            MetricState::Numeric(entry, _) => self.names.get(&entry.metric_id).cloned(),
            _ => None,
        }
    }
}

/// `Learning Rate` as `learning_rate`, `Memory (MiB)` as `memory_mib`.
fn key(name: &str) -> String {
    let words = name.split(|c: char| !c.is_alphanumeric());
    let words: Vec<String> = words
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    words.join("_")
}

fn number(entry: &NumericEntry) -> Option<f64> {
    let value = match entry {
        NumericEntry::Value(value) | NumericEntry::Final(value) => *value,
        NumericEntry::Aggregated {
            aggregated_value, ..
        } => *aggregated_value,
    };
    // JSON has no word for the others.
    Some(value).filter(|value| value.is_finite())
}

impl MetricsRendererTraining for FactsRenderer {
    fn update_train(&mut self, state: MetricState) {
        // What comes at the end of an interval is the mean of it, and no step's.
        if let Some(name) = self.name(&state)
            && let MetricState::Numeric(_, Some(entry)) = &state
            && !matches!(entry, NumericEntry::Final(_))
        {
            self.train.insert(name, number(entry));
        }
        self.shown.update_train(state);
    }

    fn update_valid(&mut self, state: MetricState) {
        if let Some(name) = self.name(&state)
            && let MetricState::Numeric(_, Some(entry @ NumericEntry::Final(_))) = &state
        {
            self.valid.insert(name, number(entry));
        }
        self.shown.update_valid(state);
    }

    fn on_train_end(
        &mut self,
        summary: Option<LearnerSummary>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        self.shown.on_train_end(summary)
    }
}

impl TrainingProgressLogger for FactsRenderer {
    fn start(&mut self, epochs: usize, first: usize, items: Option<usize>, label: Option<&str>) {
        self.shown.start(epochs, first, items, label);
    }

    fn update_epoch(&mut self, epoch: usize) {
        self.shown.update_epoch(epoch);
    }

    fn start_split(&mut self, split: &str, total_items: usize) {
        self.validating = split != "train";
        if !self.validating {
            self.files.begin();
        }
        self.shown.start_split(split, total_items);
    }

    fn update_split(&mut self, items_processed: usize) {
        if !self.validating {
            self.step += 1;
            let metrics = std::mem::take(&mut self.train);
            self.files.trained(self.step, metrics);
        }
        self.shown.update_split(items_processed);
    }

    fn end_split(&mut self) {
        if !self.valid.is_empty() {
            let metrics = std::mem::take(&mut self.valid);
            self.files.validated(self.step, metrics);
        }
        self.shown.end_split();
    }

    fn end(&mut self) {
        self.shown.end();
    }

    fn log_event_training(&mut self, event: String) {
        self.shown.log_event_training(event);
    }
}

impl MetricsRenderer for FactsRenderer {
    fn manual_close(&mut self) {
        self.shown.manual_close();
    }

    fn register_metric(&mut self, definition: MetricDefinition) {
        let id = definition.metric_id.clone();
        self.names.insert(id, key(&definition.name));
        self.shown.register_metric(definition);
    }
}

impl MetricsRendererEvaluation for FactsRenderer {
    fn update_test(&mut self, name: EvaluationName, state: MetricState) {
        self.shown.update_test(name, state);
    }

    fn on_test_end(
        &mut self,
        summary: Option<LearnerSummary>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        self.shown.on_test_end(summary)
    }
}

impl EvaluationProgressLogger for FactsRenderer {
    fn start_global_progress(&mut self, total_tests: usize) {
        self.shown.start_global_progress(total_tests);
    }

    fn start_test(&mut self, name: &str, total_items: usize) {
        self.shown.start_test(name, total_items);
    }

    fn update_test_progress(&mut self, items_processed: usize) {
        self.shown.update_test_progress(items_processed);
    }

    fn end_test(&mut self) {
        self.shown.end_test();
    }

    fn end_global_progress(&mut self) {
        self.shown.end_global_progress();
    }

    fn log_event_evaluation(&mut self, event: String) {
        self.shown.log_event_evaluation(event);
    }
}
