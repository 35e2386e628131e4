use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use burn_lora_data::BatchPlan;

use crate::config::TrainConfig;
use crate::data::by_length;
use crate::error::TrainError;
use crate::step::StepInput;
use crate::task::Task;

/// Batches of a run, each of which follows from its number.
pub(crate) trait BatchSource<B>: Send + Sync {
    /// The batches from one on, which is number 0 at the start of the run.
    fn starting_at<'a>(&'a self, first: usize, device: &'a Device) -> BatchStream<'a, B>;
}

pub(crate) type BatchStream<'a, B> = Box<dyn Iterator<Item = Result<B, DatasetError>> + 'a>;

/// Examples in epochs without end, each in an order of its own.
pub(crate) struct Shuffled<M, T: Task<M>> {
    task: T,
    examples: Vec<T::Example>,
    /// The examples of each row.
    rows: Vec<Vec<usize>>,
    /// The tokens of each row.
    lengths: Vec<usize>,
    batch_size: usize,
    seed: u64,
    model: PhantomData<fn(&M)>,
}

impl<M, T: Task<M>> Shuffled<M, T> {
    pub(crate) fn new(
        task: T,
        examples: Vec<T::Example>,
        rows: Vec<Vec<usize>>,
        config: &TrainConfig,
    ) -> Result<Self, TrainError> {
        let tokens = |row: &Vec<usize>| row.iter().map(|at| task.length(&examples[*at])).sum();
        let lengths: Vec<usize> = rows.iter().map(tokens).collect();
        // Checked once, here: the plans of later epochs have the same batch size.
        BatchPlan::by_length(&lengths, config.batch_size)?;
        Ok(Self {
            task,
            examples,
            rows,
            lengths,
            batch_size: config.batch_size,
            seed: config.seed,
            model: PhantomData,
        })
    }
}

impl<M, T: Task<M>> BatchSource<T::Batch> for Shuffled<M, T> {
    fn starting_at<'a>(&'a self, first: usize, device: &'a Device) -> BatchStream<'a, T::Batch> {
        let per_epoch = self.rows.len().div_ceil(self.batch_size);
        let mut current: Option<(usize, BatchPlan)> = None;
        let batches = (first..).map(move |number| {
            let epoch = number / per_epoch;
            if current
                .as_ref()
                .is_none_or(|(planned, _)| *planned != epoch)
            {
                let plan = BatchPlan::new(&self.lengths, self.batch_size, self.seed, epoch as u64);
                current = Some((epoch, plan.map_err(DatasetError::new)?));
            }
            let rows = current
                .as_ref()
                .and_then(|(_, plan)| plan.get(number % per_epoch));
            let examples = |row: &usize| self.rows[*row].iter().map(|at| &self.examples[*at]);
            let rows: Vec<Vec<&T::Example>> = rows
                .unwrap_or_default()
                .iter()
                .map(|row| examples(row).collect())
                .collect();
            Ok(self.task.batch(&rows, seed_of(self.seed, number), device))
        });
        Box::new(batches)
    }
}

/// Examples in order of length, each once.
pub(crate) struct Ordered<M, T: Task<M>> {
    task: T,
    examples: Vec<T::Example>,
    batches: Vec<Vec<usize>>,
    model: PhantomData<fn(&M)>,
}

impl<M, T: Task<M>> Ordered<M, T> {
    pub(crate) fn new(
        task: T,
        examples: Vec<T::Example>,
        batch_size: usize,
    ) -> Result<Self, TrainError> {
        Ok(Self {
            batches: by_length(&task, &examples, batch_size)?,
            task,
            examples,
            model: PhantomData,
        })
    }

    /// How many batches there are.
    pub(crate) fn len(&self) -> usize {
        self.batches.len()
    }
}

impl<M, T: Task<M>> BatchSource<T::Batch> for Ordered<M, T> {
    fn starting_at<'a>(&'a self, first: usize, device: &'a Device) -> BatchStream<'a, T::Batch> {
        let batches = self.batches.iter().enumerate().skip(first);
        Box::new(batches.map(move |(number, batch)| {
            let rows: Vec<Vec<&T::Example>> =
                batch.iter().map(|at| vec![&self.examples[*at]]).collect();
            // The same draws in every validation, so that their losses can be compared.
            Ok(self.task.batch(&rows, seed_of(0, number), device))
        }))
    }
}

