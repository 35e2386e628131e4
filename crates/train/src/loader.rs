use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use burn_lora_data::{Batch, BatchState, Batches};

use crate::config::TrainConfig;
use crate::step::StepInput;

/// The training data as intervals of optimizer steps: one of burn-train's epochs goes on where the last one stopped.
///
/// Everything in a step follows from the seed and the number of the step, the random numbers of dropout included. A run
/// that is resumed needs no more than that number to be the same run.
#[derive(Clone)]
pub(crate) struct TrainLoader {
    batches: Batches,
    plan: StepPlan,
    next_step: Arc<AtomicUsize>,
    device: Device,
}

/// How steps are cut from the data.
#[derive(Clone, Copy, Debug)]
struct StepPlan {
    steps: usize,
    interval: usize,
    batches_per_step: usize,
    seed: u64,
}

impl TrainLoader {
    pub(crate) fn new(
        batches: Batches,
        config: &TrainConfig,
        first_step: usize,
        device: Device,
    ) -> Self {
        Self {
            batches,
            plan: StepPlan {
                steps: config.steps,
                interval: config.interval(),
                batches_per_step: config.grad_accumulation,
                seed: config.seed,
            },
            next_step: Arc::new(AtomicUsize::new(first_step)),
            device,
        }
    }

    /// Where the data stands before a step.
    fn state_at(&self, step: usize) -> BatchState {
        let batch = step * self.plan.batches_per_step;
        let per_epoch = self.batches.batches_per_epoch();
        BatchState {
            epoch: (batch / per_epoch) as u64,
            position: batch % per_epoch,
            ..self.batches.state()
        }
    }
}

/// Spreads neighbouring steps over the seeds (the fraction of the golden ratio, in 64 bits).
fn seed_of(seed: u64, step: usize) -> u64 {
    seed ^ (step as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl DataLoader<StepInput> for TrainLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<StepInput> + 'a> {
        let first = self.next_step.load(Ordering::SeqCst);
        // To the end of the interval, in which a resumed run may stand.
        let end = (first / self.plan.interval + 1) * self.plan.interval;
        let end = end.min(self.plan.steps).max(first);
        self.next_step.store(end, Ordering::SeqCst);
        let mut batches = self.batches.clone();
        let failed = batches.restore(self.state_at(first)).err();
        Box::new(StepIterator {
            batches,
            failed: failed.map(DatasetError::new),
            plan: self.plan,
            first,
            device: &self.device,
            progress: Progress::new(0, end - first, Some("steps".to_string())),
        })
    }

    fn num_items(&self) -> usize {
        self.plan.interval
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<StepInput>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.clone()
        })
    }

    /// Only burn-train's strategies for several devices slice, and none of them is used.
    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<StepInput>> {
        let plan = StepPlan {
            interval: end.saturating_sub(start),
            ..self.plan
        };
        Arc::new(Self {
            plan,
            ..self.clone()
        })
    }
}

struct StepIterator<'a> {
    batches: Batches,
    failed: Option<DatasetError>,
    plan: StepPlan,
    first: usize,
    device: &'a Device,
    progress: Progress,
}

impl Iterator for StepIterator<'_> {
    type Item = Result<StepInput, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        if self.progress.is_completed() {
            return None;
        }
        let step = self.first + self.progress.items_processed;
        self.device.seed(seed_of(self.plan.seed, step));
        self.progress.items_processed += 1;
        let batches = (0..self.plan.batches_per_step)
            .map(|_| self.batches.next_batch().to_device(self.device))
            .collect();
        Some(Ok(StepInput { batches }))
    }
}

impl DataLoaderIterator<StepInput> for StepIterator<'_> {
    fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

/// The validation data, the same batches every time.
#[derive(Clone)]
pub(crate) struct ValidLoader {
    batches: Arc<[Batch]>,
    device: Device,
}

impl ValidLoader {
    pub(crate) fn new(batches: Vec<Batch>, device: Device) -> Self {
        Self {
            batches: batches.into(),
            device,
        }
    }
}

impl DataLoader<StepInput> for ValidLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<StepInput> + 'a> {
        let progress = Progress::new(0, self.batches.len(), Some("batches".to_string()));
        Box::new(BatchIterator {
            loader: self,
            progress,
        })
    }

    fn num_items(&self) -> usize {
        self.batches.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<StepInput>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.clone()
        })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<StepInput>> {
        let batches = self.batches.iter().take(end).skip(start).cloned().collect();
        Arc::new(Self {
            batches,
            ..self.clone()
        })
    }
}

struct BatchIterator<'a> {
    loader: &'a ValidLoader,
    progress: Progress,
}

impl Iterator for BatchIterator<'_> {
    type Item = Result<StepInput, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.loader.batches.get(self.progress.items_processed)?;
        self.progress.items_processed += 1;
        Some(Ok(StepInput {
            batches: vec![batch.to_device(&self.loader.device)],
        }))
    }
}

impl DataLoaderIterator<StepInput> for BatchIterator<'_> {
    fn progress(&self) -> Progress {
        self.progress.clone()
    }
}
