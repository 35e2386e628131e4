use std::sync::Arc;

use burn::tensor::TensorReadError;
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};

use super::LOSS;
use crate::output::StepReport;
use crate::watch::{Split, Watch};

/// Mean of `-log p` over learned tokens. It also reports to the recipe's [`Watch`].
#[derive(Clone)]
pub(crate) struct LossMetric {
    split: Split,
    watch: Watch,
    state: NumericMetricState,
}

impl LossMetric {
    pub(crate) fn new(split: Split, watch: Watch) -> Self {
        Self {
            split,
            watch,
            state: NumericMetricState::new(),
        }
    }

    fn format(&self) -> FormatOptions {
        FormatOptions::new(self.name()).precision(4)
    }
}

impl Metric for LossMetric {
    type Input = StepReport;

    fn name(&self) -> MetricName {
        Arc::new(LOSS.to_string())
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
        self.watch.saw(self.split, report);
        self.state.update(report.loss, report.learned);
        Ok(self.state.compute_update(self.format()))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        self.watch
            .concluded(self.split, self.state.final_value().current());
        Ok(self.state.compute_final(self.format()))
    }

    fn clear(&mut self) {
        self.state.reset();
    }
}

impl Numeric for LossMetric {
    fn value(&self) -> Option<NumericEntry> {
        Some(self.state.current_value())
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(self.state.running_value())
    }

    fn final_value(&self) -> NumericEntry {
        self.state.final_value()
    }
}
