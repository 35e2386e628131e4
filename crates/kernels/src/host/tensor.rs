use std::sync::Arc;

use super::pool::{Buffer, buffer};
#[cfg(feature = "flex")]
use burn::backend::flex::FlexTensor;
#[cfg(feature = "ndarray")]
use burn::backend::ndarray::SharedArray;

/// A view of `f32` numbers in host memory, shared with the backend's tensor that it was read from.
#[derive(Clone, Debug)]
pub(crate) struct HostTensor {
    storage: Storage,
    offset: usize,
    shape: Vec<usize>,
    /// In elements. Backwards views are copied before they come here.
    strides: Vec<usize>,
}

/// Who keeps the numbers alive.
#[derive(Clone, Debug)]
pub(crate) enum Storage {
    Owned(Arc<Buffer>),
    #[cfg(feature = "flex")]
    Flex(FlexTensor),
    #[cfg(feature = "ndarray")]
    NdArray(SharedArray<f32>),
}

impl Storage {
    fn numbers(&self) -> &[f32] {
        match self {
            Storage::Owned(numbers) => numbers,
            #[cfg(feature = "flex")]
            Storage::Flex(tensor) => tensor.storage(),
            #[cfg(feature = "ndarray")]
            Storage::NdArray(array) => super::backend::ndarray_numbers(array),
        }
    }
}

impl Storage {
    /// The numbers of a copy.
    ///
    /// # Panics
    /// If they are a backend's.
    pub(crate) fn into_buffer(self) -> Buffer {
        match self {
            Storage::Owned(numbers) => Arc::unwrap_or_clone(numbers),
            #[allow(unreachable_patterns, reason = "without a CPU backend")]
            other => panic!("another backend's numbers: {other:?}"),
        }
    }

    /// All numbers, if nobody else has them.
    fn numbers_mut(&mut self) -> Option<&mut [f32]> {
        match self {
            Storage::Owned(numbers) => Arc::get_mut(numbers).map(|numbers| &mut numbers[..]),
            #[cfg(feature = "flex")]
            Storage::Flex(tensor) => tensor.try_storage_mut(),
            #[cfg(feature = "ndarray")]
            Storage::NdArray(array) if array.is_unique() => array.as_slice_mut(),
            #[cfg(feature = "ndarray")]
            Storage::NdArray(_) => None,
        }
    }
}

/// The elements of a tensor in order, in memory that nobody else has.
#[derive(Debug)]
pub(crate) struct Exclusive(HostTensor);

impl Exclusive {
    pub(crate) fn slice_mut(&mut self) -> &mut [f32] {
        let (from, len) = (self.0.offset, self.0.len());
        let numbers = self.0.storage.numbers_mut().expect("nobody else's");
        &mut numbers[from..from + len]
    }

    pub(crate) fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    pub(crate) fn into_storage(self) -> Storage {
        self.0.storage
    }
}

impl HostTensor {
    /// The elements to be overwritten: in their own memory where nobody else has it, otherwise a copy.
    pub(crate) fn into_exclusive(self) -> Exclusive {
        let mut tensor = self.contiguous();
        if tensor.storage.numbers_mut().is_none() {
            let mut copy = buffer(tensor.len());
            copy.copy_from_slice(tensor.slice());
            tensor = Self::owned(copy, tensor.shape);
        }
        Exclusive(tensor)
    }

    pub(crate) fn new(
        storage: Storage,
        offset: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
    ) -> Self {
        Self {
            storage,
            offset,
            shape,
            strides,
        }
    }

    fn owned(numbers: Buffer, shape: Vec<usize>) -> Self {
        let strides = contiguous_strides(&shape);
        Self::new(Storage::Owned(Arc::new(numbers)), 0, shape, strides)
    }

    pub(crate) fn dims<const D: usize>(&self) -> [usize; D] {
        self.shape[..].try_into().expect("the operation's rank")
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(crate) fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// Elements of the last dimension.
    pub(crate) fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Elements of all dimensions.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Elements of all dimensions but the last.
    pub(crate) fn rows(&self) -> usize {
        self.shape
            .split_last()
            .map_or(1, |(_, rows)| rows.iter().product())
    }

    /// From the first element of the view to the end of what it is a view of.
    pub(crate) fn view(&self) -> &[f32] {
        &self.storage.numbers()[self.offset..]
    }

    /// The elements in order.
    ///
    /// # Panics
    /// If the view is not [contiguous](Self::contiguous).
    pub(crate) fn slice(&self) -> &[f32] {
        assert!(self.is_contiguous(), "a view with gaps is not a slice");
        &self.view()[..self.len()]
    }

    fn is_contiguous(&self) -> bool {
        let expected = contiguous_strides(&self.shape);
        let mut dims = self.shape.iter().zip(&self.strides).zip(&expected);
        dims.all(|((size, stride), expected)| *size <= 1 || stride == expected)
    }

    /// The same elements without gaps: itself, or a copy.
    pub(crate) fn contiguous(self) -> Self {
        if self.is_contiguous() {
            return self;
        }
        let width = self.width();
        let step = self.strides.last().copied().unwrap_or(1);
        let source = self.view();
        let mut numbers = buffer(self.len());
        for (row, to) in numbers.chunks_exact_mut(width.max(1)).enumerate() {
            let from = &source[self.row_offset(row)..];
            if step == 1 {
                to.copy_from_slice(&from[..width]);
            } else {
                to.iter_mut()
                    .enumerate()
                    .for_each(|(i, to)| *to = from[i * step]);
            }
        }
        Self::owned(numbers, self.shape)
    }

    /// The same with no gaps inside the last dimension: itself, or a copy.
    pub(crate) fn contiguous_rows(self) -> Self {
        match self.strides.last() {
            Some(1) => self,
            _ => self.contiguous(),
        }
    }

    /// Where the row of this number, in the order of the leading dimensions, starts.
    fn row_offset(&self, mut row: usize) -> usize {
        let leading = self.shape.len().saturating_sub(1);
        let mut offset = 0;
        for dim in (0..leading).rev() {
            offset += row % self.shape[dim] * self.strides[dim];
            row /= self.shape[dim];
        }
        offset
    }
}

pub(crate) fn contiguous_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for dim in (1..shape.len()).rev() {
        strides[dim - 1] = strides[dim] * shape[dim];
    }
    strides
}
