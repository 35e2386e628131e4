//! Operations with a backward written by hand, in the autodiff graph of whichever backend holds their operands.
//!
//! An [`Operation`] says what it computes, in one [`Form`]: from plain slices in host memory, or by kernels on a GPU.
//! [`route`] takes it to a backend that this form [reads](Reads), and into the graph when an operand is tracked.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{
    BalancedCheckpointing, CheckpointStrategy, NoCheckpointing,
};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, AutodiffBackend, BackendTensor, DispatchAutodiffContext, DispatchTensor,
    TensorMetadata,
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

/// An operation of several results of one dtype, with one backward for all of them.
pub(crate) trait Several<F: Form>: Clone + Debug + Send + 'static {
    /// The results, and what [`backward`](Self::backward) needs of this moment.
    fn forward(&self, inputs: &[F::Operand], tracked: &[bool]) -> (Vec<F::Output>, Saved<F>);

    /// The gradients of the tracked operands, in their order, given those of the results: of one, if not of all, since what
    /// nothing was made of has none.
    fn backward(
        &self,
        saved: Saved<F>,
        grads: Vec<Option<F::Operand>>,
        tracked: &[bool],
    ) -> Vec<Option<F::Output>>;
}

/// An operation of one result as one of several.
#[derive(Clone, Debug)]
struct Single<O>(O);

impl<F: Form, O: Operation<F>> Several<F> for Single<O> {
    fn forward(&self, inputs: &[F::Operand], tracked: &[bool]) -> (Vec<F::Output>, Saved<F>) {
        let (output, saved) = self.0.forward(inputs, tracked);
        (vec![output], saved)
    }

    fn backward(
        &self,
        saved: Saved<F>,
        mut grads: Vec<Option<F::Operand>>,
        tracked: &[bool],
    ) -> Vec<Option<F::Output>> {
        let grad = grads.pop().flatten();
        self.0
            .backward(saved, grad.expect("the gradient of the result"), tracked)
    }
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
    let mut results = route_several::<B, F, Single<O>, N>(Single(op), inputs, dtype);
    results.pop().expect("the result")
}

/// As [`route`], for several results.
///
/// # Panics
/// If an operand is another backend's.
pub(crate) fn route_several<B, F, O, const N: usize>(
    op: O,
    inputs: [DispatchTensor; N],
    dtype: DType,
) -> Vec<DispatchTensor>
where
    B: Reads<F>,
    F: Form,
    O: Several<F>,
{
    let context = inputs.iter().map(|input| input.autodiff).fold(
        DispatchAutodiffContext::Disabled,
        DispatchAutodiffContext::merge,
    );
    match context {
        DispatchAutodiffContext::Disabled => {
            let inputs = inputs.map(|input| B::read(B::unpack(input.kind).float()));
            let (outputs, _) = op.forward(&inputs, &[false; N]);
            let tensor = |output| DispatchTensor {
                kind: B::pack(BackendTensor::Float(B::write(output, dtype))),
                autodiff: context,
            };
            outputs.into_iter().map(tensor).collect()
        }
        DispatchAutodiffContext::Enabled(strategy) => {
            let inputs = inputs.map(lift::<B>);
            let outputs = match strategy {
                GradientCheckpointingStrategy::Disabled => {
                    track::<B, F, NoCheckpointing, O, N>(op, inputs, dtype)
                }
                GradientCheckpointingStrategy::Balanced => {
                    track::<B, F, BalancedCheckpointing, O, N>(op, inputs, dtype)
                }
            };
            let tensor = |output| lower::<B>(output, context);
            outputs.into_iter().map(tensor).collect()
        }
    }
}

fn track<B, F, C, O, const N: usize>(
    op: O,
    inputs: [FloatTensor<Autodiff<B>>; N],
    dtype: DType,
) -> Vec<FloatTensor<Autodiff<B>>>
where
    B: Reads<F>,
    F: Form,
    C: CheckpointStrategy,
    O: Several<F>,
{
    let tracked = inputs.each_ref().map(|input| input.is_tracked());
    let dtypes = inputs.each_ref().map(|input| input.dtype());
    let (tensors, guards) = split(inputs.map(|input| input.into_parts()));
    let (outputs, mut saved) = op.forward(&tensors.map(B::read), &tracked);
    let outputs = outputs.into_iter().map(|output| B::write(output, dtype));
    let outputs: Vec<FloatTensor<B>> = outputs.collect();
    let node = Node::<F, O, N>(PhantomData)
        .prepare::<C>(guards)
        .compute_bound();
    let prep = match node.stateful() {
        OpsKind::Tracked(prep) => prep,
        OpsKind::UnTracked(_) => {
            let constants = outputs.into_iter().map(<Autodiff<B>>::from_inner);
            return constants.collect();
        }
    };
    let first = outputs[0].clone();
    if saved.keep_output {
        saved.output = Some(B::read(first.clone()));
    }
    let mut state = State {
        op,
        saved,
        dtypes,
        several: None,
    };
    if outputs.len() == 1 {
        return vec![prep.finish(state, first)];
    }
    // Burn's nodes have one result. This one's is nobody's; each of ours is that of a node behind it, which only leaves its
    // gradient for this one.
    let gradients = Gathered::<F>::new(Mutex::new(vec![None; outputs.len()]));
    state.several = Some(gradients.clone());
    let all = prep.finish(state, first);
    let results = outputs.into_iter().enumerate().map(|(index, output)| {
        let (_, guard) = all.clone().into_parts();
        let node = OneOf::<F>(PhantomData)
            .prepare::<C>([guard])
            .compute_bound();
        match node.stateful() {
            OpsKind::Tracked(prep) => prep.finish((index, gradients.clone()), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    });
    results.collect()
}

/// The gradients of several results.
type Gathered<F> = Arc<Mutex<Vec<Option<<F as Form>::Operand>>>>;

/// One of several results.
#[derive(Debug)]
struct OneOf<F>(PhantomData<fn() -> F>);

impl<B: Reads<F>, F: Form> Backward<B, 1> for OneOf<F> {
    type State = (usize, Gathered<F>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (index, gathered) = ops.state;
        let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
        // The node of all is asked for its own gradient, which has to be there, whatever it is.
        if let ([Some(all)], true) = (ops.parents, gathered.iter().all(Option::is_none)) {
            grads.register::<B>(all.id, grad.clone());
        }
        gathered[index] = Some(B::read(grad));
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
    /// Where the gradients are, if there are several results.
    several: Option<Gathered<F>>,
}

impl<B, F, O, const N: usize> Backward<B, N> for Node<F, O, N>
where
    B: Reads<F>,
    F: Form,
    O: Several<F>,
{
    type State = State<F, O, N>;

    fn backward(self, ops: Ops<State<F, O, N>, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let State {
            op,
            saved,
            dtypes,
            several,
        } = ops.state;
        let tracked = ops.parents.each_ref().map(Option::is_some);
        let grads_of_results = match several {
            Some(gathered) => {
                drop(grad);
                let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
                gathered.iter_mut().map(Option::take).collect()
            }
            None => vec![Some(B::read(grad))],
        };
        let results = op.backward(saved, grads_of_results, &tracked);
        for ((parent, result), dtype) in ops.parents.into_iter().zip(results).zip(dtypes) {
            if let (Some(parent), Some(result)) = (parent, result) {
                grads.register::<B>(parent.id, B::write(result, dtype));
            }
        }
    }
}
