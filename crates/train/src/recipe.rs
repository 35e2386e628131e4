use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::module::{Module, ParamGroup};
use burn::optim::OptimizerRecord;
use burn::store::ModuleRecord;
use burn::train::logger::InMemoryMetricLogger;
use burn::train::metric::LearningRateMetric;
use burn::train::renderer::MetricsRenderer;
use burn::train::{Interrupter, Learner, SupervisedTraining, TrainingStrategy};
use burn_lora_adapter::{AdapterOnly, up_projections};
use burn_lora_kernels::release_memory;
use burn_lora_transformer::PART_MODULES;

use crate::checkpoint::{Checkpoints, Marks, Resumed, RunState, io_error};
use crate::config::TrainConfig;
use crate::data::{TaskData, TrainData};
use crate::error::TrainError;
use crate::facts::{FactFiles, FactsRenderer, GradientNormMetric, MemoryMetric, ProgressMetric};
use crate::fit::Fit;
use crate::loader::TrainLoader;
use crate::metrics::{LossMetric, Measure, PerplexityMetric, SpeedMetric, TaskMetric};
use crate::model::CausalLm;
use crate::observer::Observer;
use crate::optimizer::optimizer;
use crate::samples::{SampleFile, Sampler};
use crate::source::{ExampleSource, Position, Streamed};
use crate::step::{Trainee, trainable_parameters};
use crate::stop::Stopped;
use crate::task::Task;
use crate::watch::{Split, Watch};

/// What a run leaves.
#[derive(Clone, Debug)]
pub struct Outcome<M> {
    /// The trained model, ready for inference.
    pub model: M,
    /// Mean loss over what was learned in the last interval between validations, while it was being learned; nothing if no
    /// step was left to do.
    pub train_loss: Option<f64>,
    /// Mean loss over what the validation examples have to learn, from the last validation; from that of the model where
    /// the best is kept and judged by it.
    pub valid_loss: Option<f64>,
    /// What the task measured in the last validation.
    pub valid_metrics: BTreeMap<String, f64>,
    /// Optimizer steps done, those before a resumed run included. Fewer than asked for if the run was stopped.
    pub steps: usize,
    /// Steps after which the model was as it is: fewer than `steps` where the best is kept.
    pub model_step: usize,
    /// Why it ended before its last step, if it did.
    pub stopped: Option<Stopped>,
    /// The last checkpoint, if there is any.
    pub checkpoint: Option<PathBuf>,
    /// Tokens trained on, without padding, those before a resumed run included.
    pub tokens: usize,
    /// Tokens among them that were learned; rows or pairs where the task learns such.
    pub learned_tokens: usize,
    /// Seconds from the first step to the last, validations and checkpoints included.
    pub seconds: f64,
    /// Seconds of the first step, which on a GPU compiles its kernels.
    pub first_step_seconds: f64,
    /// Tokens per second of training steps, the first included, validations and checkpoints not.
    pub tokens_per_second: f64,
}

/// Trains the adapters of a model, its virtual tokens and its bottlenecks, and leaves the base as it is, bit for bit.
///
/// Optimizer state and checkpoints hold these parameters only. See [`train`].
///
/// # Errors
/// As for [`train`]; [`TrainError::NothingTrainable`] where no adapter is attached.
pub fn finetune<M: CausalLm>(
    model: M,
    config: &TrainConfig,
    data: TrainData,
    observer: Observer,
) -> Result<Outcome<M>, TrainError> {
    let (task, data) = data.into_task();
    finetune_task(model, &task, config, data, observer)
}

/// Trains the adapters of a model for a task, and the [modules](Task::saved_modules) that the task wants trained as a whole
/// beside them; [`attach`](burn_lora_adapter::attach) must have left those open (`modules_to_save`).
///
/// # Errors
/// As for [`finetune`].
pub fn finetune_task<M: Module + 'static, T: Task<M>>(
    model: M,
    task: &T,
    config: &TrainConfig,
    data: TaskData<T::Example>,
    observer: Observer,
) -> Result<Outcome<M>, TrainError> {
    finetune_learned(model, task, config, data.into(), None, observer)
}

