use std::fmt;
use std::time::Instant;

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::{DType, Device, Tensor};
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use burn_lora_adapter::budget::{RankAllocator, orthogonality_penalty};
use burn_lora_data::BatchTensors;
use burn_lora_kernels::{adamw_together, select_rows};

use crate::clip::clip_global_norm;
use crate::loss_scale::LossScale;
use crate::model::CausalLm;
use crate::output::StepOutput;
use crate::pages::Pages;

/// A model with what its steps need, as burn-train's learner takes it.
///
/// It shows the model's parameters under the model's own paths and adds none.
#[derive(Clone, Debug)]
pub(crate) struct Trainee<M> {
    model: M,
    clip_norm: Option<f64>,
    /// Gives away the rank of AdaLoRA adapters, if the model has such.
    allocator: Option<RankAllocator>,
    loss_scale: LossScale,
    pages: Pages,
    /// Optimizer steps done.
    steps: usize,
}

/// The batches of one optimizer step.
#[derive(Clone, Debug)]
pub(crate) struct StepInput {
    pub(crate) batches: Vec<BatchTensors>,
}

impl<M: Module> Trainee<M> {
    pub(crate) fn new(model: M, clip_norm: Option<f64>) -> Self {
        Self {
            allocator: RankAllocator::of(&model),
            model,
            clip_norm,
            loss_scale: LossScale::new(),
            pages: Pages::default(),
            steps: 0,
        }
    }

    pub(crate) fn loss_scale(&self) -> &LossScale {
        &self.loss_scale
    }

    /// The same after steps of an earlier run.
    pub(crate) fn after(self, steps: usize) -> Self {
        Self { steps, ..self }
    }

    /// The same on a device that is readied for its first step.
    pub(crate) fn on(self, device: &Device) -> Self {
        Self {
            pages: Pages::new(device),
            ..self
        }
    }
}

impl<M> Trainee<M> {
    pub(crate) fn into_model(self) -> M {
        self.model
    }

