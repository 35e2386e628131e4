use std::fmt;
use std::time::Instant;

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use burn_lora_adapter::AdapterError;
use burn_lora_adapter::budget::{AllocatorRecord, RankAllocator, orthogonality_penalty};
use burn_lora_data::BatchTensors;
use burn_lora_kernels::{LossTerms, adamw_together};

use crate::clip::clip_global_norm;
use crate::model::CausalLm;
use crate::output::StepOutput;
use crate::task::{Causal, Counts, Task};

/// A model with what its steps need, as burn-train's learner takes it.
///
/// It shows the parameters of `W` under their own paths and adds none. `W` is the model, or wraps it so that it shows less.
#[derive(Clone, Debug)]
pub(crate) struct Trainee<W, M, T> {
    shown: W,
    model: fn(&W) -> &M,
    task: T,
    clip_norm: Option<f64>,
    /// What is added to the loss in training.
    terms: LossTerms,
    /// Gives away the rank of AdaLoRA adapters, if the model has such.
    allocator: Option<RankAllocator>,
    /// Optimizer steps done.
    steps: usize,
}

/// The batches of one optimizer step.
#[derive(Debug)]
pub(crate) struct StepInput<B> {
    pub(crate) batches: Vec<B>,
}

impl<W: Module, M, T> Trainee<W, M, T> {
    pub(crate) fn new(shown: W, model: fn(&W) -> &M, task: T, clip_norm: Option<f64>) -> Self {
        Self {
            allocator: RankAllocator::of(&shown),
            shown,
            model,
            task,
            clip_norm,
            terms: LossTerms::default(),
            steps: 0,
        }
    }

    /// The same with something added to the loss in training.
    pub(crate) fn with_terms(self, terms: LossTerms) -> Self {
        Self { terms, ..self }
    }

    /// The same after steps of an earlier run.
    pub(crate) fn after(self, steps: usize) -> Self {
        Self { steps, ..self }
    }
}

impl<W, M, T> Trainee<W, M, T> {
    pub(crate) fn into_shown(self) -> W {
        self.shown
    }

    fn with(self, change: impl FnOnce(W) -> W) -> Self {
        Self {
            shown: change(self.shown),
            ..self
        }
    }
}

/// What a module in training has learned beside its parameters.
pub(crate) trait Memory {
    /// What AdaLoRA's allocator has learned, where there is one.
    fn memory(&self) -> Option<AllocatorRecord> {
        None
    }
}

impl<W: Module, M, T> Memory for Trainee<W, M, T> {
    fn memory(&self) -> Option<AllocatorRecord> {
        let allocator = self.allocator.as_ref();
        allocator.map(|allocator| allocator.record(&self.shown))
    }
}

impl<W: Module, M, T> Trainee<W, M, T> {
    /// The same with what an earlier run had learned.
    ///
    /// # Errors
    /// [`AdapterError::Config`] for a memory of other adapters.
    pub(crate) fn recall(mut self, memory: Option<&AllocatorRecord>) -> Result<Self, AdapterError> {
        if let (Some(allocator), Some(memory)) = (&mut self.allocator, memory) {
            allocator.load_record(&self.shown, memory)?;
        }
        Ok(self)
    }
}

/// How many parameters have gradients, of a module that is in training.
pub(crate) fn trainable_parameters<M: Module>(module: &M) -> usize {
    struct Counter(usize);
    impl ModuleVisitor for Counter {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                self.0 += param.lazy_shape().num_elements();
            }
        }
    }
    let mut counter = Counter(0);
    module.visit(&mut counter);
    counter.0
}

/// The gradients of one optimizer step, and its loss: the mean of `-log p` over the learned tokens of all its batches.
///
/// As [`task_gradients`] of [`Causal`].
///
/// # Shapes
/// - batches: ids `[batch_size, seq_len]`, any number of them and each with sizes of its own
/// - loss: `[1]`, f32, without autodiff
pub fn gradients<M: CausalLm>(model: &M, batches: &[BatchTensors]) -> (GradientsParams, Tensor<1>) {
    task_gradients(model, &Causal { pad: 0 }, batches, LossTerms::default())
}

/// The gradients of one optimizer step, and its loss: the mean over what the task learns of all its batches.
///
/// A mean of the batches' means would weigh a token of a batch with few learned tokens more than another. The model is
/// in training ([`Module::train`]) and the batches are on its device; the gradients are of what it shows, unclipped. Those of
/// AdaLoRA's penalty and of the `terms` added in training are among them, and the loss is without them.
///
/// # Shapes
/// - loss: `[1]`, f32, without autodiff
pub fn task_gradients<M: Module, T: Task<M>>(
    model: &M,
    task: &T,
    batches: &[T::Batch],
    terms: LossTerms,
) -> (GradientsParams, Tensor<1>) {
    shown_gradients(model, model, task, batches, terms)
}

