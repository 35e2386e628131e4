//! The memory of a run, as far as its device and its system tell.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::{Device, TensorReadError};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};

use crate::output::StepReport;

/// The name of the metric.
const MEMORY: &str = "Memory (MiB)";
/// Between two looks: asking a GPU's allocator takes a moment.
const PAUSE: Duration = Duration::from_millis(500);

/// Memory in use: what the pools of a GPU hold, or else what is resident of the process.
#[derive(Clone)]
pub(crate) struct MemoryMetric {
    device: Device,
    looked: Option<Instant>,
    current: f64,
    highest: f64,
}

impl MemoryMetric {
    pub(crate) fn new(device: Device) -> Self {
        Self {
            device,
            looked: None,
            current: f64::NAN,
            highest: 0.0,
        }
    }

    /// Whether anything can be known.
    pub(crate) fn is_known(&self) -> bool {
        in_use(&self.device).is_some()
    }

    fn entry(&self) -> SerializedEntry {
        let value = NumericEntry::Value(self.current).serialize();
        let text = format!("now {:.0} - highest {:.0}", self.current, self.highest);
        SerializedEntry::new(text, value)
    }
}

impl Metric for MemoryMetric {
    type Input = StepReport;

    fn name(&self) -> MetricName {
        Arc::new(MEMORY.to_string())
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: Some("MiB".to_string()),
            higher_is_better: false,
        }
        .into()
    }

    fn update(
        &mut self,
        _report: &StepReport,
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= PAUSE) {
            self.looked = Some(Instant::now());
            if let Some(bytes) = in_use(&self.device) {
                self.current = bytes as f64 / (1 << 20) as f64;
                self.highest = self.highest.max(self.current);
            }
        }
        Ok(self.entry())
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.entry())
    }

    fn clear(&mut self) {}
}

impl Numeric for MemoryMetric {
    fn value(&self) -> Option<NumericEntry> {
        Some(NumericEntry::Value(self.current))
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(NumericEntry::Value(self.current))
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Final(self.highest)
    }
}

/// What the device's pools have reserved, or what is resident of the process.
fn in_use(device: &Device) -> Option<u64> {
    match device.memory_pool_usage() {
        Some(usage) => Some(usage.bytes_reserved),
        None => status("VmRSS:"),
    }
}

/// The most that was ever resident of the process, where the system tells (Linux).
pub(crate) fn peak_memory_bytes() -> Option<u64> {
    status("VmHWM:")
}

fn status(field: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}
