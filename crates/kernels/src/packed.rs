//! From a tensor to the backend that holds it, and back.

#![allow(
    deprecated,
    reason = "so Burn 0.22 calls its ndarray backend, and still has it"
)]

#[cfg(feature = "cube")]
use burn::backend::Cube;
#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "ndarray")]
use burn::backend::NdArray;
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, AutodiffBackend, Backend, BackendTensor, DispatchAutodiffContext, DispatchDevice,
    DispatchTensor, DispatchTensorKind,
};

/// A backend that tensors of Burn's dispatching backend can be of.
pub(crate) trait Packed: Backend {
    /// This backend's tensor.
    ///
    /// # Panics
    /// If the tensor is another backend's.
    fn unpack(kind: DispatchTensorKind) -> BackendTensor<Self>;

    /// The reverse of [`unpack`](Self::unpack).
    fn pack(tensor: BackendTensor<Self>) -> DispatchTensorKind;
}

macro_rules! packed {
    ($feature:literal, $backend:ident) => {
        #[cfg(feature = $feature)]
        impl Packed for $backend {
            fn unpack(kind: DispatchTensorKind) -> BackendTensor<Self> {
                match kind {
                    DispatchTensorKind::$backend(tensor) => tensor,
                    other => panic!(
                        "operands of different backends: {} and {other:?}",
                        stringify!($backend)
                    ),
                }
            }

            fn pack(tensor: BackendTensor<Self>) -> DispatchTensorKind {
                DispatchTensorKind::$backend(tensor)
            }
        }
    };
}

packed!("flex", Flex);
packed!("ndarray", NdArray);
// Every GPU, and CubeCL's own CPU runtime.
packed!("cube", Cube);

/// Whether the tensors of a device can be unpacked.
pub(crate) fn is_packed(device: &DispatchDevice) -> bool {
    match device {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => true,
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => true,
        #[cfg(feature = "cube")]
        DispatchDevice::Cube(_) => true,
        DispatchDevice::Autodiff(device) => is_packed(device),
        #[allow(
            unreachable_patterns,
            reason = "other backends are other crates' features"
        )]
        _ => false,
    }
}

/// The backend inside, without autodiff around it.
pub(crate) fn inner(kind: &DispatchTensorKind) -> &DispatchTensorKind {
    match kind {
        DispatchTensorKind::Autodiff(inner) => inner,
        kind => kind,
    }
}

/// A tensor inside of the graph. One from outside is a constant there.
pub(crate) fn lift<B: Packed>(tensor: DispatchTensor) -> FloatTensor<Autodiff<B>> {
    match tensor.kind {
        DispatchTensorKind::Autodiff(inner) => B::unpack(*inner).autodiff(),
        kind => <Autodiff<B>>::from_inner(B::unpack(kind).float()),
    }
}

/// The reverse of [`lift`].
pub(crate) fn lower<B: Packed>(
    tensor: FloatTensor<Autodiff<B>>,
    autodiff: DispatchAutodiffContext,
) -> DispatchTensor {
    let tensor = B::pack(BackendTensor::Autodiff(tensor));
    DispatchTensor {
        kind: DispatchTensorKind::Autodiff(Box::new(tensor)),
        autodiff,
    }
}
