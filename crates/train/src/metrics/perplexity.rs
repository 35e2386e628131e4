use std::sync::Arc;

use burn::tensor::TensorReadError;
use burn::train::metric::state::NumericMetricState;
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry, format_float,
};

use super::PERPLEXITY;
use crate::output::StepReport;

/// `exp` of the mean loss over the learned tokens. A mean of perplexities would be another number.
#[derive(Clone, Default)]
pub(crate) struct PerplexityMetric {
    state: NumericMetricState,
}

impl PerplexityMetric {
    fn entry(&self, serialized: NumericEntry) -> SerializedEntry {
        let epoch = format_float(self.state.running_value().current().exp(), 3);
        let batch = format_float(self.state.current_value().current().exp(), 3);
        SerializedEntry::new(
            format!("epoch {epoch} - batch {batch}"),
            serialized.serialize(),
        )
    }
}

/// `exp` of an entry's value.
fn exp(entry: NumericEntry) -> NumericEntry {
    match entry {
        NumericEntry::Value(value) => NumericEntry::Value(value.exp()),
        NumericEntry::Final(value) => NumericEntry::Final(value.exp()),
        NumericEntry::Aggregated {
            aggregated_value,
            count,
        } => NumericEntry::Aggregated {
            aggregated_value: aggregated_value.exp(),
            count,
        },
    }
}

impl Metric for PerplexityMetric {
    type Input = StepReport;

    fn name(&self) -> MetricName {
        Arc::new(PERPLEXITY.to_string())
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: None,
            higher_is_better: false,
        }
        .into()
    }

    fn update(
        &mut self,
        report: &StepReport,
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.state.update(report.loss, report.learned);
        Ok(self.entry(exp(self.state.current_value())))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.entry(self.final_value()))
    }

    fn clear(&mut self) {
        self.state.reset();
    }
}

impl Numeric for PerplexityMetric {
    fn value(&self) -> Option<NumericEntry> {
        Some(exp(self.state.current_value()))
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(exp(self.state.running_value()))
    }

    fn final_value(&self) -> NumericEntry {
        exp(self.state.final_value())
    }
}
