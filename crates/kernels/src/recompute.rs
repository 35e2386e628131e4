//! A part of a model that is computed again in the backward instead of kept.

#![allow(
    deprecated,
    reason = "so Burn 0.22 calls its ndarray backend, and still has it"
)]

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "cube")]
use burn::backend::Cube;
#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "ndarray")]
use burn::backend::NdArray;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{
    BalancedCheckpointing, CheckpointStrategy, NoCheckpointing,
};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind, TensorMetadata,
};
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Device, FloatDType, GradientCheckpointingStrategy, Tensor};

use crate::packed::{Packed, inner, is_packed, lift, lower};

/// `forward(module, x)`, of which nothing but `x` is kept: the backward computes it again (Chen et al., 2016,
/// arXiv:1604.06174).
///
/// The result and the gradients are the same to the last bit as without, for the time of a second forward. `forward` has to
/// compute the same both times: where it draws random numbers, `seed` makes the device draw the same ones again. Gradients
/// reach `x` and the parameters of `module`, and not the tensors that `forward` captures.
///
/// Where nothing is tracked, this is `forward(module, x)`; so it is, and everything is kept, on devices that
/// [`can_recompute`] does not know.
///
/// # Shapes
/// - x, output: of the same number of dimensions
pub fn recompute<M, const D: usize>(
    module: &M,
    x: Tensor<D>,
    seed: Option<u64>,
    forward: impl Fn(&M, Tensor<D>) -> Tensor<D> + Send + 'static,
) -> Tensor<D>
where
    M: Module + 'static,
{
    let mut detach = Detach::default();
    let module_at_rest = module.clone().map(&mut detach);
    let leaves = detach.leaves;
    let x_is_tracked = x.is_tracked();
    // The graph needs one parent to know that the result is tracked. Leaves need no edge to be given their gradients.
    let parent = match leaves.first() {
        _ if x_is_tracked => x.clone().into_dispatch(),
        Some((_, leaf)) => leaf.clone(),
        None => return forward(module, x),
    };
    let Some(route) = route_of(inner(&parent.kind)) else {
        return forward(module, x);
    };

    let x = at_rest(x);
    let device = x.device();
    let seeded_forward = move |module: &M, x: Tensor<D>| {
        if let Some(seed) = seed {
            device.seed(seed);
        }
        forward(module, x)
    };
    let y = seeded_forward(&module_at_rest, x.clone()).into_dispatch();
    let ids: Vec<ParamId> = leaves.iter().map(|(id, _)| *id).collect();
    let again = Again::new(move || {
        let mut attach = Attach::new(&ids);
        let module = module_at_rest.clone().map(&mut attach);
        let x = x.clone().set_require_grad(x_is_tracked);
        Second {
            y: seeded_forward(&module, x.clone()).into_dispatch(),
            x: x_is_tracked.then(|| x.into_dispatch()),
            leaves: attach.leaves,
        }
    });
    Tensor::from_dispatch(route(parent, y, leaves, again))
}

type Route = fn(DispatchTensor, DispatchTensor, Leaves, Again) -> DispatchTensor;

fn route_of(kind: &DispatchTensorKind) -> Option<Route> {
    match kind {
        #[cfg(feature = "flex")]
        DispatchTensorKind::Flex(_) => Some(route::<Flex>),
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(_) => Some(route::<NdArray>),
        #[cfg(feature = "cube")]
        DispatchTensorKind::Cube(_) => Some(route::<Cube>),
        #[allow(unreachable_patterns, reason = "other backends are other features")]
        _ => None,
    }
}

/// Whether [`recompute`] is built for the backend of a device. Ask before you promise memory.
pub fn can_recompute(device: &Device) -> bool {
    is_packed(device.as_dispatch())
}

/// The tracked leaves of a module, by their parameters.
type Leaves = Vec<(ParamId, DispatchTensor)>;

/// The same numbers out of the graph. To detach a leaf alone would keep its setting, and with it a graph.
fn at_rest<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.detach().set_require_grad(false)
}

/// Takes the parameters out of the graph.
#[derive(Default)]
struct Detach {
    leaves: Leaves,
}

impl ModuleMapper for Detach {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let value = param.base();
        if !value.is_tracked() {
            return param;
        }
        self.leaves.push((param.id, value.into_dispatch()));
        param.map(at_rest)
    }
}