/// As [`finetune_task`], of examples that are not all in memory. Each is drawn when its batch is made, and must not be longer
/// than `max_seq_len`; batches hold them in the order of the source. A checkpoint keeps where the source stands.
///
/// # Errors
/// As for [`finetune`]; [`TrainError::Config`] for `packing`, which needs to see all examples.
pub fn finetune_stream<M: Module + 'static, T: Task<M>>(
    model: M,
    task: &T,
    config: &TrainConfig,
    stream: Box<dyn ExampleSource<T::Example>>,
    valid: Vec<T::Example>,
    observer: Observer,
) -> Result<Outcome<M>, TrainError> {
    let data = TaskData {
        train: Vec::new(),
        valid,
    };
    let stream = Some(stream);
    let learned = Learned { data, stream };
    finetune_learned(model, task, config, learned, None, observer)
}

/// [`finetune_task`] and [`finetune_stream`], with prompts that are completed after each validation.
pub(crate) fn finetune_learned<M: Module + 'static, T: Task<M>>(
    model: M,
    task: &T,
    config: &TrainConfig,
    learned: Learned<T::Example>,
    sampler: Option<Sampler<M>>,
    observer: Observer,
) -> Result<Outcome<M>, TrainError> {
    let model = with_noise(model, task, config)?;
    let saved = task.saved_modules().iter().map(String::as_str);
    let shown = AdapterOnly::new(model).with_saved_modules(saved.chain(PART_MODULES));
    let model = AdapterOnly::inner;
    let outcome = train_shown(shown, model, task, config, learned, sampler, observer)?;
    Ok(outcome.map(AdapterOnly::into_inner))
}

/// What is learned: examples, or a stream of them.
pub(crate) struct Learned<E> {
    pub(crate) data: TaskData<E>,
    pub(crate) stream: Option<Box<dyn ExampleSource<E>>>,
}

impl<E> From<TaskData<E>> for Learned<E> {
    fn from(data: TaskData<E>) -> Self {
        Self { data, stream: None }
    }
}

/// Trains every parameter that the model shows and that is not frozen.
///
/// This is full training for a decoder whose parameters are open (`set_require_grad(true)`; a loaded or new one is frozen),
/// and training of the adapters alone for one in [`AdapterOnly`].
///
/// The model stays on its device and should not be on an autodiff device before. burn-train has the
/// display and the metrics; one of its epochs is the interval between two validations.
///
/// # Errors
/// - [`TrainError::Config`]: wrong settings, or examples that fit neither them nor the model; nothing was done.
/// - [`TrainError::NothingTrainable`]: every parameter is frozen.
/// - [`TrainError::NoTerminal`]: the dashboard without a terminal.
/// - [`TrainError::NotFinite`]: the loss became NaN or infinite.
/// - [`TrainError::Io`], [`TrainError::NoCheckpoint`], [`TrainError::Checkpoint`], [`TrainError::ResumeMismatch`]: files of
///   the run.
/// - [`TrainError::Learner`]: the device failed.
/// - [`TrainError::Resumable`]: one of these after a checkpoint was written.
pub fn train<M: CausalLm>(
    model: M,
    config: &TrainConfig,
    data: TrainData,
    observer: Observer,
) -> Result<Outcome<M>, TrainError> {
    let (task, data) = data.into_task();
    train_task(model, &task, config, data, observer)
}

/// As [`train`], for any task.
///
/// # Errors
/// As for [`train`].
pub fn train_task<M: Module + 'static, T: Task<M>>(
    model: M,
    task: &T,
    config: &TrainConfig,
    data: TaskData<T::Example>,
    observer: Observer,
) -> Result<Outcome<M>, TrainError> {
    let model = with_noise(model, task, config)?;
    train_shown(
        model,
        |model| model,
        task,
        config,
        data.into(),
        None,
        observer,
    )
}

