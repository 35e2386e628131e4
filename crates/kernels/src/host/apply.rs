use std::fmt::Debug;
use std::sync::Arc;

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "ndarray")]
use burn::backend::NdArray;
use burn::backend::tensor::FloatTensor;
use burn::backend::{DispatchTensor, DispatchTensorKind, TensorMetadata};
use burn::tensor::{DType, FloatDType, Tensor};

use super::backend::Host;
use super::pool::Buffer;
use super::tensor::{Exclusive, HostTensor};
use crate::operation::{Form, Operation, Reads, route};
use crate::packed::inner;

/// Operations on `f32` numbers in host memory.
#[derive(Clone, Debug)]
pub(crate) struct InMemory;

impl Form for InMemory {
    type Operand = HostTensor;
    type Output = Output;
    type Extra = Arc<Buffer>;
}

/// What such an operation keeps.
pub(crate) type Saved = crate::operation::Saved<InMemory>;

impl<B: Host> Reads<InMemory> for B {
    fn read(tensor: FloatTensor<B>) -> HostTensor {
        B::to_host(match tensor.dtype() {
            DType::F32 => tensor,
            _ => B::float_cast(tensor, FloatDType::F32),
        })
    }

    fn write(output: Output, dtype: DType) -> FloatTensor<B> {
        let mut tensor = match output.numbers {
            Numbers::New(numbers) => B::from_host(numbers, &output.shape),
            Numbers::Reused(numbers) => B::from_storage(numbers.into_storage(), &output.shape),
        };
        if dtype != DType::F32 {
            tensor = B::float_cast(tensor, FloatDType::from(dtype));
        }
        match output.swapped {
            Some((a, b)) => B::float_swap_dims(tensor, a, b),
            None => tensor,
        }
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
}

/// Computes an operation on operands of one CPU backend; the result has this dtype.
///
/// # Panics
/// If the operands are of different backends, or of one that is not [in host memory](super::takes).
pub(crate) fn apply<O: Operation<InMemory>, const N: usize, const D: usize>(
    op: O,
    inputs: [DispatchTensor; N],
    dtype: DType,
) -> Tensor<D> {
    Tensor::from_dispatch(match inner(&inputs[0].kind) {
        #[cfg(feature = "flex")]
        DispatchTensorKind::Flex(_) => route::<Flex, InMemory, O, N>(op, inputs, dtype),
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(_) => route::<NdArray, InMemory, O, N>(op, inputs, dtype),
        other => panic!("not in host memory: {other:?}"),
    })
}