/// The training data as intervals of optimizer steps: one of burn-train's epochs goes on where the last one stopped.
///
/// Everything in a step follows from the seed and the number of the step, the random numbers of dropout included. A run
/// that is resumed needs no more than that number to be the same run.
pub(crate) struct TrainLoader<B> {
    batches: Arc<dyn BatchSource<B>>,
    plan: StepPlan,
    next_step: Arc<AtomicUsize>,
    device: Device,
}

impl<B> Clone for TrainLoader<B> {
    fn clone(&self) -> Self {
        Self {
            batches: self.batches.clone(),
            plan: self.plan,
            next_step: self.next_step.clone(),
            device: self.device.clone(),
        }
    }
}

/// How steps are cut from the data.
#[derive(Clone, Copy, Debug)]
struct StepPlan {
    steps: usize,
    interval: usize,
    batches_per_step: usize,
    seed: u64,
}

impl<B> TrainLoader<B> {
    pub(crate) fn new(
        batches: Arc<dyn BatchSource<B>>,
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
}

/// Spreads neighbouring numbers over the seeds (the fraction of the golden ratio, in 64 bits).
pub(crate) fn seed_of(seed: u64, number: usize) -> u64 {
    seed ^ (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl<B: Send + 'static> DataLoader<StepInput<B>> for TrainLoader<B> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<StepInput<B>> + 'a> {
        let first = self.next_step.load(Ordering::SeqCst);
        // To the end of the interval, in which a resumed run may stand.
        let end = (first / self.plan.interval + 1) * self.plan.interval;
        let end = end.min(self.plan.steps).max(first);
        self.next_step.store(end, Ordering::SeqCst);
        let first_batch = first * self.plan.batches_per_step;
        Box::new(StepIterator {
            batches: self.batches.starting_at(first_batch, &self.device),
            batches_per_step: self.plan.batches_per_step,
            seeds: Some(Seeds {
                device: &self.device,
                seed: self.plan.seed,
                first_step: first,
            }),
            progress: Progress::new(0, end - first, Some("steps".to_string())),
        })
    }

    fn num_items(&self) -> usize {
        self.plan.interval
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<StepInput<B>>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.clone()
        })
    }

    /// Only burn-train's strategies for several devices slice, and none of them is used.
    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<StepInput<B>>> {
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

/// Batches, so many together.
struct StepIterator<'a, B> {
    batches: BatchStream<'a, B>,
    batches_per_step: usize,
    /// Of training, in which a model draws.
    seeds: Option<Seeds<'a>>,
    progress: Progress,
}

/// The random numbers of each step.
struct Seeds<'a> {
    device: &'a Device,
    seed: u64,
    first_step: usize,
}

impl<B> Iterator for StepIterator<'_, B> {
    type Item = Result<StepInput<B>, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.progress.is_completed() {
            return None;
        }
        if let Some(seeds) = &self.seeds {
            let step = seeds.first_step + self.progress.items_processed;
            seeds.device.seed(seed_of(seeds.seed, step));
        }
        self.progress.items_processed += 1;
        let batches = self.batches.by_ref().take(self.batches_per_step);
        let batches: Result<Vec<B>, DatasetError> = batches.collect();
        Some(batches.map(|batches| StepInput { batches }))
    }
}

impl<B> DataLoaderIterator<StepInput<B>> for StepIterator<'_, B> {
    fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

/// The validation data, the same batches every time.
pub(crate) struct ValidLoader<B> {
    first: usize,
    count: usize,
    batches: Arc<dyn BatchSource<B>>,
    device: Device,
}

impl<B> ValidLoader<B> {
    pub(crate) fn new(count: usize, batches: Arc<dyn BatchSource<B>>, device: Device) -> Self {
        Self {
            first: 0,
            count,
            batches,
            device,
        }
    }
}

impl<B: Send + 'static> DataLoader<StepInput<B>> for ValidLoader<B> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<StepInput<B>> + 'a> {
        Box::new(StepIterator {
            batches: self.batches.starting_at(self.first, &self.device),
            batches_per_step: 1,
            seeds: None,
            progress: Progress::new(0, self.count, Some("batches".to_string())),
        })
    }

    fn num_items(&self) -> usize {
        self.count
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<StepInput<B>>> {
        Arc::new(Self {
            first: self.first,
            count: self.count,
            batches: self.batches.clone(),
            device: device.clone(),
        })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<StepInput<B>>> {
        let end = end.min(self.count);
        Arc::new(Self {
            first: self.first + start,
            count: end.saturating_sub(start),
            batches: self.batches.clone(),
            device: self.device.clone(),
        })
    }
}
