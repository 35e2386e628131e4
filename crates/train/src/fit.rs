//! The loop of a run.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::ModuleOptimizer;
use burn::tensor::Device;
use burn::train::{
    EventProcessorTraining, InferenceStep, Interrupter, Learner, LearnerEvent, LearnerModel,
    SupervisedLearningStrategy, SupervisedTrainingEventProcessor, TrainLoader, TrainOutput,
    TrainStep, TrainingComponents, TrainingItem, ValidLoader,
};

use crate::checkpoint::{Checkpoints, RunState};
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::output::StepOutput;
use crate::samples::SampleFile;
use crate::source::Position;
use crate::step::Memory;
use crate::stop::{Stop, Stopped};
use crate::terminal::let_control_c_through;
use crate::watch::Watch;

/// The loop of a run: intervals of optimizer steps with a validation after each, and checkpoints where they are due.
///
/// burn-train has the display and the metrics, each of its epochs being an interval. Its own loop cannot be left within an
/// epoch without losing it, and saves the parts of a checkpoint one by one.
pub(crate) struct Fit {
    pub(crate) config: TrainConfig,
    pub(crate) checkpoints: Option<Checkpoints>,
    pub(crate) watch: Watch,
    pub(crate) stop: Stop,
    /// Where the data stands, if it is streamed.
    position: Option<Arc<dyn Position>>,
    samples: Option<SampleFile>,
    moving: Mutex<Moving>,
}

/// What changes from step to step, beside the model.
struct Moving {
    optimizer: Option<ModuleOptimizer>,
    schedule: ModuleLrScheduler,
    state: RunState,
    /// Tokens of all steps, known before their losses are.
    tokens: usize,
    saved: Option<usize>,
    stopped: Option<Stopped>,
}

/// What the loop leaves beside the model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending {
    pub(crate) state: RunState,
    pub(crate) stopped: Option<Stopped>,
}

/// The display and the metrics of a run.
struct Shown<M: LearnerModel> {
    events: SupervisedTrainingEventProcessor<M>,
    interrupter: Interrupter,
    started: Instant,
}

impl Fit {
    /// A loop that goes on from `state`.
    pub(crate) fn new(
        config: &TrainConfig,
        checkpoints: Option<Checkpoints>,
        watch: Watch,
        stop: Stop,
        (optimizer, schedule, state): (ModuleOptimizer, ModuleLrScheduler, RunState),
    ) -> Self {
        Self {
            config: config.clone(),
            checkpoints,
            watch,
            stop,
            position: None,
            samples: None,
            moving: Mutex::new(Moving {
                optimizer: Some(optimizer),
                schedule,
                tokens: state.counts.tokens,
                state,
                saved: None,
                stopped: None,
            }),
        }
    }

    /// With data whose position goes into checkpoints.
    pub(crate) fn with_position(self, position: Option<Arc<dyn Position>>) -> Self {
        Self { position, ..self }
    }

    /// With a file for what the model makes of prompts.
    pub(crate) fn with_samples(self, samples: Option<SampleFile>) -> Self {
        Self { samples, ..self }
    }

    /// How it ended.
    pub(crate) fn ending(&self) -> Ending {
        let moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        Ending {
            state: moving.state.clone(),
            stopped: moving.stopped,
        }
    }

    /// Trains until the end of an interval, or until something stops it.
    fn train<M>(
        &self,
        mut model: M,
        loader: &TrainLoader<M>,
        shown: &mut Shown<M>,
        moving: &mut Moving,
    ) -> M
    where
        M: LearnerModel + Memory + TrainStep<Output = StepOutput>,
    {
        let mut steps = loader.iter();
        let mut iteration = 0;
        while let Some(input) = steps.next() {
            let input = match input {
                Ok(input) => input,
                Err(error) => {
                    let fault = self.position.as_ref().and_then(|data| data.fault());
                    self.watch.failed(match fault {
                        Some(fault) => fault.into(),
                        None => TrainError::Learner(error.to_string()),
                    });
                    break;
                }
            };
            let progress = steps.progress();
            let TrainOutput { grads, item } = TrainStep::step(&model, input);
            moving.tokens += item.tokens();
            let rates = moving.schedule.step();
            if let Some(mut optimizer) = moving.optimizer.take() {
                model = model.optimize(&mut optimizer, rates.clone(), grads);
                moving.optimizer = Some(optimizer);
            }
            moving.state.step += 1;
            iteration += 1;
            let item = TrainingItem::new(item, progress, Some(iteration), Some(rates));
            shown.train(LearnerEvent::ProcessedItem(item));
            if iteration == 1 {
                // By now the dashboard has the terminal.
                let_control_c_through();
            }
            let step = moving.state.step;
            if step < self.config.steps && self.is_over(shown, moving) {
                break;
            }
            if self.is_due(step) && !self.ends_interval(step) {
                self.save(&model, shown, moving);
            }
        }
        model
    }