/// The gradients of what is shown of a model.
fn shown_gradients<W: Module, M, T: Task<M>>(
    shown: &W,
    model: &M,
    task: &T,
    batches: &[T::Batch],
    terms: LossTerms,
) -> (GradientsParams, Tensor<1>) {
    let counts = Counts::sum(batches.iter().map(|batch| task.counts(batch)));
    let mut grads = GradientsAccumulator::new();
    let mut losses = Vec::with_capacity(batches.len());
    if let Some(penalty) = orthogonality_penalty(shown) {
        grads.accumulate(
            shown,
            GradientsParams::from_grads(penalty.backward(), shown),
        );
    }
    for batch in batches {
        let [objective, loss] = task.objective(model, batch, terms);
        losses.push(loss.div_scalar(counts.learned as f64));
        let objective = objective.div_scalar(counts.learned as f64);
        grads.accumulate(
            shown,
            GradientsParams::from_grads(objective.backward(), shown),
        );
    }
    (grads.grads(), Tensor::cat(losses, 0).sum())
}

impl<W: Module + 'static, M: Module + 'static, T: Task<M>> TrainStep for Trainee<W, M, T> {
    type Input = StepInput<T::Batch>;
    type Output = StepOutput;

    fn step(&self, input: Self::Input) -> TrainOutput<StepOutput> {
        let started = Instant::now();
        let batches = &input.batches;
        let model = (self.model)(&self.shown);
        let (grads, loss) = shown_gradients(&self.shown, model, &self.task, batches, self.terms);
        // Here and not before the optimizer's step, since what the dashboard shows leaves from here.
        let (grads, norm) = clip_global_norm(&self.shown, grads, self.clip_norm);
        let counts = Counts::sum(batches.iter().map(|batch| self.task.counts(batch)));
        let item = StepOutput::new(loss, counts, Vec::new(), started);
        TrainOutput {
            grads,
            item: item.with_gradient_norm(norm),
        }
    }

    fn optimize(
        mut self,
        optim: &mut ModuleOptimizer,
        learning_rate: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        self.steps += 1;
        let Some(mut allocator) = self.allocator.take() else {
            return adamw_together(|| optim.step(learning_rate, self, grads));
        };
        allocator.observe(&self.shown, &grads);
        let stepped = adamw_together(|| optim.step(learning_rate, self, grads));
        let steps = stepped.steps;
        let mut stepped = stepped.with(|shown| allocator.allocate(shown, steps));
        stepped.allocator = Some(allocator);
        stepped
    }
}

impl<W: Module + 'static, M: Module + 'static, T: Task<M>> InferenceStep for Trainee<W, M, T> {
    type Input = StepInput<T::Batch>;
    type Output = StepOutput;

    fn step(&self, input: Self::Input) -> StepOutput {
        let started = Instant::now();
        let model = (self.model)(&self.shown);
        let counts = Counts::sum(input.batches.iter().map(|batch| self.task.counts(batch)));
        let mut losses = Vec::with_capacity(input.batches.len());
        let mut notes = Vec::new();
        for batch in &input.batches {
            let (loss, noted) = self.task.judge(model, batch);
            losses.push(loss);
            notes.extend(noted);
        }
        let loss = Tensor::cat(losses, 0)
            .sum()
            .div_scalar(counts.learned as f64);
        StepOutput::new(loss, counts, notes, started)
    }
}

/// By hand, because a derived one would put a segment of its own before every parameter's path.
impl<W: Module, M: Module, T: Clone + fmt::Debug + Send> Module for Trainee<W, M, T> {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.shown.visit(visitor);
    }

    fn map<P: ModuleMapper>(self, mapper: &mut P) -> Self {
        self.with(|shown| shown.map(mapper))
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        self.shown.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.with(|shown| shown.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.with(|shown| shown.to_device(device))
    }

    fn train(self) -> Self {
        self.with(Module::train)
    }

    fn valid(&self) -> Self {
        Self {
            shown: self.shown.valid(),
            model: self.model,
            task: self.task.clone(),
            clip_norm: self.clip_norm,
            terms: self.terms,
            allocator: None,
            steps: self.steps,
        }
    }

    fn materialize(self) -> Self {
        self.with(Module::materialize)
    }
}

impl<W: Module, M, T> fmt::Display for Trainee<W, M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} trainable parameters", self.shown.num_params())
    }
}
