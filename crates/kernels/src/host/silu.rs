use burn::tensor::Tensor;

use super::math::{sigmoid, vectorized};
use super::pool::buffer;
use super::rows::{fill_rows, fill_two};
use super::{HostOp, HostTensor, Output, Saved, apply};

pub(crate) fn silu_mul<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    let dtype = gate.dtype();
    apply(SiluMul, [gate.into_dispatch(), up.into_dispatch()], dtype)
}

#[derive(Clone, Debug)]
struct SiluMul;

impl HostOp for SiluMul {
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
    fn backward(&self, saved: Saved, grad: HostTensor, tracked: &[bool]) -> Vec<Option<Output>> {
        let grad = grad.contiguous();
        let gate = saved.input(0);
        let (width, shape) = (gate.width(), gate.shape());
        let (gate, g) = (gate.slice(), grad.slice());
        let d_up = |g: f32, gate: f32| g * gate * sigmoid(gate);
        if !tracked[0] {
            let mut out = buffer(gate.len());
            fill_rows(&mut out, width, |first, out| {
                let gate = &gate[first * width..][..out.len()];
                let g = &g[first * width..][..out.len()];
                vectorized(
                    #[inline(always)]
                    || {
                        for ((out, gate), g) in out.iter_mut().zip(gate).zip(g) {
                            *out = d_up(*g, *gate);
                        }
                    },
                );
            });
            return vec![None, Some(Output::new(out, shape))];
        }
        let up = saved.input(1).slice();
        let mut out_gate = buffer(gate.len());
        let mut out_up = buffer(gate.len());
        fill_two(
            &mut out_gate,
            &mut out_up,
            width,
            |first, out_gate, out_up| {
                let gate = &gate[first * width..][..out_gate.len()];
                let up = &up[first * width..][..out_gate.len()];
                let g = &g[first * width..][..out_gate.len()];
                vectorized(
                    #[inline(always)]
                    || {
                        let out = out_gate.iter_mut().zip(out_up.iter_mut());
                        for (((out, gate), up), g) in out.zip(gate).zip(up).zip(g) {
                            let p = sigmoid(*gate);
                            *out.0 = g * up * p * (1.0 + gate * (1.0 - p));
                            *out.1 = g * gate * p;
                        }
                    },
                );
            },
        );
        let d_up = tracked[1].then(|| Output::new(out_up, shape));
        vec![Some(Output::new(out_gate, shape)), d_up]
    }
}
