//! Matrices beside each other in one memory, of which each is some columns.

use burn::backend::{
    Autodiff, AutodiffBackend, BackendTensor, Cube, DispatchAutodiffContext, DispatchTensor,
};
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;

use super::apply::{primitive, same};
use super::memory::{columns_of, contiguous, width};
use crate::packed::{Packed, lower};

/// The longest rows of products that read memory by units, in bytes. On an H200 through Vulkan a product along rows of 32 KiB
/// (4096 x 16384 x 2048) runs at 258 TFLOP/s, along 24 KiB at 307, whatever is between two rows; Hopper's copy engine does
/// not mind.
const LONGEST: usize = 24 * 1024;

/// Matrices as columns of a new one, or vectors as parts of one, if each can be bound to a kernel and read in pieces of 16 bytes.
pub(crate) fn lay<const D: usize>(weights: &[Tensor<D>]) -> Option<Vec<Tensor<D>>> {
    let last = D - 1;
    let alike = |weight: &Tensor<D>| {
        let first = &weights[0];
        super::takes(weight)
            && weight.dims()[..last] == first.dims()[..last]
            && weight.dtype() == first.dtype()
            && !weight.is_tracked()
    };
    if weights.len() < 2 || !weights.iter().all(alike) {
        return None;
    }
    let first = primitive(weights[0].clone());
    let alignment = first.client.properties().memory.alignment.max(16) as usize;
    let bytes = |weight: &Tensor<D>| weight.dims()[last] * weight.dtype().size();
    let even = |weight: &Tensor<D>| bytes(weight).is_multiple_of(alignment);
    let length: usize = weights.iter().map(bytes).sum();
    if !weights.iter().all(even) || (length > LONGEST && !has_copy_engine(&first)) {
        return None;
    }
    let plain = |weight: &Tensor<D>| match weight.device().is_autodiff() {
        true => weight.clone().inner(),
        false => weight.clone(),
    };
    let all = contiguous(primitive(Tensor::cat(
        weights.iter().map(plain).collect(),
        last,
    )));
    let mut from = 0;
    let part = |weight: &Tensor<D>| {
        let count = weight.dims()[last];
        let part = columns_of(&all, from, count);
        from += count;
        let context = weight.clone().into_dispatch().autodiff;
        Tensor::from_dispatch(constant(part, context))
    };
    Some(weights.iter().map(part).collect())
}

/// Whether large products go to [`hopper`](super::hopper).
fn has_copy_engine(tensor: &CubeTensor) -> bool {
    #[cfg(feature = "cuda")]
    return super::hopper::is_hopper(tensor);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = tensor;
        false
    }
}

/// A tensor that is not tracked.
pub(super) fn constant(tensor: CubeTensor, autodiff: DispatchAutodiffContext) -> DispatchTensor {
    let tensor = same(tensor);
    match autodiff {
        DispatchAutodiffContext::Disabled => DispatchTensor {
            kind: Cube::pack(BackendTensor::Float(tensor)),
            autodiff,
        },
        _ => lower::<Cube>(<Autodiff<Cube>>::from_inner(tensor), autodiff),
    }
}

pub(crate) fn are<const D: usize>(weights: &[Tensor<D>]) -> bool {
    joined(weights).is_some()
}

/// The matrix whose columns these are, or the vector whose parts, if they are neighbours in one memory.
pub(crate) fn joined<const D: usize>(weights: &[Tensor<D>]) -> Option<CubeTensor> {
    let parts: Vec<CubeTensor> = weights.iter().cloned().map(primitive).collect();
    let place = |part: &CubeTensor| part.handle.clone().binding().claim_key();
    let (first, last) = (parts.first()?, parts.last()?);
    let (memory, start, _) = place(first);
    let (shape, strides) = (first.meta.shape(), first.meta.strides());
    let last_dim = D - 1;
    if strides[last_dim] != 1 {
        return None;
    }
    let mut columns = 0;
    for part in &parts {
        let (own_memory, own_start, _) = place(part);
        let follows = own_memory == memory
            && own_start == start + (columns * first.dtype.size()) as u64
            && part.dtype == first.dtype
            && part.meta.shape()[..last_dim] == shape[..last_dim]
            && part.meta.strides() == strides;
        if !follows {
            return None;
        }
        columns += width(part);
    }
    let mut handle = first.handle.clone();
    handle.offset_end = last.handle.offset_end;
    let mut meta = first.meta.clone();
    meta.shape_mut()[last_dim] = columns;
    // Rows that end before the next begins.
    let fits = D < 2 || columns <= strides[0];
    fits.then(|| CubeTensor {
        handle,
        meta,
        ..first.clone()
    })
}