/// Makes leaves of a graph of their own out of some of the parameters.
struct Attach<'a> {
    wanted: &'a [ParamId],
    leaves: Leaves,
}

impl<'a> Attach<'a> {
    fn new(wanted: &'a [ParamId]) -> Self {
        Self {
            wanted,
            leaves: Vec::with_capacity(wanted.len()),
        }
    }
}

impl ModuleMapper for Attach<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.wanted.contains(&param.id) {
            return param;
        }
        let param = param.map(|value| value.detach().require_grad());
        let leaf = param.base().into_dispatch();
        self.leaves.push((param.id, leaf));
        param
    }
}

/// What the second forward gives: the result and what it was computed from, in a graph of their own.
struct Second {
    y: DispatchTensor,
    x: Option<DispatchTensor>,
    leaves: Leaves,
}

/// The second forward. A graph's states are cloned and shared, hence the lock; it runs once.
#[derive(Clone)]
struct Again(Arc<Mutex<dyn Fn() -> Second + Send>>);

impl Again {
    fn new(forward: impl Fn() -> Second + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(forward)))
    }

    fn run(&self) -> Second {
        let forward = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        forward()
    }
}

impl fmt::Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Again")
    }
}

fn route<B: Packed>(
    parent: DispatchTensor,
    y: DispatchTensor,
    leaves: Leaves,
    again: Again,
) -> DispatchTensor {
    let context = parent.autodiff;
    let y = lift::<B>(y).into_primitive();
    let parent = lift::<B>(parent);
    let leaves = leaves
        .into_iter()
        .map(|(id, leaf)| (id, lift::<B>(leaf).id()))
        .collect();
    let state = State { again, leaves };
    let y = match context {
        DispatchAutodiffContext::Enabled(GradientCheckpointingStrategy::Balanced) => {
            track::<B, BalancedCheckpointing>(parent, y, state)
        }
        _ => track::<B, NoCheckpointing>(parent, y, state),
    };
    lower::<B>(y, context)
}

fn track<B: Packed, C: CheckpointStrategy>(
    parent: FloatTensor<Autodiff<B>>,
    y: FloatTensor<B>,
    state: State,
) -> FloatTensor<Autodiff<B>> {
    let (_, guard) = parent.into_parts();
    match Recomputed.prepare::<C>([guard]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}

#[derive(Debug)]
struct Recomputed;

#[derive(Clone, Debug)]
struct State {
    again: Again,
    /// The nodes of the module's parameters in the outer graph.
    leaves: Vec<(ParamId, NodeId)>,
}

impl<B: Packed> Backward<B, 1> for Recomputed {
    type State = State;

    fn backward(self, ops: Ops<State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let Second { y, x, leaves } = ops.state.again.run();
        let (device, dtype) = (grad.device(), grad.dtype());
        let inner = start::<B>(lift::<B>(y), grad).backward();
        for (id, leaf) in leaves {
            let node = ops.state.leaves.iter().find(|(of, _)| *of == id);
            let grad = inner.get::<B>(&lift::<B>(leaf));
            if let (Some((_, node)), Some(grad)) = (node, grad) {
                grads.register::<B>(*node, grad);
            }
        }
        if let (Some(x), [Some(parent)]) = (x, ops.parents) {
            let x = lift::<B>(x);
            // Whoever made x waits for a gradient, also where the result does not depend on it.
            let grad = inner.get::<B>(&x).unwrap_or_else(|| {
                B::float_zeros(x.primitive().shape(), &device, FloatDType::from(dtype))
            });
            grads.register::<B>(parent.id, grad);
        }
    }
}

/// A root whose backward begins with this gradient of `y`.
fn start<B: Backend>(
    y: FloatTensor<Autodiff<B>>,
    grad: FloatTensor<B>,
) -> FloatTensor<Autodiff<B>> {
    let root = B::float_zeros([1].into(), &grad.device(), FloatDType::from(grad.dtype()));
    let (_, guard) = y.into_parts();
    match Start
        .prepare::<NoCheckpointing>([guard])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(grad, root),
        OpsKind::UnTracked(prep) => prep.finish(root),
    }
}

#[derive(Debug)]
struct Start;