    fn with(self, change: impl FnOnce(M) -> M) -> Self {
        Self {
            model: change(self.model),
            ..self
        }
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

/// The sum of `-log p` over the learned tokens of a batch, and the dtype of the hidden states. Shape `[1]`, f32.
///
/// Logits are made at learned positions only: a prompt's would cost the most memory of the whole step, for nothing.
pub(crate) fn loss_sum<M: CausalLm>(model: &M, batch: &BatchTensors) -> (Tensor<1>, DType) {
    let hidden = match &batch.documents {
        Some(documents) => model.hidden_packed(batch.ids.clone(), documents),
        None => model.hidden(batch.ids.clone()),
    }; // [b, s, d]
    let ([batch_size, seq_len, d_model], dtype) = (hidden.dims(), hidden.dtype());
    let hidden = hidden.reshape([batch_size * seq_len, d_model]); // [b s, d]
    let learned = select_rows(hidden, batch.rows.clone()); // [learned, d]
    let weights = Tensor::ones([batch.learned], &learned.device().inner());
    let loss = model.cross_entropy(learned, batch.targets.clone(), weights);
    (loss, dtype)
}

/// The gradients of one optimizer step, and its loss: the mean of `-log p` over the learned tokens of all its batches.
///
/// A mean of the batches' means would weigh a token of a batch with few learned tokens more than another. The model is
/// in training ([`Module::train`]) and the batches are on its device; the gradients are of what it shows, unclipped. Those of
/// AdaLoRA's penalty are among them, and the loss is without it. Those of a model in f16 underflow where they are small:
/// [`scaled_gradients`] keeps them.
///
/// # Shapes
/// - batches: ids `[batch_size, seq_len]`, any number of them and each with sizes of its own
/// - loss: `[1]`, f32, without autodiff
pub fn gradients<M: CausalLm>(model: &M, batches: &[BatchTensors]) -> (GradientsParams, Tensor<1>) {
    gradients_times(|_| 1.0, model, batches)
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
    gradients_times(|dtype| scale.factor(dtype), model, batches)
}

/// The gradients times a factor by the dtype of the hidden states, which a batch has to be seen for.
fn gradients_times<M: CausalLm>(
    factor_of: impl Fn(DType) -> f64,
    model: &M,
    batches: &[BatchTensors],
) -> (GradientsParams, Tensor<1>) {
    let learned: usize = batches.iter().map(|batch| batch.learned).sum();
    let mut grads = GradientsAccumulator::new();
    let mut losses = Vec::with_capacity(batches.len());
    let mut factor = 1.0;
    for batch in batches {
        let (loss, dtype) = loss_sum(model, batch);
        factor = factor_of(dtype);
        let loss = loss.div_scalar(learned as f64);
        losses.push(loss.clone().inner());
        let scaled = times(loss, factor);
        grads.accumulate(model, GradientsParams::from_grads(scaled.backward(), model));
    }
    if let Some(penalty) = orthogonality_penalty(model) {
        let penalty = times(penalty, factor).backward();
        grads.accumulate(model, GradientsParams::from_grads(penalty, model));
    }
    (grads.grads(), Tensor::cat(losses, 0).sum())
}

fn times(loss: Tensor<1>, factor: f64) -> Tensor<1> {
    if factor == 1.0 {
        loss
    } else {
        loss.mul_scalar(factor)
    }
}

impl<M: CausalLm> TrainStep for Trainee<M> {
    type Input = StepInput;
    type Output = StepOutput;

    fn step(&self, input: StepInput) -> TrainOutput<StepOutput> {
        let started = Instant::now();
        let (grads, loss) = scaled_gradients(&self.model, &input.batches, &self.loss_scale);
        TrainOutput {
            grads,
            item: StepOutput::new(loss, &input.batches, started),
        }
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        learning_rate: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        let mut stepped = self.optimized(optim, learning_rate, grads);
        if let Some(device) = stepped.model.devices().first() {
            stepped.pages.stepped(device);
        }
        stepped
    }
}

impl<M: CausalLm> Trainee<M> {
    fn optimized(
        mut self,
        optim: &mut ModuleOptimizer,
        learning_rate: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        self.steps += 1;
        let Some(grads) = self.loss_scale.unscale(&self.model, grads) else {
            return self;
        };
        let grads = match self.clip_norm {
            Some(max_norm) => clip_global_norm(&self, grads, max_norm),
            None => grads,
        };
        let Some(mut allocator) = self.allocator.take() else {
            return adamw_together(|| optim.step(learning_rate, self, grads));
        };
        allocator.observe(&self.model, &grads);
        let stepped = adamw_together(|| optim.step(learning_rate, self, grads));
        let steps = stepped.steps;
        let mut stepped = stepped.with(|model| allocator.allocate(model, steps));
        stepped.allocator = Some(allocator);
        stepped
    }
}

impl<M: CausalLm> InferenceStep for Trainee<M> {
    type Input = StepInput;
    type Output = StepOutput;

    fn step(&self, input: StepInput) -> StepOutput {
        let started = Instant::now();
        let learned: usize = input.batches.iter().map(|batch| batch.learned).sum();
        let losses = input
            .batches
            .iter()
            .map(|batch| loss_sum(&self.model, batch).0)
            .collect();
        let loss = Tensor::cat(losses, 0).sum().div_scalar(learned as f64);
        StepOutput::new(loss, &input.batches, started)
    }
}

/// By hand, because a derived one would put a segment of its own before every parameter's path.
impl<M: Module> Module for Trainee<M> {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.model.visit(visitor);
    }

    fn map<T: ModuleMapper>(self, mapper: &mut T) -> Self {
        self.with(|model| model.map(mapper))
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        self.model.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.with(|model| model.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.with(|model| model.to_device(device))
    }

    fn train(self) -> Self {
        self.with(Module::train)
    }

    fn valid(&self) -> Self {
        Self {
            model: self.model.valid(),
            clip_norm: self.clip_norm,
            allocator: None,
            loss_scale: self.loss_scale.clone(),
            pages: self.pages.clone(),
            steps: self.steps,
        }
    }

    fn materialize(self) -> Self {
        self.with(Module::materialize)
    }
}

impl<M: Module> fmt::Display for Trainee<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} trainable parameters", self.model.num_params())
    }
}
