//! An adapter whose factors start as its configuration says, from the data that it will be trained on where need be.

use burn::tensor::Device;
use burn_lora_adapter::{
    AdapterError, Evidence, Initialization, LoraConfig, LoraInit, Needs, Observer, attach,
    attach_initialized, weight_gradients,
};
use burn_lora_data::{Batch, BatchTensors};

use crate::config::TrainConfig;
use crate::data::{TrainData, batches_of};
use crate::error::TrainError;
use crate::model::CausalLm;
use crate::step::{hidden_of, loss_sum};

/// Attaches an adapter as [`attach`] does. Where its [initialization](LoraInit::Informed) looks at data, the model is shown the
/// first `batches` batches of the training, as they will come: EVA and CorDA see the inputs of the layers at every token, LoRA-GA
/// the gradients of the weights, which takes the memory of one full backward.
///
/// Returns the configuration that describes the adapter: EVA hands out the ranks anew. A resumed run must attach in the same way,
/// since the base follows from it.
///
/// # Errors
/// As [`attach`] and [`attach_initialized`]; [`TrainError::Data`] for batches that cannot be made.
pub fn attach_adapter<M: CausalLm>(
    model: M,
    name: &str,
    lora: &LoraConfig,
    data: &TrainData,
    config: &TrainConfig,
    batches: usize,
) -> Result<(M, LoraConfig), TrainError> {
    let LoraInit::Informed(initialization) = &lora.init else {
        return Ok((attach(model, name, lora)?, lora.clone()));
    };
    let batches = match initialization.needs() {
        Needs::Weights => Vec::new(),
        Needs::Inputs | Needs::Gradients => first_batches(data, config, batches)?,
    };
    let evidence = gather(&model, lora, initialization, &batches)?;
    let started = attach_initialized(model, name, lora, initialization, &evidence)?;
    Ok((started.module, started.config))
}

/// The batches that the training begins with.
fn first_batches(
    data: &TrainData,
    config: &TrainConfig,
    count: usize,
) -> Result<Vec<Batch>, TrainError> {
    let mut batches = batches_of(data.train.clone(), data.pad, config)?;
    Ok((0..count).map(|_| batches.next_batch()).collect())
}

/// What an initialization has to see of the model.
fn gather<M: CausalLm>(
    model: &M,
    lora: &LoraConfig,
    initialization: &Initialization,
    batches: &[Batch],
) -> Result<Evidence, AdapterError> {
    let device = |model: &M| -> Device { model.devices().remove(0) };
    match initialization.needs() {
        Needs::Weights => Ok(Evidence::default()),
        Needs::Inputs => {
            let mut observer = Observer::new(model, lora, initialization)?;
            for batch in batches {
                let batch = batch.to_device(&device(model));
                let real = real_tokens(&batch);
                observer.watch(Some(&real), || hidden_of(model, &batch));
            }
            observer.finish()
        }
        Needs::Gradients => {
            let model = model.clone().train();
            let device = device(&model);
            let loss = |model: &M, index: usize| {
                let batch = batches[index].to_device(&device);
                loss_sum(model, &batch).div_scalar(batch.learned.max(1) as f64)
            };
            weight_gradients(&model, lora, batches.len(), loss)
        }
    }
}

/// Which positions of a batch hold a token and no padding.
fn real_tokens(batch: &BatchTensors) -> Vec<bool> {
    let [_, seq_len] = batch.ids.dims();
    let lengths = batch.lengths.iter();
    lengths
        .flat_map(|length| (0..seq_len).map(move |position| position < *length))
        .collect()
}
