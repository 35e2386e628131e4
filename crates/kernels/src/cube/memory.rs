//! New tensors, views of tensors, and how wide a kernel may read them.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_std::Metadata;
use cubecl::client::Client;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

/// Units that work on one row, or on neighbouring vectors.
pub(super) const UNITS: u32 = 256;

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

/// Matrices seen with rows and columns exchanged.
pub(super) fn transposed(mut tensor: CubeTensor) -> CubeTensor {
    let rank = tensor.meta.rank();
    tensor.meta.swap(rank - 2, rank - 1);
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

/// How many numbers a kernel may read at a time, of rows this wide: 16 bytes of the narrowest.
pub(super) fn vector_size(tensors: &[&CubeTensor], width: usize) -> usize {
    let widest = tensors.iter().map(|tensor| 16 / tensor.dtype.size()).max();
    let mut size = widest.unwrap_or(1);
    let supported = tensors.first().map_or(1, |tensor| {
        tensor.client.properties().hardware.max_vector_size
    });
    let starts = |tensor: &CubeTensor| {
        tensor.handle.offset_start.unwrap_or(0) as usize / tensor.dtype.size()
    };
    let even = |size: usize| {
        let starts = tensors
            .iter()
            .all(|tensor| starts(tensor).is_multiple_of(size));
        starts && width.is_multiple_of(size) && size <= supported
    };
    while size > 1 && !even(size) {
        size /= 2;
    }
    size
}

/// The whole memory of a tensor, as a kernel takes it.
pub(super) fn buffer(tensor: &CubeTensor) -> BufferArg {
    let length = tensor.handle.size() as usize / tensor.dtype.size();
    // SAFETY: as long as the tensor's own memory.
    unsafe { BufferArg::from_raw_parts(tensor.handle.clone(), length) }
}

/// The type of a tensor's numbers, as a kernel takes it.
pub(super) fn elem(tensor: &CubeTensor) -> ElemType {
    dtype_to_storage_type(tensor.dtype)
}

/// So many cubes, whatever a device's limit for one axis: there may be more than were asked for.
pub(super) fn cubes(client: &Client, count: usize) -> CubeCount {
    cubecl::calculate_cube_count_elemwise(client, count, CubeDim::new_1d(1))
}

/// Cubes of [`UNITS`] for so many independent pieces of work.
pub(super) fn cubes_for(client: &Client, pieces: usize) -> CubeCount {
    cubes(client, pieces.div_ceil(UNITS as usize))
}

/// Some rows of a matrix without gaps, sharing its memory.
pub(super) fn rows_of(matrix: &CubeTensor, from: usize, count: usize) -> CubeTensor {
    let width = width(matrix);
    part_of(matrix, from * width, [count, width])
}

/// Some columns of a matrix without gaps, or some of a vector, sharing its memory.
pub(super) fn columns_of(matrix: &CubeTensor, from: usize, count: usize) -> CubeTensor {
    let mut part = numbers_of(
        matrix,
        from,
        matrix.meta.num_elements() + count - width(matrix),
    );
    let last = part.meta.rank() - 1;
    part.meta.shape_mut()[last] = count;
    part
}

/// Some of a tensor's numbers without gaps, as a matrix of this size.
pub(super) fn part_of(tensor: &CubeTensor, from: usize, size: [usize; 2]) -> CubeTensor {
    reshaped(numbers_of(tensor, from, size[0] * size[1]), &size)
}

/// A tensor without gaps whose memory begins so many numbers later, and has so many.
fn numbers_of(tensor: &CubeTensor, from: usize, count: usize) -> CubeTensor {
    let bytes = |numbers: usize| (numbers * tensor.dtype.size()) as u64;
    let behind = tensor.meta.num_elements() - from - count;
    let handle = tensor.handle.clone().offset_start(bytes(from));
    let mut part = tensor.clone();
    part.handle = handle.offset_end(bytes(behind));
    part
}

/// Four dimensions of halves, the last without gaps, where a kernel can read each row in pieces of 16 bytes: itself, or a copy.
#[cfg(any(feature = "cuda", feature = "vulkan"))]
pub(super) fn aligned(tensor: CubeTensor) -> CubeTensor {
    let starts = |tensor: &CubeTensor| tensor.handle.offset_start.unwrap_or(0).is_multiple_of(16);
    let strides = tensor.meta.strides();
    let rows = strides[..3].iter().all(|stride| stride.is_multiple_of(8));
    if rows && strides[3] == 1 && starts(&tensor) && !tensor.meta.is_tiled() {
        return tensor;
    }
    let tensor = contiguous(tensor);
    if starts(&tensor) {
        tensor
    } else {
        tensor.copy()
    }
}

/// A new tensor `[batch, heads, positions, d]` over memory `[batch, positions, heads, d]`, these being the sizes: what
/// comes behind attention reads it without a copy.
pub(super) fn positions_first(beside: &CubeTensor, sizes: [usize; 4], dtype: DType) -> CubeTensor {
    let mut tensor = empty(beside, &sizes, dtype);
    tensor.meta.swap(1, 2);
    tensor
}
