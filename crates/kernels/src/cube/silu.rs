use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::memory::{UNITS, buffer, contiguous, cubes_for, elem, empty, vector_size, width};
use super::{OnDevice, Operation, Saved, apply};

pub(crate) fn silu_mul<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    let dtype = gate.dtype();
    apply(SiluMul, [gate.into_dispatch(), up.into_dispatch()], dtype)
}

#[derive(Clone, Debug)]
struct SiluMul;

impl Operation<OnDevice> for SiluMul {
    fn forward(&self, inputs: &[CubeTensor], tracked: &[bool]) -> (CubeTensor, Saved) {
        let gate = contiguous(inputs[0].clone());
        let up = contiguous(inputs[1].clone());
        let y = empty(&gate, gate.meta.shape(), gate.dtype);
        let size = vector_size(&[&gate, &up], width(&gate));
        let count = gate.meta.num_elements() / size;
        // SAFETY: every unit looks first whether its place exists.
        unsafe {
            forward::launch_unchecked(
                &gate.client,
                cubes_for(&gate.client, count),
                CubeDim::new_1d(UNITS),
                size,
                buffer(&gate),
                buffer(&up),
                buffer(&y),
                count,
                [elem(&gate), elem(&up)],
            );
        }
        let mut saved = Saved::default();
        if tracked.contains(&true) {
            saved.inputs = vec![Some(gate), tracked[0].then_some(up)];
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
        // Where the gate's gradient is not wanted, its up was not kept, and is not read either.
        let up = saved.inputs[1].take().unwrap_or_else(|| gate.clone());
        let new = |wanted: bool| wanted.then(|| empty(&grad, grad.meta.shape(), grad.dtype));
        let (d_gate, d_up) = (new(tracked[0]), new(tracked[1]));
        let size = vector_size(&[&gate, &up, &grad], width(&gate));
        let count = gate.meta.num_elements() / size;
        let (first, second) = (d_gate.as_ref(), d_up.as_ref());
        let any = first.or(second).expect("one of them is tracked");
        // SAFETY: every unit looks first whether its place exists.
        unsafe {
            backward::launch_unchecked(
                &gate.client,
                cubes_for(&gate.client, count),
                CubeDim::new_1d(UNITS),
                size,
                buffer(&gate),
                buffer(&up),
                buffer(&grad),
                buffer(first.unwrap_or(any)),
                buffer(second.unwrap_or(any)),
                count,
                tracked[0],
                tracked[1],
                [elem(&gate), elem(&up), elem(&grad)],
            );
        }
        vec![d_gate, d_up]
    }
}

#[cube(launch_unchecked)]
fn forward<G: Float, U: Float, N: Size>(
    gate: &[Vector<G, N>],
    up: &[Vector<U, N>],
    y: &mut [Vector<G, N>],
    count: usize,
    #[define(G, U)] _types: [ElemType; 2],
) {
    if ABSOLUTE_POS < count {
        let gate = Vector::<f32, N>::cast_from(gate[ABSOLUTE_POS]);
        let up = Vector::<f32, N>::cast_from(up[ABSOLUTE_POS]);
        y[ABSOLUTE_POS] = Vector::cast_from(gate * sigmoid::<N>(gate) * up);
    }
}

#[cube(launch_unchecked)]
fn backward<G: Float, U: Float, D: Float, N: Size>(
    gate: &[Vector<G, N>],
    up: &[Vector<U, N>],
    grad: &[Vector<D, N>],
    d_gate: &mut [Vector<D, N>],
    d_up: &mut [Vector<D, N>],
    count: usize,
    #[comptime] wants_gate: bool,
    #[comptime] wants_up: bool,
    #[define(G, U, D)] _types: [ElemType; 3],
) {
    if ABSOLUTE_POS < count {
        let gate = Vector::<f32, N>::cast_from(gate[ABSOLUTE_POS]);
        let g = Vector::<f32, N>::cast_from(grad[ABSOLUTE_POS]);
        let p = sigmoid::<N>(gate);
        if comptime!(wants_gate) {
            let up = Vector::<f32, N>::cast_from(up[ABSOLUTE_POS]);
            let one = Vector::<f32, N>::new(1.0f32);
            d_gate[ABSOLUTE_POS] = Vector::cast_from(g * up * p * (one + gate * (one - p)));
        }
        if comptime!(wants_up) {
            d_up[ABSOLUTE_POS] = Vector::cast_from(g * gate * p);
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
