//! The adapter of a run, with factors that start as the configuration says.

use burn::module::Module;
use burn::tensor::Device;
use burn_lora_adapter::{
    DEFAULT_NAME, Evidence, Initialization, LoraConfig, LoraInit, Needs, Observer, attach,
    attach_initialized, weight_gradients,
};

use super::config::RunConfig;
use super::execute::RunError;
use super::job::Job;
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::loader::{BatchSource, Shuffled};
use crate::task::Task;

/// Attaches an adapter to the base that `load` gives. Where the initialization looks at data, the base is shown what the training
/// begins with. Returns the configuration that describes the adapter, whose ranks EVA may have handed out anew.
///
/// # Errors
/// Those of `load`; as [`attach`] and [`attach_initialized`]; [`RunError::Train`] for batches that cannot be made.
pub(super) fn attach_adapter<J: Job>(
    config: &RunConfig,
    lora: LoraConfig,
    task: &J::Task,
    examples: &[Example<J>],
    device: &Device,
    base: J::Model,
    load: impl Fn(&RunConfig) -> Result<J::Model, RunError>,
) -> Result<(J::Model, LoraConfig), RunError> {
    let LoraInit::Informed(initialization) = &lora.init else {
        return Ok((attach(base, DEFAULT_NAME, &lora)?, lora));
    };
    if config.data.stream && !matches!(initialization.needs(), Needs::Weights) {
        let fault = "data.stream: these factors start from examples, which are not read beforehand";
        return Err(TrainError::Config {
            faults: vec![fault.into()],
        }
        .into());
    }
    let shown = Shown::<J> {
        config,
        task,
        examples,
    };
    let (base, evidence) = match initialization.needs() {
        Needs::Weights => (base, Evidence::default()),
        Needs::Inputs => {
            let evidence = shown.inputs(&base, &lora, initialization, device)?;
            (base, evidence)
        }
        Needs::Gradients if config.recompute == 0 => {
            let evidence = shown.gradients(base.clone(), &lora, device)?;
            (base, evidence)
        }
        // Blocks that are computed again give gradients to adapters only; one base at a time is in memory.
        Needs::Gradients => {
            drop(base);
            let keeps_all = RunConfig {
                recompute: 0,
                ..config.clone()
            };
            let evidence = shown.gradients(load(&keeps_all)?, &lora, device)?;
            (load(config)?, evidence)
        }
    };
    let started = attach_initialized(base, DEFAULT_NAME, &lora, initialization, &evidence)?;
    Ok((started.module, started.config))
}

/// The examples that the training begins with.
struct Shown<'a, J: Job> {
    config: &'a RunConfig,
    task: &'a J::Task,
    examples: &'a [Example<J>],
}

type Example<J> = <<J as Job>::Task as Task<<J as Job>::Model>>::Example;
type Batch<J> = <<J as Job>::Task as Task<<J as Job>::Model>>::Batch;

impl<J: Job> Shown<'_, J> {
    /// As many as the first batches of the training hold, in batches of `batch_size`.
    fn batches(&self, batch_size: usize, device: &Device) -> Result<Vec<Batch<J>>, RunError> {
        let config = TrainConfig {
            batch_size,
            ..self.config.train_config()
        };
        let rows = (0..self.examples.len()).map(|index| vec![index]).collect();
        let source = Shuffled::new(self.task.clone(), self.examples.to_vec(), rows, &config)?;
        let examples = self.config.adapter.initialization_batches * self.config.training.batch_size;
        let batches = source.starting_at(0, device);
        let batches: Result<Vec<_>, _> = batches.take(examples.div_ceil(batch_size)).collect();
        batches.map_err(|error| TrainError::Learner(error.to_string()).into())
    }

    /// The inputs of the layers: of one example at a time, so that no padding is among them.
    fn inputs(
        &self,
        base: &J::Model,
        lora: &LoraConfig,
        initialization: &Initialization,
        device: &Device,
    ) -> Result<Evidence, RunError> {
        let mut observer = Observer::new(base, lora, initialization)?;
        for batch in self.batches(1, device)? {
            observer.watch(None, || self.task.loss_sum(base, &batch));
        }
        Ok(observer.finish()?)
    }

    /// The gradients of the weights.
    fn gradients(
        &self,
        base: J::Model,
        lora: &LoraConfig,
        device: &Device,
    ) -> Result<Evidence, RunError> {
        let device = device.clone().autodiff();
        let batches = self.batches(self.config.training.batch_size, &device)?;
        let loss = |model: &J::Model, index: usize| {
            let learned = self.task.counts(&batches[index]).learned.max(1);
            let sum = self.task.loss_sum(model, &batches[index]);
            sum.div_scalar(learned as f64)
        };
        let base = base.train();
        Ok(weight_gradients(&base, lora, batches.len(), loss)?)
    }
}