/// Trains what `W` shows of its model.
fn train_shown<W: Module + 'static, M: Module + 'static, T: Task<M>>(
    shown: W,
    model: fn(&W) -> &M,
    task: &T,
    config: &TrainConfig,
    learned: Learned<T::Example>,
    sampler: Option<Sampler<M>>,
    observer: Observer,
) -> Result<Outcome<W>, TrainError> {
    config.validate()?;
    let Learned { data, mut stream } = learned;
    data.check(task, model(&shown), config, stream.is_some())?;
    check_judged(config, data.valid.is_empty())?;
    observer.check()?;
    let stop = observer.stop();
    let trainee = Trainee::new(shown.train(), model, task.clone(), config.grad_clip_norm)
        .with_terms(config.terms())
        .with_sampler(sampler);
    if trainable_parameters(&trainee) == 0 {
        return Err(TrainError::NothingTrainable);
    }

    let checkpoints = Checkpoints::of(config);
    let resumed = match &checkpoints {
        Some(checkpoints) => {
            let marks = Marks::of(&data.train, &data.valid);
            checkpoints.open(config, &marks)?.resumed
        }
        None => None,
    };
    let (trainee, optimizer_record, state) = restore(trainee, resumed)?;
    let first_step = state.step;
    let trainee = trainee.after(first_step).scaled(state.loss_scale);
    // Of the parameters as they are now: those of a checkpoint bring their ids along.
    let optimizer = optimizer(&trainee, config);
    let optimizer = match optimizer_record {
        Some(record) => optimizer.load_record(record),
        None => optimizer,
    };
    let schedule = rates_after(&trainee, config, first_step);

    if let (Some(stream), Some(position)) = (&mut stream, &state.position) {
        stream.restore(position)?;
    }

    let device = trainee.devices().remove(0);
    let trainee = trainee.on(&device);
    let with_validation = !data.valid.is_empty();
    let (mut train_loader, valid_loader) = data.into_loaders(task, config, first_step, &device)?;
    let mut position = None;
    if let Some(stream) = stream {
        let next = first_step * config.grad_accumulation;
        let batches: Arc<Streamed<M, T>> =
            Streamed::new(task.clone(), stream, next, config.batch_size, config.seed);
        position = Some(batches.clone() as Arc<dyn Position>);
        let loader = TrainLoader::new(batches, config, first_step, device.clone());
        train_loader = Arc::new(loader);
    }

    let logs = log_folder(config)?;
    let samples = match &logs {
        Some(logs) if trainee.has_sampler() => Some(SampleFile::open(logs, first_step)?),
        _ => None,
    };

    let interrupter = Interrupter::new();
    let watch = Watch::new(first_step, interrupter.clone()).with_counts(state.counts.clone());
    let shown = [first_step, config.steps, config.log_every];
    let interval = (first_step > 0).then(|| first_step / config.interval());
    let renderer = observer.into_renderer(interrupter.clone(), interval, shown);
    let renderer = with_facts(renderer, logs.as_deref(), first_step, config.steps)?;
    let mut training = SupervisedTraining::new(folder(config), train_loader, valid_loader)
        .num_epochs(config.intervals())
        .renderer(renderer)
        .with_interrupter(interrupter)
        // It would redirect the whole program's log and panic messages.
        .with_application_logger(None)
        .metric_train_numeric(LossMetric::new(Split::Train, watch.clone()))
        .metric_train_numeric(SpeedMetric::default())
        .metric_train_numeric(LearningRateMetric::new())
        .metric_train_numeric(GradientNormMetric::default())
        .metric_train(ProgressMetric::new(first_step, config.steps));
    let memory = MemoryMetric::new(device);
    if memory.is_known() {
        training = training.metric_train_numeric(memory);
    }
    if task.is_language() {
        training = training.metric_train_numeric(PerplexityMetric::default());
    }
    if with_validation {
        training = training.metric_valid_numeric(LossMetric::new(Split::Valid, watch.clone()));
        if task.is_language() {
            training = training.metric_valid_numeric(PerplexityMetric::default());
        }
        for metric in task_metrics(task, &watch) {
            training = training.metric_valid_numeric(metric);
        }
    }
    // burn-train's own files would hold what the facts hold, and a full disk would be a panic in their thread.
    training = training.with_metric_logger(InMemoryMetricLogger::new());
    if let Some(interval) = interval {
        training = training.checkpoint(interval);
    }
    let learner = Learner::new(trainee, optimizer.clone(), schedule.clone());
    let moving = (optimizer, schedule, state);
    let fit = Fit::new(config, checkpoints.clone(), watch.clone(), stop, moving);
    let fit = Arc::new(fit.with_position(position).with_samples(samples));
    let training = training.with_training_strategy(TrainingStrategy::Custom(fit.clone()));

    let started = Instant::now();
    // The device may fail, or run out of memory, in any operation.
    let result = catch_unwind(AssertUnwindSafe(|| training.launch(learner)));
    let seconds = started.elapsed().as_secs_f64();
    // What comes next allocates other sizes.
    release_memory();
    let ended = result.map_err(|panic| TrainError::Learner(panic_text(panic.as_ref())));
    let ended = ended.and_then(|result| {
        // Closes the dashboard, so that what the caller prints next is seen.
        drop(result.renderer);
        if let Some(error) = result.error {
            watch.failed(TrainError::Learner(error.to_string()));
        }
        Ok((result.model.into_shown(), watch.tally()?))
    });
    let last = checkpoints.as_ref().and_then(Checkpoints::last);
    let (model, tally) = ended.map_err(|fault| match last.clone() {
        Some(checkpoint) => TrainError::Resumable {
            fault: Box::new(fault),
            checkpoint,
        },
        None => fault,
    })?;
    let ending = fit.ending();
    let best = ending.state.standing.best.map(|best| best.step);
    let best = best.filter(|_| config.keep_best && ending.stopped.is_none_or(|s| !s.is_hurry()));
    let (model, step) = match (&checkpoints, best) {
        (Some(checkpoints), Some(best)) => {
            let model = load(
                model,
                checkpoints.model_at(best)?,
                &checkpoints.folder_of(best),
            )?;
            (model, best)
        }
        _ => (model, ending.state.step),
    };
    // That of the model, which is the best of several.
    let best_loss = ending
        .state
        .standing
        .best
        .filter(|_| config.best_metric == "loss");
    let best_loss = best_loss
        .filter(|best| best.step == step)
        .map(|best| best.value);
    Ok(Outcome {
        model,
        model_step: step,
        train_loss: tally.counts.train_loss,
        valid_loss: best_loss.or(tally.counts.valid_loss),
        valid_metrics: tally.valid_metrics,
        steps: ending.state.step,
        stopped: ending.stopped,
        checkpoint: last,
        tokens: tally.counts.tokens,
        learned_tokens: tally.counts.learned,
        seconds,
        first_step_seconds: tally.first_step_seconds.unwrap_or(0.0),
        tokens_per_second: tally.own_tokens as f64 / tally.step_seconds.max(1e-9),
    })
}