    /// Validates; the result is whether all of it was.
    fn validate<M>(
        &self,
        model: &M,
        loader: &ValidLoader<M>,
        interval: usize,
        shown: &mut Shown<M>,
    ) -> bool
    where
        M: LearnerModel,
    {
        if loader.num_items() > 0 {
            shown.valid(LearnerEvent::StartSplit {
                epoch_number: interval,
                total_items: loader.num_items(),
            });
            let model = model.valid();
            let mut batches = loader.iter();
            let mut iteration = 0;
            while let Some(input) = batches.next() {
                let input = match input {
                    Ok(input) => input,
                    Err(error) => {
                        self.watch.failed(TrainError::Learner(error.to_string()));
                        return false;
                    }
                };
                let progress = batches.progress();
                iteration += 1;
                let item = InferenceStep::step(&model, input);
                let item = TrainingItem::new(item, progress, Some(iteration), None);
                shown.valid(LearnerEvent::ProcessedItem(item));
                if shown.interrupter.should_stop() || self.stop.asked_by().is_some() {
                    return false;
                }
            }
            shown.valid(LearnerEvent::EndSplit(interval));
        }
        shown.train(LearnerEvent::EndEpoch(interval));
        shown.flush();
        !self.watch.has_failed()
    }

    /// Whether the run ends here, and why.
    fn is_over<M: LearnerModel>(&self, shown: &Shown<M>, moving: &mut Moving) -> bool {
        let config = &self.config;
        let minutes = shown.started.elapsed().as_secs_f64() / 60.0;
        let reason = if let Some(by) = self.stop.asked_by() {
            Stopped::Asked(by)
        } else if shown.interrupter.should_stop() {
            Stopped::Dashboard
        } else if config.max_minutes.is_some_and(|most| minutes >= most) {
            Stopped::Minutes
        } else if config.max_tokens.is_some_and(|most| moving.tokens >= most) {
            Stopped::Tokens
        } else {
            return false;
        };
        moving.stopped = Some(reason);
        true
    }

    /// Whether a checkpoint belongs after this step.
    fn is_due(&self, step: usize) -> bool {
        let save_every = self.config.save_every;
        save_every.is_some_and(|every| step.is_multiple_of(every)) || step == self.config.steps
    }

    fn ends_interval(&self, step: usize) -> bool {
        step.is_multiple_of(self.config.interval()) || step == self.config.steps
    }

    /// Saves where the run stands, once the losses of all steps are known and found to be numbers.
    fn save<M: LearnerModel + Memory>(&self, model: &M, shown: &mut Shown<M>, moving: &mut Moving) {
        let Some(checkpoints) = &self.checkpoints else {
            return;
        };
        shown.flush();
        let Some(optimizer) = moving
            .optimizer
            .as_ref()
            .filter(|_| !self.watch.has_failed())
        else {
            return;
        };
        moving.state.counts = self.watch.counts();
        moving.state.loss_scale = model.loss_scale();
        moving.state.position = self.position.as_ref().map(|position| position.state());
        let best = moving.state.standing.best.filter(|_| self.config.keep_best);
        let saved = checkpoints
            .save(&moving.state, model, optimizer)
            .and_then(|_| checkpoints.prune(best.map(|best| best.step)));
        match saved {
            Ok(()) => moving.saved = Some(moving.state.step),
            Err(error) => self.watch.failed(error),
        }
    }

    /// Writes down what the model makes of the prompts of the run, if it has such.
    fn sample<M: Memory>(&self, model: &M, step: usize) {
        let Some(samples) = &self.samples else { return };
        match model.samples() {
            Ok(made) => samples.write(step, made),
            Err(error) => self.watch.failed(error),
        }
    }

    /// Takes note of a validation; the result is whether it was the best.
    fn judge(&self, moving: &mut Moving) -> bool {
        let step = moving.state.step;
        moving.state.validated = step;
        match self.watch.metric(&self.config.best_metric) {
            Ok(value) => moving.state.standing.observe(step, value, &self.config),
            Err(error) => {
                self.watch.failed(error);
                false
            }
        }
    }

