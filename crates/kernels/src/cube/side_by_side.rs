//! Matrices beside each other in one memory, of which each is some columns.

use burn::backend::{
    Autodiff, AutodiffBackend, BackendTensor, Cube, DispatchAutodiffContext, DispatchTensor,
};
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use burn_std::Metadata;

use super::apply::{primitive, same};
use super::memory::{columns_of, contiguous, width};
use crate::packed::{Packed, lower};

/// The longest rows of products that read memory by units, in bytes. On an H200 through Vulkan a product along rows of 32 KiB
/// (4096 x 16384 x 2048) runs at 258 TFLOP/s, along 24 KiB at 307, whatever is between two rows; Hopper's copy engine does
/// not mind.
const LONGEST: usize = 24 * 1024;

/// The matrices as columns of a new one, if each can be bound to a kernel and read in pieces of 16 bytes.
pub(crate) fn lay(weights: &[Tensor<2>]) -> Option<Vec<Tensor<2>>> {
    let alike = |weight: &Tensor<2>| {
        let first = &weights[0];
        super::takes(weight)
            && weight.dims()[0] == first.dims()[0]
            && weight.dtype() == first.dtype()
            && !weight.is_tracked()
    };
    if weights.len() < 2 || !weights.iter().all(alike) {
        return None;
    }
    let first = primitive(weights[0].clone());
    let alignment = first.client.properties().memory.alignment.max(16) as usize;
    let bytes = |weight: &Tensor<2>| weight.dims()[1] * weight.dtype().size();
    let even = |weight: &Tensor<2>| bytes(weight).is_multiple_of(alignment);
    let length: usize = weights.iter().map(bytes).sum();
    if !weights.iter().all(even) || (length > LONGEST && !has_copy_engine(&first)) {
        return None;
    }
    let plain = |weight: &Tensor<2>| match weight.device().is_autodiff() {
        true => weight.clone().inner(),
        false => weight.clone(),
    };
    let all = contiguous(primitive(Tensor::cat(
        weights.iter().map(plain).collect(),
        1,
    )));
    let mut from = 0;
    let part = |weight: &Tensor<2>| {
        let count = weight.dims()[1];
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

pub(crate) fn are(weights: &[Tensor<2>]) -> bool {
    let parts: Vec<CubeTensor> = weights.iter().cloned().map(primitive).collect();
    joined(&parts).is_some()
}

/// The matrix whose columns these are, if they are neighbours in one memory.
pub(crate) fn joined(parts: &[CubeTensor]) -> Option<CubeTensor> {
    let place = |part: &CubeTensor| part.handle.clone().binding().claim_key();
    let (first, last) = (parts.first()?, parts.last()?);
    let (memory, start, _) = place(first);
    let (shape, strides) = (first.meta.shape(), first.meta.strides());
    if shape.len() != 2 || strides[1] != 1 {
        return None;
    }
    let mut columns = 0;
    for part in parts {
        let (own_memory, own_start, _) = place(part);
        let follows = own_memory == memory
            && own_start == start + (columns * first.dtype.size()) as u64
            && part.dtype == first.dtype
            && part.meta.shape().len() == 2
            && part.meta.shape()[0] == shape[0]
            && part.meta.strides() == strides;
        if !follows {
            return None;
        }
        columns += width(part);
    }
    let mut handle = first.handle.clone();
    handle.offset_end = last.handle.offset_end;
    let meta = Metadata::new([shape[0], columns], strides.clone());
    (columns <= strides[0]).then(|| CubeTensor {
        handle,
        meta: Box::new(meta),
        ..first.clone()
    })
}