/// The metrics of the task's own.
fn task_metrics<M: 'static, T: Task<M>>(task: &T, watch: &Watch) -> Vec<TaskMetric> {
    let judge = task.clone();
    let measure: Measure = Arc::new(move |told| judge.measure(told));
    TaskMetric::all(task.metrics(), &measure, watch)
}

/// The model with noise on its embeddings, if that is asked for.
fn with_noise<M, T: Task<M>>(model: M, task: &T, config: &TrainConfig) -> Result<M, TrainError> {
    let Some(alpha) = config.neftune_alpha else {
        return Ok(model);
    };
    config.validate()?;
    task.with_embedding_noise(model, alpha).ok_or_else(|| {
        let fault =
            "neftune_alpha is for language models that predict the next token; leave it out";
        TrainError::Config {
            faults: vec![fault.into()],
        }
    })
}

/// A module where a run begins, the optimizer's state there, and the place in the run.
type Restored<W, M, T> = (Trainee<W, M, T>, Option<OptimizerRecord>, RunState);

/// Where a run begins: with the module as it is, or with what a checkpoint says.
fn restore<W: Module, M: Module, T: Task<M>>(
    trainee: Trainee<W, M, T>,
    resumed: Option<Resumed>,
) -> Result<Restored<W, M, T>, TrainError> {
    let Some(resumed) = resumed else {
        return Ok((trainee, None, RunState::default()));
    };
    let trainee = load(trainee, resumed.model, &resumed.path)?;
    let trainee = trainee.recall(resumed.memory.as_ref());
    let trainee = trainee.map_err(|error| TrainError::NoCheckpoint {
        path: resumed.path,
        faults: vec![error.to_string()],
    })?;
    Ok((trainee, Some(resumed.optimizer), resumed.state))
}

