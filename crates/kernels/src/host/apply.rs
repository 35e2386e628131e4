use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "ndarray")]
use burn::backend::NdArray;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{
    BalancedCheckpointing, CheckpointStrategy, NoCheckpointing,
};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, BackendTensor, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind,
    TensorMetadata,
};
use burn::tensor::{DType, FloatDType, GradientCheckpointingStrategy, Tensor};

use super::backend::Host;
use super::pool::Buffer;
use super::tensor::{Exclusive, HostTensor};
use crate::packed::{inner, lift, lower};

/// An operation of one result, by its value and its derivatives.
///
/// `tracked` says of each operand whether its gradient will be asked for: nothing is kept and nothing computed for
/// one that is not.
pub(crate) trait HostOp: Clone + Debug + Send + 'static {
    /// The result, and what [`backward`](Self::backward) needs of this moment.
    fn forward(&self, inputs: &[HostTensor], tracked: &[bool]) -> (Output, Saved);

    /// The gradients of the tracked operands, in their order, given that of the result.
    fn backward(&self, saved: Saved, grad: HostTensor, tracked: &[bool]) -> Vec<Option<Output>>;
}

/// What an operation keeps from its forward for its backward.
#[derive(Clone, Debug, Default)]
pub(crate) struct Saved {
    /// The operands that are needed again: shared, not copied.
    pub(crate) inputs: Vec<Option<HostTensor>>,
    /// Set to have the result itself again.
    pub(crate) keep_output: bool,
    /// The result, where it was asked for.
    pub(crate) output: Option<HostTensor>,
    /// Statistics and other intermediate values.
    pub(crate) extra: Vec<Arc<Buffer>>,
}

impl Saved {
    /// The operand of this number.
    ///
    /// # Panics
    /// If the forward did not keep it.
    pub(crate) fn input(&self, index: usize) -> &HostTensor {
        self.inputs[index].as_ref().expect("kept by the forward")
    }

    /// The operand of this number, to be given up.
    ///
    /// # Panics
    /// If the forward did not keep it.
    pub(crate) fn take_input(&mut self, index: usize) -> HostTensor {
        self.inputs[index].take().expect("kept by the forward")
    }
}

/// Numbers with the form of the tensor that they become.
#[derive(Debug)]
pub(crate) struct Output {
    numbers: Numbers,
    shape: Vec<usize>,
    swapped: Option<(usize, usize)>,
}

#[derive(Debug)]
enum Numbers {
    New(Buffer),
    /// An operand's memory, overwritten.
    Reused(Exclusive),
}

impl Output {
    /// Numbers in the order of the dimensions.
    pub(crate) fn new(numbers: impl Into<Buffer>, shape: &[usize]) -> Self {
        Self {
            numbers: Numbers::New(numbers.into()),
            shape: shape.to_vec(),
            swapped: None,
        }
    }

    /// Numbers in the place and the form of an operand that nobody needs any more.
    pub(crate) fn in_place(numbers: Exclusive) -> Self {
        Self {
            shape: numbers.shape().to_vec(),
            numbers: Numbers::Reused(numbers),
            swapped: None,
        }
    }

    /// The same numbers, seen with two dimensions exchanged.
    pub(crate) fn swap_dims(mut self, a: usize, b: usize) -> Self {
        self.swapped = Some((a, b));
        self
    }

    fn into_tensor<B: Host>(self, dtype: DType) -> FloatTensor<B> {
        let mut tensor = match self.numbers {
            Numbers::New(numbers) => B::from_host(numbers, &self.shape),
            Numbers::Reused(numbers) => B::from_storage(numbers.into_storage(), &self.shape),
        };
        if dtype != DType::F32 {
            tensor = B::float_cast(tensor, FloatDType::from(dtype));
        }
        match self.swapped {
            Some((a, b)) => B::float_swap_dims(tensor, a, b),
            None => tensor,
        }
    }
}

