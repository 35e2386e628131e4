use std::sync::Arc;

use burn::tensor::TensorReadError;
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry, format_float,
};

use crate::output::StepReport;
use crate::task::Told;
use crate::watch::Watch;

/// What a task measures of all that was noted, in the order of its metrics.
pub(crate) type Measure = Arc<dyn Fn(&[Arc<Told>]) -> Vec<f64> + Send + Sync>;

/// One metric of a task, over a whole validation: most are no means of the batches' values.
#[derive(Clone)]
pub(crate) struct TaskMetric {
    name: &'static str,
    /// Its place among the task's metrics.
    index: usize,
    measure: Measure,
    watch: Watch,
    told: Vec<Arc<Told>>,
    value: f64,
}

impl TaskMetric {
    /// Those of a task, by their names.
    pub(crate) fn all(names: Vec<&'static str>, measure: &Measure, watch: &Watch) -> Vec<Self> {
        let one = |(index, name)| Self {
            name,
            index,
            measure: measure.clone(),
            watch: watch.clone(),
            told: Vec::new(),
            value: f64::NAN,
        };
        names.into_iter().enumerate().map(one).collect()
    }
}

impl Metric for TaskMetric {
    type Input = StepReport;

    fn name(&self) -> MetricName {
        // Logs are files of the metric's name.
        Arc::new(self.name.replace('/', "_"))
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: None,
            higher_is_better: true,
        }
        .into()
    }

    fn update(
        &mut self,
        report: &StepReport,
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.told.extend(report.told.iter().cloned());
        Ok(SerializedEntry::not_available(None))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        let values = (self.measure)(&self.told);
        self.value = values.get(self.index).copied().unwrap_or(f64::NAN);
        self.watch.measured(self.name, self.value);
        let formatted = format!("epoch {}", format_float(self.value, 4));
        Ok(SerializedEntry::new(
            formatted,
            self.final_value().serialize(),
        ))
    }

    fn clear(&mut self) {
        self.told.clear();
    }
}

impl Numeric for TaskMetric {
    fn value(&self) -> Option<NumericEntry> {
        None
    }

    fn running_value(&self) -> Option<NumericEntry> {
        None
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Final(self.value)
    }
}
