use std::fmt;
use std::time::Instant;

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::{DType, Device, Tensor};
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use burn_lora_adapter::AdapterError;
use burn_lora_adapter::budget::{AllocatorRecord, RankAllocator, orthogonality_penalty};
use burn_lora_data::BatchTensors;
use burn_lora_kernels::{LossTerms, adamw_together};

use crate::clip::clip_global_norm;
use crate::error::TrainError;
use crate::evaluate::Completion;
use crate::loss_scale::{LossScale, State as LossScaleState};
use crate::model::CausalLm;
use crate::output::StepOutput;
use crate::pages::Pages;
use crate::samples::Sampler;
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
    sampler: Option<Sampler<M>>,
    /// What the model computes in, which no step changes.
    dtype: DType,
    loss_scale: LossScale,
    pages: Pages,
    /// Optimizer steps done.
    steps: usize,
}

/// The batches of one optimizer step.
#[derive(Debug)]
pub(crate) struct StepInput<B> {
    pub(crate) batches: Vec<B>,
}

impl<W: Module, M: Module, T> Trainee<W, M, T> {
    pub(crate) fn new(shown: W, model: fn(&W) -> &M, task: T, clip_norm: Option<f64>) -> Self {
        Self {
            allocator: RankAllocator::of(&shown),
            dtype: dtype_of(model(&shown)),
            shown,
            model,
            task,
            clip_norm,
            terms: LossTerms::default(),
            sampler: None,
            loss_scale: LossScale::new(),
            pages: Pages::default(),
            steps: 0,
        }
    }

    /// The same with something added to the loss in training.
    pub(crate) fn with_terms(self, terms: LossTerms) -> Self {
        Self { terms, ..self }
    }

    /// The same with prompts to complete.
    pub(crate) fn with_sampler(self, sampler: Option<Sampler<M>>) -> Self {
        Self { sampler, ..self }
    }

    pub(crate) fn has_sampler(&self) -> bool {
        self.sampler.is_some()
    }

    /// The same after steps of an earlier run.
    pub(crate) fn after(self, steps: usize) -> Self {
        Self { steps, ..self }
    }

    /// The same with the loss scale of an earlier run.
    pub(crate) fn scaled(self, state: Option<LossScaleState>) -> Self {
        if let Some(state) = state {
            self.loss_scale.restore(state);
        }
        self
    }

    /// The same on a device that is readied for its first step.
    pub(crate) fn on(self, device: &Device) -> Self {
        Self {
            pages: Pages::new(device),
            ..self
        }
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

    /// The loss scale of a model in f16.
    fn loss_scale(&self) -> Option<LossScaleState> {
        None
    }

    /// What it makes of the prompts of the run.
    fn samples(&self) -> Result<Vec<Completion>, TrainError> {
        Ok(Vec::new())
    }
}

impl<W: Module, M: Module, T> Memory for Trainee<W, M, T> {
    fn memory(&self) -> Option<AllocatorRecord> {
        let allocator = self.allocator.as_ref();
        allocator.map(|allocator| allocator.record(&self.shown))
    }

    fn loss_scale(&self) -> Option<LossScaleState> {
        self.loss_scale.state()
    }