/// Computes an operation on operands of one CPU backend; the result has this dtype.
///
/// # Panics
/// If the operands are of different backends, or of one that is not [in host memory](super::takes).
pub(crate) fn apply<O: HostOp, const N: usize, const D: usize>(
    op: O,
    inputs: [DispatchTensor; N],
    dtype: DType,
) -> Tensor<D> {
    Tensor::from_dispatch(match inner(&inputs[0].kind) {
        #[cfg(feature = "flex")]
        DispatchTensorKind::Flex(_) => route::<Flex, O, N>(op, inputs, dtype),
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(_) => route::<NdArray, O, N>(op, inputs, dtype),
        other => panic!("not in host memory: {other:?}"),
    })
}

fn route<B: Host, O: HostOp, const N: usize>(
    op: O,
    inputs: [DispatchTensor; N],
    dtype: DType,
) -> DispatchTensor {
    let context = inputs.iter().map(|input| input.autodiff).fold(
        DispatchAutodiffContext::Disabled,
        DispatchAutodiffContext::merge,
    );
    match context {
        DispatchAutodiffContext::Disabled => {
            let inputs = inputs.map(|input| B::unpack(input.kind).float());
            let inputs = inputs.map(read::<B>);
            let (output, _) = op.forward(&inputs, &[false; N]);
            DispatchTensor {
                kind: B::pack(BackendTensor::Float(output.into_tensor::<B>(dtype))),
                autodiff: context,
            }
        }
        DispatchAutodiffContext::Enabled(strategy) => {
            let inputs = inputs.map(lift::<B>);
            let output = match strategy {
                GradientCheckpointingStrategy::Disabled => {
                    track::<B, NoCheckpointing, O, N>(op, inputs, dtype)
                }
                GradientCheckpointingStrategy::Balanced => {
                    track::<B, BalancedCheckpointing, O, N>(op, inputs, dtype)
                }
            };
            lower::<B>(output, context)
        }
    }
}

fn read<B: Host>(tensor: FloatTensor<B>) -> HostTensor {
    B::to_host(match tensor.dtype() {
        DType::F32 => tensor,
        _ => B::float_cast(tensor, FloatDType::F32),
    })
}

fn track<B: Host, C: CheckpointStrategy, O: HostOp, const N: usize>(
    op: O,
    inputs: [FloatTensor<Autodiff<B>>; N],
    dtype: DType,
) -> FloatTensor<Autodiff<B>> {
    let tracked = inputs.each_ref().map(|input| input.is_tracked());
    let dtypes = inputs.each_ref().map(|input| input.dtype());
    let (tensors, guards) = split(inputs.map(|input| input.into_parts()));
    let (output, mut saved) = op.forward(&tensors.map(read::<B>), &tracked);
    let output = output.into_tensor::<B>(dtype);
    let node = Node::<O, N>(PhantomData)
        .prepare::<C>(guards)
        .compute_bound();
    match node.stateful() {
        OpsKind::Tracked(prep) => {
            if saved.keep_output {
                saved.output = Some(read::<B>(output.clone()));
            }
            prep.finish(State { op, saved, dtypes }, output)
        }
        OpsKind::UnTracked(prep) => prep.finish(output),
    }
}

fn split<A, B, const N: usize>(pairs: [(A, B); N]) -> ([A; N], [B; N]) {
    let mut second = Vec::with_capacity(N);
    let first = pairs.map(|(a, b)| {
        second.push(b);
        a
    });
    let Ok(second) = second.try_into() else {
        unreachable!("one for each pair")
    };
    (first, second)
}

#[derive(Debug)]
struct Node<O, const N: usize>(PhantomData<fn() -> O>);

#[derive(Clone, Debug)]
struct State<O, const N: usize> {
    op: O,
    saved: Saved,
    dtypes: [DType; N],
}

impl<B: Host, O: HostOp, const N: usize> Backward<B, N> for Node<O, N> {
    type State = State<O, N>;

    fn backward(self, ops: Ops<State<O, N>, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let State { op, saved, dtypes } = ops.state;
        let tracked = ops.parents.each_ref().map(Option::is_some);
        let results = op.backward(saved, read::<B>(grad), &tracked);
        for ((parent, result), dtype) in ops.parents.into_iter().zip(results).zip(dtypes) {
            if let (Some(parent), Some(result)) = (parent, result) {
                grads.register::<B>(parent.id, result.into_tensor::<B>(dtype));
            }
        }
    }
}
