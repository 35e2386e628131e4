use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::module::{Module, ParamGroup};
use burn::optim::ModuleOptimizer;
use burn::train::logger::{FileMetricLogger, InMemoryMetricLogger};
use burn::train::metric::LearningRateMetric;
use burn::train::{Interrupter, Learner, SupervisedTraining};
use burn_lora_adapter::{AdapterOnly, up_projections};
use burn_lora_kernels::release_memory;

use crate::adamw::AdamW;
use crate::checkpoint::{Checkpoints, MODEL, OPTIMIZER, SCHEDULER, io_error};
use crate::config::TrainConfig;
use crate::data::TrainData;
use crate::error::TrainError;
use crate::metrics::{LossMetric, PerplexityMetric, SpeedMetric};
use crate::model::CausalLm;
use crate::observer::Observer;
use crate::step::{Trainee, trainable_parameters};
use crate::watch::{Split, Tally, Watch};

/// What a run leaves.
#[derive(Clone, Debug)]
pub struct Outcome<M> {
    /// The trained model, ready for inference.
    pub model: M,
    /// Mean loss over the learned tokens of the last interval between validations, while it was being learned; nothing
    /// if no step was left to do.
    pub train_loss: Option<f64>,
    /// Mean loss over the learned tokens of the validation examples, from the last validation.
    pub valid_loss: Option<f64>,
    /// Optimizer steps done, those before a resumed run included. Fewer than asked for if the run was stopped.
    pub steps: usize,
    /// Tokens trained on in this run, without padding.
    pub tokens: usize,
    /// Tokens among them that were learned.
    pub learned_tokens: usize,
    /// Seconds from the first step to the last, validations and checkpoints included.
    pub seconds: f64,
    /// Seconds of the first step, which on a GPU compiles its kernels.
    pub first_step_seconds: f64,
    /// Tokens per second of training steps, the first included, validations and checkpoints not.
    pub tokens_per_second: f64,
}

/// Trains the adapters of a model and leaves the base as it is, bit for bit.
///
/// Optimizer state and checkpoints hold adapter parameters only. See [`train`].
///
/// # Errors
/// As for [`train`]; [`TrainError::NothingTrainable`] where no adapter is attached.
pub fn finetune<M: CausalLm>(
    model: M,
    config: &TrainConfig,
    data: TrainData,
    observer: Observer,
) -> Result<Outcome<M>, TrainError> {
    let outcome = train(AdapterOnly::new(model), config, data, observer)?;
    Ok(outcome.map(AdapterOnly::into_inner))
}

/// Trains every parameter that the model shows and that is not frozen.
///
/// This is full training for a decoder whose parameters are open (`set_require_grad(true)`; a loaded or new one is frozen),
/// and training of the adapters alone for one in [`AdapterOnly`].
///
/// The model stays on its device and should not be on an autodiff device before. burn-train's learner has the loop; one
/// of its epochs is the interval between two validations, in which the data goes on where it stopped.
///
/// # Errors
/// - [`TrainError::Config`]: wrong settings, or examples that fit neither them nor the model; nothing was done.
/// - [`TrainError::NothingTrainable`]: every parameter is frozen.
/// - [`TrainError::NoTerminal`]: the dashboard without a terminal.
/// - [`TrainError::NotFinite`]: the loss became NaN or infinite.
/// - [`TrainError::Io`], [`TrainError::NoCheckpoint`], [`TrainError::Checkpoint`], [`TrainError::ResumeMismatch`]: files of
///   the run.
/// - [`TrainError::Learner`]: the device failed, or a checkpoint could not be written.
pub fn train<M: CausalLm>(
    model: M,
    config: &TrainConfig,
    data: TrainData,
    observer: Observer,
) -> Result<Outcome<M>, TrainError> {
    config.validate()?;
    data.check(&model, config)?;
    observer.check()?;
    let trainee = Trainee::new(model.train(), config.grad_clip_norm);
    if trainable_parameters(&trainee) == 0 {
        return Err(TrainError::NothingTrainable);
    }

    let checkpoints = Checkpoints::of(config);
    let resumed = resume(checkpoints.as_ref(), config, &trainee)?;
    let first_step = resumed.map_or(0, |interval| config.steps.min(interval * config.interval()));
    let trainee = trainee.after(first_step);
    let schedule = learning_rates(&trainee, config);

    let device = trainee.devices().remove(0);
    let trainee = trainee.on(&device);
    let with_validation = !data.valid.is_empty();
    let (train_loader, valid_loader) = data.into_loaders(config, first_step, &device)?;

    let logs = log_folder(config)?;

    let interrupter = Interrupter::new();
    let watch = Watch::new(first_step, interrupter.clone());
    let shown = [first_step, config.steps, config.log_every];
    let mut training = SupervisedTraining::new(folder(config), train_loader, valid_loader)
        .num_epochs(config.intervals())
        .renderer(observer.into_renderer(interrupter.clone(), resumed, shown))
        .with_interrupter(interrupter)
        // It would redirect the whole program's log and panic messages.
        .with_application_logger(None)
        .metric_train_numeric(LossMetric::new(Split::Train, watch.clone()))
        .metric_train_numeric(PerplexityMetric::default())
        .metric_train_numeric(SpeedMetric::default())
        .metric_train_numeric(LearningRateMetric::new());
    if with_validation {
        training = training
            .metric_valid_numeric(LossMetric::new(Split::Valid, watch.clone()))
            .metric_valid_numeric(PerplexityMetric::default());
    }
    training = match logs {
        Some(logs) => training.with_metric_logger(FileMetricLogger::new(logs)),
        None => training.with_metric_logger(InMemoryMetricLogger::new()),
    };
    if let Some(checkpoints) = &checkpoints {
        let part = |name| checkpoints.part(name, &watch, trainee.loss_scale());
        training = training
            .with_custom_checkpointers(part(MODEL), part(OPTIMIZER), part(SCHEDULER))
            .with_checkpointing_strategy(checkpoints.strategy());
    }
    if let Some(interval) = resumed {
        training = training.checkpoint(interval);
    }

    let started = Instant::now();
    let result = training.launch(Learner::new(trainee, adamw(config), schedule));
    let seconds = started.elapsed().as_secs_f64();
    // What comes next allocates other sizes.
    release_memory();
    // Closes the dashboard, so that what the caller prints next is seen.
    drop(result.renderer);
    if let Some(error) = result.error {
        watch.failed(error);
    }
    Ok(outcome(result.model.into_model(), watch.tally()?, seconds))
}