    fn samples(&self) -> Result<Vec<Completion>, TrainError> {
        match &self.sampler {
            Some(sampler) => sampler.complete(&(self.model)(&self.shown).valid()),
            None => Ok(Vec::new()),
        }
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

/// What a model computes in: f16 if it has any weight of that, whatever is in f32 beside it.
///
/// It looks at weights as they are stored: an adapted one would be composed anew otherwise.
fn dtype_of<M: Module>(model: &M) -> DType {
    struct Halves(bool);
    impl ModuleVisitor for Halves {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 |= param.base().dtype() == DType::F16;
        }
    }
    let mut halves = Halves(false);
    model.visit(&mut halves);
    match halves.0 {
        true => DType::F16,
        false => DType::F32,
    }
}

/// The gradients of one optimizer step, and its loss: the mean of `-log p` over the learned tokens of all its batches.
///
/// As [`task_gradients`] of [`Causal`]. Those of a model in f16 underflow where they are small: [`scaled_gradients`] keeps them.
///
/// # Shapes
/// - batches: ids `[batch_size, seq_len]`, any number of them and each with sizes of its own
/// - loss: `[1]`, f32, without autodiff
pub fn gradients<M: CausalLm>(model: &M, batches: &[BatchTensors]) -> (GradientsParams, Tensor<1>) {
    task_gradients(model, &Causal { pad: 0 }, batches, LossTerms::default())
}

/// [`gradients`], multiplied by the factor of a [`LossScale`] if the model computes in f16: [`LossScale::unscale`] has to
/// follow. The loss is as it is.
///
/// # Shapes
/// As [`gradients`].
pub fn scaled_gradients<M: CausalLm>(
    model: &M,
    batches: &[BatchTensors],
    scale: &LossScale,
) -> (GradientsParams, Tensor<1>) {
    let factor = scale.factor(dtype_of(model));
    let task = Causal { pad: 0 };
    shown_gradients(model, model, &task, batches, LossTerms::default(), factor)
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
    shown_gradients(model, model, task, batches, terms, 1.0)
}

/// The gradients of what is shown of a model, times a factor.
fn shown_gradients<W: Module, M, T: Task<M>>(
    shown: &W,
    model: &M,
    task: &T,
    batches: &[T::Batch],
    terms: LossTerms,
    factor: f64,
) -> (GradientsParams, Tensor<1>) {
    let counts = Counts::sum(batches.iter().map(|batch| task.counts(batch)));
    let mut grads = GradientsAccumulator::new();
    let mut losses = Vec::with_capacity(batches.len());
    if let Some(penalty) = orthogonality_penalty(shown) {
        let penalty = times(penalty, factor).backward();
        grads.accumulate(shown, GradientsParams::from_grads(penalty, shown));
    }
    for batch in batches {
        let [objective, loss] = task.objective(model, batch, terms);
        losses.push(loss.div_scalar(counts.learned as f64));
        let objective = times(objective.div_scalar(counts.learned as f64), factor);
        grads.accumulate(
            shown,
            GradientsParams::from_grads(objective.backward(), shown),
        );
    }
    (grads.grads(), Tensor::cat(losses, 0).sum())
}

fn times(loss: Tensor<1>, factor: f64) -> Tensor<1> {
    match factor == 1.0 {
        true => loss,
        false => loss.mul_scalar(factor),
    }
}

impl<W: Module + 'static, M: Module + 'static, T: Task<M>> TrainStep for Trainee<W, M, T> {
    type Input = StepInput<T::Batch>;
    type Output = StepOutput;

    fn step(&self, input: Self::Input) -> TrainOutput<StepOutput> {
        let started = Instant::now();
        let batches = &input.batches;
        let model = (self.model)(&self.shown);
        let (shown, task) = (&self.shown, &self.task);
        let factor = self.loss_scale.factor(self.dtype);
        let (grads, loss) = shown_gradients(shown, model, task, batches, self.terms, factor);
        // Here and not before the optimizer's step, since what the dashboard shows leaves from here.
        let (grads, norm) = match self.loss_scale.unscale(shown, grads) {
            Some(grads) => clip_global_norm(shown, grads, self.clip_norm),
            // A step that is left out.
            None => (GradientsParams::new(), None),
        };
        let counts = Counts::sum(batches.iter().map(|batch| self.task.counts(batch)));
        let item = StepOutput::new(loss, counts, Vec::new(), started);
        TrainOutput {
            grads,
            item: item.with_gradient_norm(norm),
        }
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        learning_rate: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        let mut stepped = self.optimized(optim, learning_rate, grads);
        if let Some(device) = stepped.shown.devices().first() {
            stepped.pages.stepped(device);
        }
        stepped
    }
}

impl<W: Module + 'static, M: Module + 'static, T: Task<M>> Trainee<W, M, T> {
    fn optimized(
        mut self,
        optim: &mut ModuleOptimizer,
        learning_rate: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        self.steps += 1;
        if grads.is_empty() {
            return self;
        }
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
            sampler: None,
            dtype: self.dtype,
            loss_scale: self.loss_scale.clone(),
            pages: self.pages.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_computes_in_f16_whatever_stands_before_its_weights() {
        let device = Device::flex();
        let factor = || Param::from_tensor(Tensor::<2>::zeros([2, 2], &device));
        let half = Tensor::<2>::zeros([2, 2], &device).cast(DType::F16);
        assert_eq!(dtype_of(&(factor(), Param::from_tensor(half))), DType::F16);
        assert_eq!(dtype_of(&(factor(), factor())), DType::F32);
    }
}