impl<B: Backend> Backward<B, 1> for Start {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<FloatTensor<B>, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        if let [Some(parent)] = ops.parents {
            grads.register::<B>(parent.id, ops.state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use burn::tensor::{Distribution, Shape};

    use super::*;

    /// `y = tanh(x W1) W2 + x`, W2 being frozen.
    #[derive(Module, Debug)]
    struct Block {
        first: Param<Tensor<2>>,
        second: Param<Tensor<2>>,
    }

    impl Block {
        fn new(device: &Device) -> Self {
            let random = || {
                let values = Tensor::random([5, 5], Distribution::Normal(0.0, 1.0), device);
                Param::from_tensor(values)
            };
            Self {
                first: random(),
                second: random().set_require_grad(false),
            }
        }

        fn forward(&self, x: Tensor<2>) -> Tensor<2> {
            let y = x.clone().matmul(self.first.val()).tanh();
            y.matmul(self.second.val()) + x
        }
    }

    fn devices() -> Vec<Device> {
        vec![
            #[cfg(feature = "flex")]
            Device::flex().autodiff(),
            #[cfg(feature = "ndarray")]
            Device::ndarray().autodiff(),
        ]
    }

    /// The result, and the gradients of x and of the first weight of each block.
    fn run(
        blocks: &[Block],
        x: &Tensor<2>,
        block: impl Fn(&Block, Tensor<2>) -> Tensor<2>,
    ) -> Vec<Option<Vec<f32>>> {
        let y = blocks.iter().fold(x.clone(), |x, each| block(each, x));
        let numbers = |x: Tensor<2>| x.into_data().try_to_vec::<f32>().expect("f32");
        let grads = (y.clone() * y.clone()).sum().backward();
        let weights = blocks.iter().map(|block| block.first.val().grad(&grads));
        let mut all = vec![Some(numbers(y.inner())), x.grad(&grads).map(numbers)];
        all.extend(weights.map(|grad| grad.map(numbers)));
        all
    }

    #[test]
    fn gives_the_same_bits_as_keeping_everything() {
        for device in devices() {
            let blocks: Vec<Block> = (0..3).map(|_| Block::new(&device)).collect();
            for tracked in [true, false] {
                let x = Tensor::<2>::random([4, 5], Distribution::Normal(0.0, 1.0), &device);
                let x = x.set_require_grad(tracked);
                let kept = run(&blocks, &x, |block, x| block.forward(x));
                let again = run(&blocks, &x, |block, x| {
                    recompute(block, x, None, |block, x| block.forward(x))
                });
                assert!(again.iter().skip(2).all(Option::is_some));
                assert_eq!(kept, again);
            }
        }
    }

    #[test]
    fn the_first_forward_keeps_nothing_and_the_backward_runs_a_second_one() {
        for device in devices() {
            assert!(can_recompute(&device) && can_recompute(&device.clone().inner()));
            let block = Block::new(&device);
            let x = Tensor::<2>::ones([4, 5], &device).require_grad();
            let runs: Arc<Mutex<Vec<[bool; 2]>>> = Arc::default();
            let seen = runs.clone();
            let y = recompute(&block, x, None, move |block, x| {
                let tracked = [x.is_tracked(), block.first.val().is_tracked()];
                seen.lock().expect("one thread").push(tracked);
                block.forward(x)
            });
            assert_eq!(*runs.lock().expect("one thread"), [[false, false]]);
            y.sum().backward();
            assert_eq!(
                *runs.lock().expect("one thread"),
                [[false, false], [true, true]]
            );
        }
    }

    #[test]
    fn an_input_that_the_result_does_not_depend_on_has_a_gradient_of_zero() {
        for device in devices() {
            let block = Block::new(&device);
            let w = Tensor::<2>::ones([2, 5], &device).require_grad();
            let x = w.clone() * 2.0;
            let y = recompute(&block, x, None, |block, x| {
                block.first.val() * x.dims()[0] as f32
            });
            let grads = y.sum().backward();
            let grad = w.grad(&grads).expect("tracked");
            assert_eq!(grad.clone().abs().sum().into_scalar::<f32>(), 0.0);
            assert_eq!(grad.shape(), Shape::new([2, 5]));
        }
    }

    #[test]
    fn a_frozen_module_without_autodiff_is_run_as_it_is() {
        for device in devices() {
            let device = device.inner();
            let block = Block::new(&device);
            let x = Tensor::<2>::ones([2, 5], &device);
            let y = recompute(&block, x.clone(), None, |block, x| block.forward(x));
            assert_eq!(y.into_data(), block.forward(x).into_data());
        }
    }
}
