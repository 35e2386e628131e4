use std::sync::Arc;

use burn::tensor::Device;
use burn_lora_data::{BatchPlan, Example, pack};

use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::loader::{Ordered, Shuffled, TrainLoader, ValidLoader};
use crate::task::{Causal, Task};

/// What a causal language model trains on and is validated with.
#[derive(Clone, Debug)]
pub struct TrainData {
    /// Examples to learn.
    pub train: Vec<Example>,
    /// Examples to validate with; may be empty.
    pub valid: Vec<Example>,
    /// The token that fills batches up. Its value has no influence; the model must know it.
    pub pad: u32,
}

impl TrainData {
    /// The task of this data, and its examples.
    pub(crate) fn into_task(self) -> (Causal, TaskData<Example>) {
        let data = TaskData {
            train: self.train,
            valid: self.valid,
        };
        (Causal { pad: self.pad }, data)
    }
}

/// What a task trains on and is validated with.
#[derive(Clone, Debug)]
pub struct TaskData<E> {
    /// Examples to learn.
    pub train: Vec<E>,
    /// Examples to validate with; may be empty.
    pub valid: Vec<E>,
}

/// The loaders of a run.
type Loaders<B> = (Arc<TrainLoader<B>>, Arc<ValidLoader<B>>);

impl<E: Clone + Send + Sync + 'static> TaskData<E> {
    /// Checks that the examples fit the configuration and the model.
    ///
    /// # Errors
    /// [`TrainError::Config`] with all faults.
    pub(crate) fn check<M, T: Task<M, Example = E>>(
        &self,
        task: &T,
        model: &M,
        config: &TrainConfig,
        is_streamed: bool,
    ) -> Result<(), TrainError> {
        let mut faults = Vec::new();
        if is_streamed && config.packing {
            faults.push("packing needs all examples; leave it out where they are streamed".into());
        }
        if self.train.is_empty() && !is_streamed {
            faults.push("there is no training example".to_string());
        }
        let all: Vec<&E> = self.train.iter().chain(&self.valid).collect();
        let limit = config.max_seq_len;
        let too_long = all
            .iter()
            .filter(|example| task.length(example) > limit)
            .count();
        if too_long > 0 {
            faults.push(format!(
                "{too_long} examples are longer than max_seq_len, {limit} tokens; cut them where they are encoded"
            ));
        }
        if config.packing && !task.packs() {
            faults.push(
                "packing is for language models that predict the next token; leave it out".into(),
            );
        }
        if !config.terms().is_none() && !task.has_terms() {
            faults.push(
                "label_smoothing and z_loss are for language models that predict the next token; leave them out"
                    .into(),
            );
        }
        faults.extend(task.faults(model, config, &all));
        match faults.is_empty() {
            true => Ok(()),
            false => Err(TrainError::Config { faults }),
        }
    }

    /// The loaders of a run that begins after `first_step` steps.
    ///
    /// # Errors
    /// [`TrainError::Data`] for a batch size of zero.
    pub(crate) fn into_loaders<M: 'static, T: Task<M, Example = E>>(
        self,
        task: &T,
        config: &TrainConfig,
        first_step: usize,
        device: &Device,
    ) -> Result<Loaders<T::Batch>, TrainError> {
        let valid = Ordered::new(task.clone(), self.valid, config.batch_size)?;
        let lengths: Vec<usize> = self.train.iter().map(|one| task.length(one)).collect();
        let rows = match config.packing {
            true => pack(&lengths, config.max_seq_len)?,
            false => (0..lengths.len()).map(|index| vec![index]).collect(),
        };
        let train = Shuffled::new(task.clone(), self.train, rows, config)?;
        Ok((
            Arc::new(TrainLoader::new(
                Arc::new(train),
                config,
                first_step,
                device.clone(),
            )),
            Arc::new(ValidLoader::new(
                valid.len(),
                Arc::new(valid),
                device.clone(),
            )),
        ))
    }
}

/// Examples of like length together, by their numbers.
///
/// # Errors
/// [`TrainError::Data`] for a batch size of zero.
pub(crate) fn by_length<M, T: Task<M>>(
    task: &T,
    examples: &[T::Example],
    batch_size: usize,
) -> Result<Vec<Vec<usize>>, TrainError> {
    let lengths: Vec<usize> = examples.iter().map(|one| task.length(one)).collect();
    Ok(BatchPlan::by_length(&lengths, batch_size)?.into_batches())
}