/// The interval after which an earlier run goes on, if it does.
fn resume<M: Module>(
    checkpoints: Option<&Checkpoints>,
    config: &TrainConfig,
    module: &M,
) -> Result<Option<usize>, TrainError> {
    let Some(checkpoints) = checkpoints else {
        return Ok(None);
    };
    let resumed = checkpoints.open(config)?;
    if let Some(interval) = resumed {
        checkpoints.check(module, interval)?;
    }
    Ok(resumed)
}

/// The recipe's optimizer: Decoupled Weight Decay Regularization, <https://arxiv.org/abs/1711.05101>, in PyTorch's form.
pub fn adamw(config: &TrainConfig) -> ModuleOptimizer {
    ModuleOptimizer::from(AdamW {
        beta_1: config.beta_1,
        beta_2: config.beta_2,
        epsilon: config.epsilon,
        weight_decay: config.weight_decay,
    })
}

/// The learning rate of every parameter: of LoRA's up-projections another one, if that is asked for.
pub fn learning_rates<M: Module>(module: &M, config: &TrainConfig) -> ModuleLrScheduler {
    let rates = ModuleLrScheduler::new(config.schedule());
    match config.lora_plus_ratio {
        None => rates,
        Some(ratio) => {
            let faster = TrainConfig {
                learning_rate: config.learning_rate * ratio,
                ..config.clone()
            };
            let group = ParamGroup::from_ids(up_projections(module));
            rates.with_group(group, faster.schedule())
        }
    }
}

/// The folder of the metric logs, made here because burn-train would panic where it cannot be.
fn log_folder(config: &TrainConfig) -> Result<Option<PathBuf>, TrainError> {
    let Some(dir) = &config.output_dir else {
        return Ok(None);
    };
    let logs = dir.join("logs");
    fs::create_dir_all(&logs).map_err(io_error(&logs))?;
    Ok(Some(logs))
}

/// Where burn-train would write what it is not asked for here.
fn folder(config: &TrainConfig) -> PathBuf {
    config.output_dir.clone().unwrap_or_default()
}

fn outcome<M>(model: M, tally: Tally, seconds: f64) -> Outcome<M> {
    Outcome {
        model,
        train_loss: tally.train_loss,
        valid_loss: tally.valid_loss,
        steps: tally.steps,
        tokens: tally.tokens,
        learned_tokens: tally.learned,
        seconds,
        first_step_seconds: tally.first_step_seconds.unwrap_or(0.0),
        tokens_per_second: tally.tokens as f64 / tally.step_seconds.max(1e-9),
    }
}

impl<M> Outcome<M> {
    /// The same with another model.
    fn map<N>(self, change: impl FnOnce(M) -> N) -> Outcome<N> {
        Outcome {
            model: change(self.model),
            train_loss: self.train_loss,
            valid_loss: self.valid_loss,
            steps: self.steps,
            tokens: self.tokens,
            learned_tokens: self.learned_tokens,
            seconds: self.seconds,
            first_step_seconds: self.first_step_seconds,
            tokens_per_second: self.tokens_per_second,
        }
    }
}