/// A module with the parameters of a checkpoint.
fn load<M: Module>(module: M, record: ModuleRecord, path: &Path) -> Result<M, TrainError> {
    let loaded = module.try_load_record(record);
    loaded.map_err(|source| TrainError::Checkpoint {
        path: path.to_path_buf(),
        source,
    })
}

/// Whoever waits for a better validation needs one.
fn check_judged(config: &TrainConfig, without_validation: bool) -> Result<(), TrainError> {
    let waiting = [
        (config.keep_best, "keep_best"),
        (config.patience.is_some(), "patience"),
    ];
    let faults: Vec<String> = waiting
        .into_iter()
        .filter(|(is_set, _)| *is_set && without_validation)
        .map(|(_, name)| format!("{name} needs examples to validate with"))
        .collect();
    match faults.is_empty() {
        true => Ok(()),
        false => Err(TrainError::Config { faults }),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("for a reason that was not told").to_string()
}

/// The checkpoint that a resumed run of these examples goes on from, and what it leaves out on the way, in words.
///
/// [`train`] does the same by itself; this is for telling.
///
/// # Errors
/// As [`train`] for a run that is resumed.
pub fn resume_facts<E: Debug>(
    config: &TrainConfig,
    train: &[E],
    valid: &[E],
) -> Result<Vec<String>, TrainError> {
    let checkpoints = Checkpoints::of(config).filter(|_| config.resume);
    let Some(checkpoints) = checkpoints else {
        return Ok(Vec::new());
    };
    let latest = checkpoints.open(config, &Marks::of(train, valid))?;
    let mut facts: Vec<String> = latest
        .skipped
        .into_iter()
        .map(|fault| format!("left out {fault}"))
        .collect();
    facts.push(match latest.resumed {
        Some(resumed) => format!("from {}", resumed.path.display()),
        None => "from the beginning: the run had written no checkpoint".into(),
    });
    Ok(facts)
}

/// The learning rate of every parameter: of LoRA's up-projections another one, if that is asked for.
pub fn learning_rates<M: Module>(module: &M, config: &TrainConfig) -> ModuleLrScheduler {
    rates_after(module, config, 0)
}

fn rates_after<M: Module>(module: &M, config: &TrainConfig, step: usize) -> ModuleLrScheduler {
    let rates = ModuleLrScheduler::new(config.schedule().after(step));
    match config.lora_plus_ratio {
        None => rates,
        Some(ratio) => {
            let faster = TrainConfig {
                learning_rate: config.learning_rate * ratio,
                ..config.clone()
            };
            let group = ParamGroup::from_ids(up_projections(module));
            rates.with_group(group, faster.schedule().after(step))
        }
    }
}

/// The folder of the facts and the samples.
fn log_folder(config: &TrainConfig) -> Result<Option<PathBuf>, TrainError> {
    let Some(dir) = &config.output_dir else {
        return Ok(None);
    };
    let logs = dir.join("logs");
    fs::create_dir_all(&logs).map_err(io_error(&logs))?;
    Ok(Some(logs))
}

/// Whoever shows the run, and the files beside the logs that keep what is shown.
fn with_facts(
    shown: Box<dyn MetricsRenderer>,
    logs: Option<&Path>,
    first_step: usize,
    steps: usize,
) -> Result<Box<dyn MetricsRenderer>, TrainError> {
    let Some(logs) = logs else {
        return Ok(shown);
    };
    let files = FactFiles::open(logs, first_step, steps)?;
    Ok(Box::new(FactsRenderer::new(shown, files, first_step)))
}

/// Where burn-train would write what it is not asked for here.
fn folder(config: &TrainConfig) -> PathBuf {
    config.output_dir.clone().unwrap_or_default()
}

impl<M> Outcome<M> {
    /// The same with another model.
    fn map<N>(self, change: impl FnOnce(M) -> N) -> Outcome<N> {
        Outcome {
            model: change(self.model),
            model_step: self.model_step,
            train_loss: self.train_loss,
            valid_loss: self.valid_loss,
            valid_metrics: self.valid_metrics,
            steps: self.steps,
            stopped: self.stopped,
            checkpoint: self.checkpoint,
            tokens: self.tokens,
            learned_tokens: self.learned_tokens,
            seconds: self.seconds,
            first_step_seconds: self.first_step_seconds,
            tokens_per_second: self.tokens_per_second,
        }
    }
}
