use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::memory::{UNITS, buffer, contiguous, cubes_for, elem, empty, rows, vector_size, width};
use super::{OnDevice, Operation, Saved, apply};

pub(crate) fn silu_mul<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    let dtype = gate.dtype();
    apply(SiluMul, [gate.into_dispatch(), up.into_dispatch()], dtype)
}

/// See [`crate::silu_mul_halves`].
pub(crate) fn silu_mul_halves<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let dtype = x.dtype();
    apply(SiluMul, [x.into_dispatch()], dtype)
}

/// The operands are gate and up, or one whose rows have both.
#[derive(Clone, Debug)]
struct SiluMul;

/// Gate and up, where each is in its tensor, and how many numbers a kernel reads at a time.
struct Halves<'a> {
    gate: &'a CubeTensor,
    up: &'a CubeTensor,
    /// Numbers of a row of the result.
    width: usize,
    size: usize,
    together: bool,
}

impl<'a> Halves<'a> {
    fn new(gate: &'a CubeTensor, up: Option<&'a CubeTensor>, more: &[&CubeTensor]) -> Self {
        let width = match up {
            Some(_) => width(gate),
            None => width(gate) / 2,
        };
        let together = up.is_none();
        let up = up.unwrap_or(gate);
        let all: Vec<&CubeTensor> = [gate, up].into_iter().chain(more.iter().copied()).collect();
        Self {
            gate,
            up,
            width,
            size: vector_size(&all, width),
            together,
        }
    }

    /// Vectors of the result.
    fn count(&self) -> usize {
        rows(self.gate) * self.width / self.size
    }
}

impl Operation<OnDevice> for SiluMul {
    fn forward(&self, inputs: &[CubeTensor], tracked: &[bool]) -> (CubeTensor, Saved) {
        let gate = contiguous(inputs[0].clone());
        let up = inputs.get(1).map(|up| contiguous(up.clone()));
        let halves = Halves::new(&gate, up.as_ref(), &[]);
        let mut shape = gate.meta.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = halves.width;
        }
        let y = empty(&gate, &shape, gate.dtype);
        // SAFETY: every unit looks first whether its place exists.
        unsafe {
            forward::launch_unchecked(
                &gate.client,
                cubes_for(&gate.client, halves.count()),
                CubeDim::new_1d(UNITS),
                halves.size,
                buffer(&gate),
                buffer(halves.up),
                buffer(&y),
                halves.count(),
                halves.width / halves.size,
                halves.together,
                [elem(&gate), elem(halves.up)],
            );
        }
        let mut saved = Saved::default();
        if tracked.contains(&true) {
            saved.inputs = vec![Some(gate), up.filter(|_| tracked[0])];
        }
        (y, saved)
    }

    /// With `p = sigmoid(gate)`: `d gate = g up p (1 + gate (1 - p))`, `d up = g gate p`.
    fn backward(
        &self,
        mut saved: Saved,
        grad: CubeTensor,
        tracked: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let grad = contiguous(grad);
        let gate = saved.take_input(0);
        let separate = tracked.len() == 2;
        // Where the gate's gradient is not wanted, its up was not kept, and is not read either.
        let up = separate.then(|| saved.inputs[1].take().unwrap_or_else(|| gate.clone()));
        let halves = Halves::new(&gate, up.as_ref(), &[&grad]);
        let new = |wanted: bool| wanted.then(|| empty(&grad, gate.meta.shape(), grad.dtype));
        let d_gate = new(tracked[0]);
        let d_up = new(separate && tracked[1]);
        let (first, second) = (d_gate.as_ref(), d_up.as_ref());
        let any = first.or(second).expect("one of them is tracked");
        // SAFETY: every unit looks first whether its place exists.
        unsafe {
            backward::launch_unchecked(
                &gate.client,
                cubes_for(&gate.client, halves.count()),
                CubeDim::new_1d(UNITS),
                halves.size,
                buffer(&gate),
                buffer(halves.up),
                buffer(&grad),
                buffer(first.unwrap_or(any)),
                buffer(second.unwrap_or(any)),
                halves.count(),
                halves.width / halves.size,
                halves.together,
                tracked[0],
                halves.together || tracked[1],
                [elem(&gate), elem(halves.up), elem(&grad)],
            );
        }
        match separate {
            true => vec![d_gate, d_up],
            false => vec![d_gate],
        }
    }
}

/// Where a vector of the result has its gate and its up.
#[cube]
fn places(at: usize, vectors: usize, #[comptime] together: bool) -> (usize, usize) {
    if comptime!(together) {
        let gate = at / vectors * (2 * vectors) + at % vectors;
        (gate, gate + vectors)
    } else {
        (at, at)
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn forward<G: Float, U: Float, N: Size>(
    gate: &[Vector<G, N>],
    up: &[Vector<U, N>],
    y: &mut [Vector<G, N>],
    count: usize,
    vectors: usize,
    #[comptime] together: bool,
    #[define(G, U)] _types: [ElemType; 2],
) {
    if ABSOLUTE_POS < count {
        let (gate_at, up_at) = places(ABSOLUTE_POS, vectors, together);
        let gate = Vector::<f32, N>::cast_from(gate[gate_at]);
        let up = Vector::<f32, N>::cast_from(up[up_at]);
        y[ABSOLUTE_POS] = Vector::cast_from(gate * sigmoid::<N>(gate) * up);
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn backward<G: Float, U: Float, D: Float, N: Size>(
    gate: &[Vector<G, N>],
    up: &[Vector<U, N>],
    grad: &[Vector<D, N>],
    d_gate: &mut [Vector<D, N>],
    d_up: &mut [Vector<D, N>],
    count: usize,
    vectors: usize,
    #[comptime] together: bool,
    #[comptime] wants_gate: bool,
    #[comptime] wants_up: bool,
    #[define(G, U, D)] _types: [ElemType; 3],
) {
    if ABSOLUTE_POS < count {
        let (gate_at, up_at) = places(ABSOLUTE_POS, vectors, together);
        let gate = Vector::<f32, N>::cast_from(gate[gate_at]);
        let g = Vector::<f32, N>::cast_from(grad[ABSOLUTE_POS]);
        let p = sigmoid::<N>(gate);
        if comptime!(wants_gate) {
            let up = Vector::<f32, N>::cast_from(up[up_at]);
            let one = Vector::<f32, N>::new(1.0f32);
            d_gate[gate_at] = Vector::cast_from(g * up * p * (one + gate * (one - p)));
        }
        if comptime!(wants_up) {
            let d_up_value = Vector::cast_from(g * gate * p);
            // What lies in one memory is written through one name.
            if comptime!(together) {
                d_gate[up_at] = d_up_value;
            } else {
                d_up[up_at] = d_up_value;
            }
        }
    }
}

/// `1 / (1 + exp(-x))`
#[cube]
pub(super) fn sigmoid<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let one = Vector::<f32, N>::new(1.0f32);
    let zero = Vector::<f32, N>::new(0.0f32);
    one / (one + (zero - x).exp())
}
