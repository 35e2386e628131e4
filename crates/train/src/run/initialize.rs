//! The adapter of a run, with factors that start as the configuration says.

use burn::module::Module;
use burn::tensor::Device;
use burn_lora_adapter::{
    DEFAULT_NAME, Evidence, Initialization, LoraConfig, LoraInit, Needs, Observer, attach,
    attach_initialized, weight_gradients,
};
use burn_lora_data::{Batch, BatchTensors, Batches, Example};
use burn_lora_transformer::Decoder;

use super::config::RunConfig;
use super::execute::RunError;
use crate::model::CausalLm;
use crate::step::loss_sum;

/// Attaches the adapter of a configuration. Where its initialization looks at data, the first batches of the training are shown
/// to the base, as they will come. Returns the configuration that describes the adapter, whose ranks EVA may have handed out anew.
///
/// # Errors
/// As [`attach`] and [`attach_initialized`]; [`RunError::Data`] for batches that cannot be made.
pub(super) fn attach_adapter(
    base: Decoder,
    config: &RunConfig,
    examples: &[Example],
    pad: u32,
    device: &Device,
) -> Result<(Decoder, LoraConfig), RunError> {
    let lora = config.lora_config();
    let LoraInit::Informed(initialization) = &lora.init else {
        return Ok((attach(base, DEFAULT_NAME, &lora)?, lora));
    };
    let batches = match initialization.needs() {
        Needs::Weights => Vec::new(),
        Needs::Inputs | Needs::Gradients => first_batches(config, examples, pad)?,
    };
    let evidence = gather(&base, &lora, initialization, &batches, device)?;
    let started = attach_initialized(base, DEFAULT_NAME, &lora, initialization, &evidence)?;
    Ok((started.module, started.config))
}

/// The batches that the training begins with.
fn first_batches(
    config: &RunConfig,
    examples: &[Example],
    pad: u32,
) -> Result<Vec<Batch>, RunError> {
    let training = &config.training;
    let (rows, seed) = (training.batch_size, training.seed);
    let examples = examples.to_vec();
    let mut batches = match training.packing {
        true => Batches::packed(examples, training.max_seq_len, rows, pad, seed)?,
        false => Batches::new(examples, rows, pad, seed)?,
    };
    let count = config.adapter.initialization_batches;
    Ok((0..count).map(|_| batches.next_batch()).collect())
}

/// What an initialization has to see of the base.
fn gather(
    base: &Decoder,
    lora: &LoraConfig,
    initialization: &Initialization,
    batches: &[Batch],
    device: &Device,
) -> Result<Evidence, RunError> {
    match initialization.needs() {
        Needs::Weights => Ok(Evidence::default()),
        Needs::Inputs => {
            let mut observer = Observer::new(base, lora, initialization)?;
            for batch in batches {
                let batch = batch.to_device(device);
                let real = real_tokens(&batch);
                observer.watch(Some(&real), || match &batch.documents {
                    Some(documents) => base.hidden_packed(batch.ids.clone(), documents),
                    None => CausalLm::hidden(base, batch.ids.clone()),
                });
            }
            Ok(observer.finish()?)
        }
        Needs::Gradients => {
            let model = base.clone().with_recompute(0).train();
            let device = device.clone().autodiff();
            let loss = |model: &Decoder, index: usize| {
                let batch = batches[index].to_device(&device);
                let learned = batch.learned.max(1);
                loss_sum(model, &batch).div_scalar(learned as f64)
            };
            Ok(weight_gradients(&model, lora, batches.len(), loss)?)
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
