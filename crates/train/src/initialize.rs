//! An adapter whose factors start as its configuration says, from the data that it will be trained on where need be.

use burn::module::Module;
use burn_lora_adapter::{
    Evidence, LoraConfig, LoraInit, Needs, Observer, attach, attach_initialized, weight_gradients,
};

use crate::config::TrainConfig;
use crate::data::TrainData;
use crate::error::TrainError;
use crate::loader::{BatchSource, Shuffled};
use crate::model::CausalLm;
use crate::task::{Causal, Task};

/// Attaches an adapter to a language model: [`attach_task_adapter`] for the next token.
///
/// # Errors
/// As [`attach_task_adapter`].
pub fn attach_adapter<M: CausalLm>(
    model: M,
    name: &str,
    lora: &LoraConfig,
    data: &TrainData,
    config: &TrainConfig,
    batches: usize,
) -> Result<(M, LoraConfig), TrainError> {
    let task = Causal { pad: data.pad };
    attach_task_adapter(model, name, lora, &task, &data.train, config, batches)
}

/// Attaches an adapter as [`attach`] does. Where its [initialization](LoraInit::Informed) looks at data, the model is shown
/// as many of the training examples as `batches` batches hold: EVA and CorDA see the inputs of the layers, of one example at a
/// time, so that no padding is among them; LoRA-GA sees the gradients of the weights, which takes the memory of one full backward
/// and a model whose blocks are not computed again.
///
/// Returns the configuration that describes the adapter: EVA hands out the ranks anew. A resumed run must attach in the same way,
/// since the base follows from it.
///
/// # Errors
/// As [`attach`] and [`attach_initialized`]; [`TrainError::Data`] for batches that cannot be made.
pub fn attach_task_adapter<M: Module + 'static, T: Task<M>>(
    model: M,
    name: &str,
    lora: &LoraConfig,
    task: &T,
    examples: &[T::Example],
    config: &TrainConfig,
    batches: usize,
) -> Result<(M, LoraConfig), TrainError> {
    let evidence = evidence(&model, lora, task, examples, config, batches)?;
    attach_with(model, name, lora, &evidence)
}

/// Whether an adapter of this configuration starts from gradients of the weights.
pub(crate) fn needs_gradients(lora: &LoraConfig) -> bool {
    match &lora.init {
        LoraInit::Informed(initialization) => initialization.needs() == Needs::Gradients,
        _ => false,
    }
}

/// Attaches an adapter with what its initialization has seen.
pub(crate) fn attach_with<M: Module>(
    model: M,
    name: &str,
    lora: &LoraConfig,
    evidence: &Evidence,
) -> Result<(M, LoraConfig), TrainError> {
    let LoraInit::Informed(initialization) = &lora.init else {
        return Ok((attach(model, name, lora)?, lora.clone()));
    };
    let started = attach_initialized(model, name, lora, initialization, evidence)?;
    Ok((started.module, started.config))
}

/// What the initialization of an adapter has to see of the model.
pub(crate) fn evidence<M: Module + 'static, T: Task<M>>(
    model: &M,
    lora: &LoraConfig,
    task: &T,
    examples: &[T::Example],
    config: &TrainConfig,
    batches: usize,
) -> Result<Evidence, TrainError> {
    let LoraInit::Informed(initialization) = &lora.init else {
        return Ok(Evidence::default());
    };
    let first = |batch_size, model: &M| -> Result<Vec<T::Batch>, TrainError> {
        let device = model.devices().remove(0);
        let rows = (0..examples.len()).map(|index| vec![index]).collect();
        let own = TrainConfig {
            batch_size,
            ..config.clone()
        };
        let source = Shuffled::new(task.clone(), examples.to_vec(), rows, &own)?;
        let count = (batches * config.batch_size).div_ceil(batch_size);
        let batches: Result<Vec<T::Batch>, _> =
            source.starting_at(0, &device).take(count).collect();
        batches.map_err(|error| TrainError::Learner(error.to_string()))
    };
    Ok(match initialization.needs() {
        Needs::Weights => Evidence::default(),
        Needs::Inputs => {
            let mut observer = Observer::new(model, lora, initialization)?;
            for batch in first(1, model)? {
                observer.watch(None, || task.loss_sum(model, &batch));
            }
            observer.finish()?
        }
        Needs::Gradients => {
            let model = model.clone().train();
            let batches = first(config.batch_size, &model)?;
            let loss = |model: &M, index: usize| {
                let learned = task.counts(&batches[index]).learned.max(1);
                let sum = task.loss_sum(model, &batches[index]);
                sum.div_scalar(learned as f64)
            };
            weight_gradients(&model, lora, batches.len(), loss)?
        }
    })
}
