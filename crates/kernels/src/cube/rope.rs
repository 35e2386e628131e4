use std::sync::{Arc, OnceLock};

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::apply::primitive;
use super::memory::{UNITS, buffer, contiguous, cubes_for, elem, empty, vector_size};
use super::{OnDevice, Operation, Saved, apply};
use crate::rope::Angles;

/// The angles of a batch in a GPU's memory, made when it first needs them.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceAngles(Arc<OnceLock<Tensor<1>>>);

impl DeviceAngles {
    /// All cosines, then all sines.
    pub(super) fn of(&self, angles: &Angles, device: &Device) -> CubeTensor {
        let tensor = self.0.get_or_init(|| {
            let numbers: Vec<f32> = angles.cos.iter().chain(&angles.sin).copied().collect();
            let size = numbers.len();
            let device = device.clone().without_autodiff();
            Tensor::from_data(TensorData::new(numbers, [size]), (&device, DType::F32))
        });
        primitive(tensor.clone())
    }
}

/// Rotates the heads `[batch, seq, heads, d]` by their positions.
pub(crate) fn rotate(x: Tensor<4>, angles: Arc<Angles>, on_device: &DeviceAngles) -> Tensor<4> {
    let dtype = x.dtype();
    let table = on_device.of(&angles, &x.device());
    apply(Rotate { angles, table }, [x.into_dispatch()], dtype)
}

#[derive(Clone, Debug)]
struct Rotate {
    angles: Arc<Angles>,
    table: CubeTensor,
}

impl Rotate {
    /// By the angles, or by their negatives with `direction = -1`.
    fn by(&self, x: CubeTensor, direction: f32) -> CubeTensor {
        // Heads and tokens may be exchanged; numbers of one head lie together.
        let x = match x.meta.strides().last() {
            Some(1) => x,
            _ => contiguous(x),
        };
        let shape = x.meta.shape().clone();
        let [seq, heads, d] = [shape[1], shape[2], shape[3]];
        let half = self.angles.half;
        let y = empty(&x, &shape, x.dtype);
        let strides: Vec<usize> = x.meta.strides().iter().copied().collect();
        let even = [half, strides[0], strides[1], strides[2]];
        let mut size = vector_size(&[&x], d);
        while even.iter().any(|number| !number.is_multiple_of(size)) {
            size /= 2;
        }
        // Pairs of vectors that are rotated, and vectors behind that are not.
        let work = half / size + (d - 2 * half) / size;
        let count = shape[0] * seq * heads * work;
        // SAFETY: every unit looks first whether its place exists.
        unsafe {
            rotate_heads::launch_unchecked(
                &x.client,
                cubes_for(&x.client, count),
                CubeDim::new_1d(UNITS),
                size,
                buffer(&x),
                buffer(&self.table),
                buffer(&y),
                count,
                seq,
                heads,
                d / size,
                half / size,
                strides[0] / size,
                strides[1] / size,
                strides[2] / size,
                self.angles.cos.len() / size,
                direction,
                self.angles.rows == 1,
                elem(&x),
            );
        }
        y
    }
}

impl Operation<OnDevice> for Rotate {
    fn forward(&self, inputs: &[CubeTensor], _: &[bool]) -> (CubeTensor, Saved) {
        (self.by(inputs[0].clone(), 1.0), Saved::default())
    }

    /// A rotation's transpose is the rotation back, by the same amplitude.
    fn backward(&self, _: Saved, grad: CubeTensor, _: &[bool]) -> Vec<Option<CubeTensor>> {
        vec![Some(self.by(grad, -1.0))]
    }
}

/// All sizes and strides are in vectors. The table has all cosines, then all sines.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn rotate_heads<X: Float, N: Size>(
    x: &[Vector<X, N>],
    table: &[Vector<f32, N>],
    y: &mut [Vector<X, N>],
    count: usize,
    seq: usize,
    heads: usize,
    d: usize,
    half: usize,
    stride_batch: usize,
    stride_seq: usize,
    stride_head: usize,
    sines: usize,
    direction: f32,
    #[comptime] shared: bool,
    #[define(X)] _type: ElemType,
) {
    if ABSOLUTE_POS < count {
        let work = d - half;
        let place = ABSOLUTE_POS % work;
        let head_at = ABSOLUTE_POS / work;
        let head = head_at % heads;
        let token = head_at / heads;
        let at = token % seq;
        let row = token / seq;
        let from = row * stride_batch + at * stride_seq + head * stride_head;
        let to = head_at * d;
        if place < half {
            let mut angle = token * half + place;
            if comptime!(shared) {
                angle = at * half + place;
            }
            let cos = table[angle];
            let sin = table[sines + angle] * Vector::new(direction);
            let (first, second) =
                rotated::<X, N>(x[from + place], x[from + half + place], cos, sin);
            y[to + place] = first;
            y[to + half + place] = second;
        } else {
            y[to + half + place] = x[from + half + place];
        }
    }
}

/// Two halves by the same angles.
#[cube]
pub(super) fn rotated<X: Float, N: Size>(
    first: Vector<X, N>,
    second: Vector<X, N>,
    cos: Vector<f32, N>,
    sin: Vector<f32, N>,
) -> (Vector<X, N>, Vector<X, N>) {
    let first = Vector::<f32, N>::cast_from(first);
    let second = Vector::<f32, N>::cast_from(second);
    (
        Vector::cast_from(first * cos - second * sin),
        Vector::cast_from(second * cos + first * sin),
    )
}
