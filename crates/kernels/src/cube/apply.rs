use std::any::{Any, TypeId};

use burn::backend::tensor::FloatTensor;
use burn::backend::{BackendTensor, Cube, DispatchDevice, DispatchTensor, DispatchTensorKind};
use burn::tensor::kind::Basic;
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeDevice;
use burn_cubecl::kernel::cast;
use burn_cubecl::tensor::CubeTensor;

use crate::operation::{Form, Operation, Reads, Several, route, route_several};
use crate::packed::Packed;

/// Operations on numbers in a GPU's memory.
#[derive(Clone, Debug)]
pub(crate) struct OnDevice;

impl Form for OnDevice {
    type Operand = CubeTensor;
    type Output = CubeTensor;
    type Extra = CubeTensor;
}

/// What such an operation keeps.
pub(crate) type Saved = crate::operation::Saved<OnDevice>;

impl Reads<OnDevice> for Cube {
    fn read(tensor: FloatTensor<Self>) -> CubeTensor {
        same(tensor)
    }

    fn write(output: CubeTensor, dtype: DType) -> FloatTensor<Self> {
        same(cast(output, dtype))
    }
}

/// Burn's backend is that of [`CubeTensor`], or that one under `burn-fusion`, by the features of the whole build.
fn is_unfused() -> bool {
    TypeId::of::<FloatTensor<Cube>>() == TypeId::of::<CubeTensor>()
}

/// A value under the other name of its type.
///
/// # Panics
/// If the types differ: [`takes`] keeps such tensors away.
pub(super) fn same<A: 'static, B: 'static>(value: A) -> B {
    let mut value = Some(value);
    let value: &mut dyn Any = &mut value;
    let same = value.downcast_mut::<Option<B>>().and_then(Option::take);
    same.expect("tensors without fusion")
}

/// A tensor's memory, out of the graph.
///
/// # Panics
/// If it is not on a GPU.
pub(super) fn primitive<const D: usize, K: Basic>(tensor: Tensor<D, K>) -> CubeTensor {
    let mut kind = tensor.into_dispatch().kind;
    if let DispatchTensorKind::Autodiff(inner) = kind {
        kind = *inner;
    }
    match Cube::unpack(kind) {
        BackendTensor::Float(tensor) => same(tensor),
        BackendTensor::Int(tensor) => same(tensor),
        BackendTensor::Autodiff(tensor) => same(tensor.into_primitive()),
        other => panic!("not numbers of a GPU: {other:?}"),
    }
}

/// Whether a tensor can be an operand of [`apply`]: a GPU has it, and `f32` computes it as well as its own dtype would.
pub(crate) fn takes<const D: usize>(tensor: &Tensor<D>) -> bool {
    let narrow = matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::BF16);
    let empty = tensor.dims().contains(&0);
    narrow && !empty && is_unfused() && on_gpu(tensor.device().as_dispatch())
}

fn on_gpu(device: &DispatchDevice) -> bool {
    match device {
        // CubeCL's own CPU runtime has no planes of units that work in step.
        DispatchDevice::Cube(CubeDevice::Cpu(_)) => false,
        DispatchDevice::Cube(_) => true,
        DispatchDevice::Autodiff(device) => on_gpu(device),
        #[allow(
            unreachable_patterns,
            reason = "other backends are other crates' features"
        )]
        _ => false,
    }
}

/// Computes an operation on operands of one GPU; the result has this dtype.
///
/// # Panics
/// If an operand is not on a GPU: ask [`takes`].
pub(crate) fn apply<O: Operation<OnDevice>, const N: usize, const D: usize>(
    op: O,
    inputs: [DispatchTensor; N],
    dtype: DType,
) -> Tensor<D> {
    Tensor::from_dispatch(route::<Cube, OnDevice, O, N>(op, inputs, dtype))
}

/// As [`apply`], for several results.
///
/// # Panics
/// If an operand is not on a GPU: ask [`takes`].
pub(crate) fn apply_several<O: Several<OnDevice>, const N: usize, const D: usize>(
    op: O,
    inputs: [DispatchTensor; N],
    dtype: DType,
) -> Vec<Tensor<D>> {
    let results = route_several::<Cube, OnDevice, O, N>(op, inputs, dtype);
    results.into_iter().map(Tensor::from_dispatch).collect()
}

/// A list as the array that it fills.
///
/// # Panics
/// If it has another length.
pub(super) fn array<T, const N: usize>(list: Vec<T>) -> [T; N] {
    let count = list.len();
    let array = list.try_into();
    array.unwrap_or_else(|_| panic!("{count} are not {N}"))
}
