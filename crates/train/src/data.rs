use std::sync::Arc;

use burn::tensor::Device;
use burn_lora_data::{Batch, BatchPlan, Batches, Example};

use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::loader::{TrainLoader, ValidLoader};
use crate::model::CausalLm;

/// What a run trains on and is validated with.
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
    /// Checks that the examples fit the configuration and the model.
    ///
    /// # Errors
    /// [`TrainError::Config`] with all faults.
    pub(crate) fn check<M: CausalLm>(
        &self,
        model: &M,
        config: &TrainConfig,
    ) -> Result<(), TrainError> {
        let mut faults = Vec::new();
        if self.train.is_empty() {
            faults.push("there is no training example".to_string());
        }
        let all = || self.train.iter().chain(&self.valid);
        let too_long = all()
            .filter(|example| example.len() > config.max_seq_len)
            .count();
        if too_long > 0 {
            faults.push(format!(
                "{too_long} examples are longer than max_seq_len, {} tokens; cut them where they are encoded",
                config.max_seq_len
            ));
        }
        let longest = all().map(Example::len).max().unwrap_or(0);
        let positions = model.max_positions();
        if longest > positions {
            faults.push(format!(
                "an example has {longest} tokens, the model has {positions} positions"
            ));
        }
        if config.packing && config.max_seq_len > positions {
            faults.push(format!(
                "packed rows have max_seq_len tokens, {}; the model has {positions} positions",
                config.max_seq_len
            ));
        }
        let ids = all().flat_map(Example::ids).chain([&self.pad]);
        let (largest, vocab_size) = (ids.max().copied().unwrap_or(0), model.vocab_size());
        if largest as usize >= vocab_size {
            faults.push(format!(
                "the token {largest} is outside the model's vocabulary of {vocab_size}"
            ));
        }
        match faults.is_empty() {
            true => Ok(()),
            false => Err(TrainError::Config { faults }),
        }
    }

    /// The loaders of a run that begins after `first_step` steps.
    ///
    /// # Errors
    /// [`TrainError::Data`] for a batch size of zero.
    pub(crate) fn into_loaders(
        self,
        config: &TrainConfig,
        first_step: usize,
        device: &Device,
    ) -> Result<(Arc<TrainLoader>, Arc<ValidLoader>), TrainError> {
        let valid = by_length(&self.valid, config.batch_size, self.pad)?;
        let batches = batches_of(self.train, self.pad, config)?;
        Ok((
            Arc::new(TrainLoader::new(
                batches,
                config,
                first_step,
                device.clone(),
            )),
            Arc::new(ValidLoader::new(valid, device.clone())),
        ))
    }
}

/// The training batches, in the order of the configuration's seed.
pub(crate) fn batches_of(
    examples: Vec<Example>,
    pad: u32,
    config: &TrainConfig,
) -> Result<Batches, TrainError> {
    let (rows, seed) = (config.batch_size, config.seed);
    Ok(match config.packing {
        true => Batches::packed(examples, config.max_seq_len, rows, pad, seed)?,
        false => Batches::new(examples, rows, pad, seed)?,
    })
}

/// Batches of examples of like length.
pub(crate) fn by_length(
    examples: &[Example],
    batch_size: usize,
    pad: u32,
) -> Result<Vec<Batch>, TrainError> {
    let lengths: Vec<usize> = examples.iter().map(Example::len).collect();
    let plan = BatchPlan::by_length(&lengths, batch_size)?;
    Ok(plan
        .iter()
        .map(|batch| Batch::new(batch.iter().map(|&index| &examples[index]), pad))
        .collect())
}
