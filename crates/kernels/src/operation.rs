//! Operations with a backward written by hand, in the autodiff graph of whichever backend holds their operands.
//!
//! An [`Operation`] says what it computes, in one [`Form`]: from plain slices in host memory, or by kernels on a GPU.
//! [`route`] takes it to a backend that this form [reads](Reads), and into the graph when an operand is tracked.

use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{
    BalancedCheckpointing, CheckpointStrategy, NoCheckpointing,
};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, BackendTensor, DispatchAutodiffContext, DispatchTensor, TensorMetadata,
};
use burn::tensor::{DType, GradientCheckpointingStrategy};

use crate::packed::{Packed, lift, lower};

/// What operations of one kind compute on.
pub(crate) trait Form: Clone + Debug + Send + 'static {
    /// An operand, shared with the tensor that it was read from.
    type Operand: Clone + Debug + Send + 'static;
    /// A result that is not yet a tensor.
    type Output;
    /// An intermediate value that the backward needs.
    type Extra: Clone + Debug + Send + 'static;
}

/// A backend whose tensors a form can read.
pub(crate) trait Reads<F: Form>: Packed {
    /// Shares the numbers of a tensor.
    fn read(tensor: FloatTensor<Self>) -> F::Operand;

    /// Makes a tensor of this dtype.
    fn write(output: F::Output, dtype: DType) -> FloatTensor<Self>;
}

/// An operation of one result, by its value and its derivatives.
///
/// `tracked` says of each operand whether its gradient will be asked for: nothing is kept and nothing computed for
/// one that is not.
pub(crate) trait Operation<F: Form>: Clone + Debug + Send + 'static {
    /// The result, and what [`backward`](Self::backward) needs of this moment.
    fn forward(&self, inputs: &[F::Operand], tracked: &[bool]) -> (F::Output, Saved<F>);

    /// The gradients of the tracked operands, in their order, given that of the result.
    fn backward(
        &self,
        saved: Saved<F>,
        grad: F::Operand,
        tracked: &[bool],
    ) -> Vec<Option<F::Output>>;
}

/// What an operation keeps from its forward for its backward.
#[derive(Clone, Debug)]
pub(crate) struct Saved<F: Form> {
    /// The operands that are needed again: shared, not copied.
    pub(crate) inputs: Vec<Option<F::Operand>>,
    /// Set to have the result itself again.
    pub(crate) keep_output: bool,
    /// The result, where it was asked for.
    pub(crate) output: Option<F::Operand>,
    /// Statistics and other intermediate values.
    pub(crate) extra: Vec<F::Extra>,
}

impl<F: Form> Default for Saved<F> {
    fn default() -> Self {
        Self {
            inputs: Vec::new(),
            keep_output: false,
            output: None,
            extra: Vec::new(),
        }
    }
}

impl<F: Form> Saved<F> {
    /// The operand of this number.
    ///
    /// # Panics
    /// If the forward did not keep it.
    pub(crate) fn input(&self, index: usize) -> &F::Operand {
        self.inputs[index].as_ref().expect("kept by the forward")
    }

    /// The operand of this number, to be given up.
    ///
    /// # Panics
    /// If the forward did not keep it.
    pub(crate) fn take_input(&mut self, index: usize) -> F::Operand {
        self.inputs[index].take().expect("kept by the forward")
    }
}

/// Computes an operation on operands of this backend; the result has this dtype.
///
/// # Panics
/// If an operand is another backend's.
pub(crate) fn route<B, F, O, const N: usize>(
    op: O,
    inputs: [DispatchTensor; N],
    dtype: DType,
) -> DispatchTensor
where
    B: Reads<F>,
    F: Form,
    O: Operation<F>,
{
    let context = inputs.iter().map(|input| input.autodiff).fold(
        DispatchAutodiffContext::Disabled,
        DispatchAutodiffContext::merge,
    );
    match context {
        DispatchAutodiffContext::Disabled => {
            let inputs = inputs.map(|input| B::read(B::unpack(input.kind).float()));
            let (output, _) = op.forward(&inputs, &[false; N]);
            DispatchTensor {
                kind: B::pack(BackendTensor::Float(B::write(output, dtype))),
                autodiff: context,
            }
        }
        DispatchAutodiffContext::Enabled(strategy) => {
            let inputs = inputs.map(lift::<B>);
            let output = match strategy {
                GradientCheckpointingStrategy::Disabled => {
                    track::<B, F, NoCheckpointing, O, N>(op, inputs, dtype)
                }
                GradientCheckpointingStrategy::Balanced => {
                    track::<B, F, BalancedCheckpointing, O, N>(op, inputs, dtype)
                }
            };
            lower::<B>(output, context)
        }
    }
}

fn track<B, F, C, O, const N: usize>(
    op: O,
    inputs: [FloatTensor<Autodiff<B>>; N],
    dtype: DType,
) -> FloatTensor<Autodiff<B>>
where
    B: Reads<F>,
    F: Form,
    C: CheckpointStrategy,
    O: Operation<F>,
{
    let tracked = inputs.each_ref().map(|input| input.is_tracked());
    let dtypes = inputs.each_ref().map(|input| input.dtype());
    let (tensors, guards) = split(inputs.map(|input| input.into_parts()));
    let (output, mut saved) = op.forward(&tensors.map(B::read), &tracked);
    let output = B::write(output, dtype);
    let node = Node::<F, O, N>(PhantomData)
        .prepare::<C>(guards)
        .compute_bound();
    match node.stateful() {
        OpsKind::Tracked(prep) => {
            if saved.keep_output {
                saved.output = Some(B::read(output.clone()));
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
struct Node<F, O, const N: usize>(PhantomData<fn() -> (F, O)>);

#[derive(Clone, Debug)]
struct State<F: Form, O, const N: usize> {
    op: O,
    saved: Saved<F>,
    dtypes: [DType; N],
}

impl<B, F, O, const N: usize> Backward<B, N> for Node<F, O, N>
where
    B: Reads<F>,
    F: Form,
    O: Operation<F>,
{
    type State = State<F, O, N>;

    fn backward(self, ops: Ops<State<F, O, N>, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let State { op, saved, dtypes } = ops.state;
        let tracked = ops.parents.each_ref().map(Option::is_some);
        let results = op.backward(saved, B::read(grad), &tracked);
        for ((parent, result), dtype) in ops.parents.into_iter().zip(results).zip(dtypes) {
            if let (Some(parent), Some(result)) = (parent, result) {
                grads.register::<B>(parent.id, B::write(result, dtype));
            }
        }
    }
}
