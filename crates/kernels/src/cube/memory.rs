//! New tensors, views of tensors, and how wide a kernel may read them.

use burn::tensor::{DType, Shape};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_std::Metadata;
use cubecl::prelude::*;

/// A tensor of this shape beside another one, row after row without gaps, its numbers not yet written.
pub(super) fn empty(beside: &CubeTensor, shape: &[usize], dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(
        beside.client.clone(),
        beside.device.clone(),
        Shape::from(shape.to_vec()),
        dtype,
    )
}

/// The same with no gaps: itself, or a copy.
pub(super) fn contiguous(tensor: CubeTensor) -> CubeTensor {
    burn_cubecl::kernel::into_contiguous(tensor)
}

/// Numbers without gaps, seen in another shape of as many.
pub(super) fn reshaped(tensor: CubeTensor, shape: &[usize]) -> CubeTensor {
    debug_assert!(tensor.is_contiguous());
    let mut strides = vec![1; shape.len()];
    for dim in (1..shape.len()).rev() {
        strides[dim - 1] = strides[dim] * shape[dim];
    }
    let meta = Metadata::new(Shape::from(shape.to_vec()), strides);
    CubeTensor {
        meta: Box::new(meta),
        ..tensor
    }
}

/// A matrix seen with rows and columns exchanged.
pub(super) fn transposed(mut tensor: CubeTensor) -> CubeTensor {
    tensor.meta.swap(0, 1);
    tensor
}

/// The size of the last dimension.
pub(super) fn width(tensor: &CubeTensor) -> usize {
    tensor.meta.shape().last().copied().unwrap_or(1)
}

/// How many elements there are to a width of its own.
pub(super) fn rows(tensor: &CubeTensor) -> usize {
    tensor.meta.num_elements() / width(tensor).max(1)
}

/// How many numbers a kernel may read at a time, of rows this wide, each of at most 16 bytes together.
pub(super) fn vector_size(tensors: &[&CubeTensor], width: usize) -> usize {
    let widest = tensors.iter().map(|tensor| 16 / tensor.dtype.size()).min();
    let mut size = widest.unwrap_or(1);
    let supported = tensors.first().map_or(1, |tensor| {
        tensor.client.properties().hardware.max_vector_size
    });
    while size > 1 && (!width.is_multiple_of(size) || size > supported) {
        size /= 2;
    }
    size
}