    fn run<M>(
        &self,
        mut model: M,
        (train, valid): (TrainLoader<M>, ValidLoader<M>),
        shown: &mut Shown<M>,
        moving: &mut Moving,
    ) -> M
    where
        M: LearnerModel + Memory + TrainStep<Output = StepOutput>,
    {
        let config = &self.config;
        let has_validation = valid.num_items() > 0;
        while let Some(interval) = self.next_interval(&moving.state, has_validation) {
            if moving.state.standing.is_hopeless(config) {
                moving.stopped = Some(Stopped::Patience);
                break;
            }
            if moving.state.step < config.end_of(interval) {
                shown.train(LearnerEvent::StartSplit {
                    epoch_number: interval,
                    total_items: train.num_items(),
                });
                model = self.train(model, &train, shown, moving);
                if moving.stopped.is_some() {
                    // Before the metrics close the interval, in which a resumed run goes on.
                    self.save(&model, shown, moving);
                }
                shown.train(LearnerEvent::EndSplit(interval));
            }
            shown.flush();
            if self.watch.has_failed() {
                break;
            }
            if let Some(stopped) = moving.stopped {
                if !stopped.is_hurry() {
                    self.validate(&model, &valid, interval, shown);
                }
                break;
            }
            let is_whole = self.validate(&model, &valid, interval, shown);
            if self.watch.has_failed() {
                break;
            }
            if is_whole && has_validation {
                self.sample(&model, moving.state.step);
            }
            let is_best = is_whole && has_validation && self.judge(moving);
            let is_done = is_whole && moving.state.step == config.steps;
            if !is_done && self.is_over(shown, moving) {
                self.save(&model, shown, moving);
                break;
            }
            let is_hopeless = moving.state.standing.is_hopeless(config);
            let is_kept = is_best && config.keep_best;
            if self.is_due(moving.state.step) || is_kept || is_hopeless {
                self.save(&model, shown, moving);
            }
            if self.watch.has_failed() {
                break;
            }
        }
        model
    }

    /// The interval that is to be done, the validation after it included, if the run is not over.
    fn next_interval(&self, state: &RunState, has_validation: bool) -> Option<usize> {
        let RunState {
            step, validated, ..
        } = *state;
        let is_at_an_end = step > 0 && self.ends_interval(step);
        let length = self.config.interval();
        match is_at_an_end && has_validation && validated < step {
            true => Some(step.div_ceil(length)),
            false => (step < self.config.steps).then_some(step / length + 1),
        }
    }
}

impl<M: LearnerModel> Shown<M> {
    fn train(&mut self, event: LearnerEvent<<M as TrainStep>::Output>) {
        self.interrupter
            .fail_on_error(self.events.process_train(event));
    }

    fn valid(&mut self, event: LearnerEvent<<M as InferenceStep>::Output>) {
        self.interrupter
            .fail_on_error(self.events.process_valid(event));
    }

    /// Waits until everything that was handed over is seen.
    fn flush(&mut self) {
        self.interrupter.fail_on_error(self.events.flush());
    }
}

impl<M> SupervisedLearningStrategy<M> for Fit
where
    M: LearnerModel + Memory + TrainStep<Output = StepOutput>,
{
    fn fit(
        &self,
        components: TrainingComponents<M>,
        learner: Learner<M>,
        train: TrainLoader<M>,
        valid: ValidLoader<M>,
        _first_interval: usize,
    ) -> (M, SupervisedTrainingEventProcessor<M>) {
        let model = learner.model();
        // It would hold the parameters a second time.
        drop(learner);
        let device = with_autodiff(model.devices().remove(0));
        let model = model.fork(&device);
        let loaders = (train.to_device(&device), valid.to_device(&device.inner()));
        let mut shown = Shown {
            events: components.event_processor,
            interrupter: components.interrupter,
            started: Instant::now(),
        };
        let mut moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        self.stop.set_idle(self.stop.asked_by().is_some());
        let model = self.run(model, loaders, &mut shown, &mut moving);
        self.stop.set_idle(true);
        moving.state.counts = self.watch.counts();
        (model, shown.events)
    }
}

fn with_autodiff(device: Device) -> Device {
    match device.is_autodiff() {
        true => device,
        false => device.autodiff(),
    }
}
