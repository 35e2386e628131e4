use std::sync::Arc;
use std::time::Instant;

use burn::tensor::TensorReadError;
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};

use super::SPEED;
use crate::output::StepReport;

/// Tokens without padding, per second of the device's work.
#[derive(Clone, Default)]
pub(crate) struct SpeedMetric {
    last: Option<Instant>,
    tokens: usize,
    seconds: f64,
    current: f64,
    current_tokens: usize,
}

impl SpeedMetric {
    fn mean(&self) -> f64 {
        self.tokens as f64 / self.seconds
    }

    fn entry(&self, serialized: NumericEntry) -> SerializedEntry {
        let (epoch, batch) = (self.mean(), self.current);
        SerializedEntry::new(
            format!("epoch {epoch:.0} - batch {batch:.0}"),
            serialized.serialize(),
        )
    }
}

impl Metric for SpeedMetric {
    type Input = StepReport;

    fn name(&self) -> MetricName {
        Arc::new(SPEED.to_string())
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
        let seconds = report.own_seconds(&mut self.last);
        self.tokens += report.tokens;
        self.seconds += seconds;
        self.current = report.tokens as f64 / seconds;
        self.current_tokens = report.tokens;
        Ok(self.entry(NumericEntry::Aggregated {
            aggregated_value: self.current,
            count: self.current_tokens,
        }))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.entry(self.final_value()))
    }

    fn clear(&mut self) {
        *self = Self {
            last: self.last,
            ..Self::default()
        };
    }
}

impl Numeric for SpeedMetric {
    fn value(&self) -> Option<NumericEntry> {
        Some(NumericEntry::Aggregated {
            aggregated_value: self.current,
            count: self.current_tokens,
        })
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(NumericEntry::Aggregated {
            aggregated_value: self.mean(),
            count: self.tokens,
        })
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Final(self.mean())
    }
}
