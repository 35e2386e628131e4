use burn::backend::DispatchDevice;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, Tensor, TensorData};

#[cfg(feature = "ndarray")]
use burn::backend::NdArray;
#[cfg(feature = "ndarray")]
use burn::backend::ndarray::{NdArrayTensor, SharedArray};
#[cfg(feature = "flex")]
use burn::backend::{Flex, flex::FlexTensor};

use super::pool::Buffer;
use super::tensor::{HostTensor, Storage};
use crate::packed::Packed;

/// A backend whose tensors lie in host memory.
pub(crate) trait Host: Packed {
    /// Shares the numbers of an `f32` tensor.
    fn to_host(tensor: FloatTensor<Self>) -> HostTensor;

    /// Moves numbers into a tensor.
    fn from_host(numbers: Buffer, shape: &[usize]) -> FloatTensor<Self>;

    /// The tensor again whose numbers these are.
    fn from_storage(storage: Storage, shape: &[usize]) -> FloatTensor<Self>;
}

/// Whether a tensor can be an operand of [`apply`](super::apply): it lies in host memory, and `f32` computes it as well
/// as its own dtype would.
pub(crate) fn takes<const D: usize>(tensor: &Tensor<D>) -> bool {
    let narrow = matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::BF16);
    narrow && in_memory(tensor.device().as_dispatch())
}

fn in_memory(device: &DispatchDevice) -> bool {
    match device {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => true,
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => true,
        DispatchDevice::Autodiff(device) => in_memory(device),
        #[allow(
            unreachable_patterns,
            reason = "other backends are other crates' features"
        )]
        _ => false,
    }
}

#[cfg(feature = "flex")]
impl Host for Flex {
    fn to_host(tensor: FlexTensor) -> HostTensor {
        let backwards = tensor.layout().strides().iter().any(|stride| *stride < 0);
        let tensor = if backwards {
            tensor.to_contiguous()
        } else {
            tensor
        };
        let layout = tensor.layout();
        let offset = layout.start_offset();
        let shape = layout.shape().to_vec();
        let strides = layout.strides().iter().map(|s| *s as usize).collect();
        HostTensor::new(Storage::Flex(tensor), offset, shape, strides)
    }

    fn from_host(numbers: Buffer, shape: &[usize]) -> FlexTensor {
        let data = TensorData::from_bytes(numbers.into_bytes(), shape.to_vec(), DType::F32);
        FlexTensor::from_data(data)
    }

    fn from_storage(storage: Storage, shape: &[usize]) -> FlexTensor {
        match storage {
            Storage::Flex(tensor) => tensor,
            storage => Self::from_host(storage.into_buffer(), shape),
        }
    }
}

#[cfg(feature = "ndarray")]
impl Host for NdArray {
    fn to_host(tensor: NdArrayTensor) -> HostTensor {
        let NdArrayTensor::F32(storage) = tensor else {
            unreachable!("read as f32")
        };
        // Memory of a mapped file or a backwards view comes in its own form: as an array in order, it is one of the rest.
        let array = storage.into_shared();
        let array = if array.strides().iter().any(|stride| *stride < 0) {
            array.as_standard_layout().into_owned().into_shared()
        } else {
            array
        };
        let shape = array.shape().to_vec();
        let strides: Vec<usize> = array.strides().iter().map(|s| *s as usize).collect();
        HostTensor::new(Storage::NdArray(array), 0, shape, strides)
    }

    /// Burn's own operations on this backend copy memory that is not a vector's, each time anew.
    fn from_host(numbers: Buffer, shape: &[usize]) -> NdArrayTensor {
        NdArrayTensor::from_data(TensorData::new(numbers.into_vec(), shape.to_vec()))
    }

    fn from_storage(storage: Storage, shape: &[usize]) -> NdArrayTensor {
        match storage {
            Storage::NdArray(array) => array.into(),
            storage => Self::from_host(storage.into_buffer(), shape),
        }
    }
}

/// The numbers from the view's first element to its last.
#[cfg(feature = "ndarray")]
pub(super) fn ndarray_numbers(array: &SharedArray<f32>) -> &[f32] {
    if array.is_empty() {
        return &[];
    }
    let dims = array.shape().iter().zip(array.strides());
    let last: usize = dims
        .map(|(size, stride)| (size - 1) * *stride as usize)
        .sum();
    // SAFETY: the array keeps all elements of its view alive, the first is at `as_ptr` and, with no stride below zero,
    // the farthest `last` elements on.
    unsafe { std::slice::from_raw_parts(array.as_ptr(), last + 1) }
}
