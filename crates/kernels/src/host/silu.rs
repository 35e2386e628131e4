use burn::tensor::Tensor;

use super::math::{sigmoid, vectorized};
use super::pool::buffer;
use super::rows::{fill_rows, fill_two};
use super::{HostTensor, InMemory, Operation, Output, Saved, apply};

pub(crate) fn silu_mul<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    let dtype = gate.dtype();
    apply(SiluMul, [gate.into_dispatch(), up.into_dispatch()], dtype)
}

#[derive(Clone, Debug)]
struct SiluMul;

impl Operation<InMemory> for SiluMul {
    fn forward(&self, inputs: &[HostTensor], tracked: &[bool]) -> (Output, Saved) {
        let gate = inputs[0].clone().contiguous();
        let up = inputs[1].clone().contiguous();
        let mut y = buffer(gate.len());
        let width = gate.width();
        fill_rows(&mut y, width, |first, y| {
            let gate = &gate.slice()[first * width..][..y.len()];
            let up = &up.slice()[first * width..][..y.len()];
            vectorized(
                #[inline(always)]
                || {
                    for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
                        *y = gate * sigmoid(*gate) * up;
                    }
                },
            );
        });
        let output = Output::new(y, gate.shape());
        let mut saved = Saved::default();
        if tracked.contains(&true) {
            saved.inputs = vec![Some(gate), tracked[0].then_some(up)];
        }
        (output, saved)
    }

    /// With `p = sigmoid(gate)`: `d gate = g up p (1 + gate (1 - p))`, `d up = g gate p`.
    fn backward(
        &self,
        mut saved: Saved,
        grad: HostTensor,
        tracked: &[bool],
    ) -> Vec<Option<Output>> {
        let grad = grad.contiguous();
        let (width, g) = (grad.width(), grad.slice());
        let mut gate = saved.take_input(0).into_exclusive();
        if !tracked[0] {
            fill_rows(gate.slice_mut(), width, |first, gate| {
                let g = &g[first * width..][..gate.len()];
                vectorized(
                    #[inline(always)]
                    || {
                        for (gate, g) in gate.iter_mut().zip(g) {
                            *gate = g * *gate * sigmoid(*gate);
                        }
                    },
                );
            });
            return vec![None, Some(Output::in_place(gate))];
        }
        let mut up = saved.take_input(1).into_exclusive();
        fill_two(
            gate.slice_mut(),
            up.slice_mut(),
            width,
            |first, gate, up| {
                let g = &g[first * width..][..gate.len()];
                vectorized(
                    #[inline(always)]
                    || {
                        for ((gate, up), g) in gate.iter_mut().zip(up.iter_mut()).zip(g) {
                            let p = sigmoid(*gate);
                            let d_up = g * *gate * p;
                            *gate = g * *up * p * (1.0 + *gate * (1.0 - p));
                            *up = d_up;
                        }
                    },
                );
            },
        );
        let d_up = tracked[1].then(|| Output::in_place(up));
        vec![Some(Output::in_place(gate)), d_up]
    }
}
