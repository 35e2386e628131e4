use burn::tensor::Tensor;

use super::math::{dot, vectorized};
use super::pool::buffer;
use super::rows::{fill_rows, sum_over_rows};
use super::{HostTensor, InMemory, Operation, Output, Saved, apply};

pub(crate) fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f64) -> Tensor<D> {
    let dtype = x.dtype();
    let op = RmsNorm { eps: eps as f32 };
    apply(op, [x.into_dispatch(), weight.into_dispatch()], dtype)
}

#[derive(Clone, Debug)]
struct RmsNorm {
    eps: f32,
}

impl Operation<InMemory> for RmsNorm {
    fn forward(&self, inputs: &[HostTensor], tracked: &[bool]) -> (Output, Saved) {
        let x = inputs[0].clone().contiguous();
        let weight = inputs[1].clone().contiguous();
        let (d, from) = (x.width(), x.slice());
        let mut y = buffer(from.len());
        fill_rows(&mut y, d, |first, rows| {
            let w = weight.slice();
            vectorized(
                #[inline(always)]
                || {
                    for (i, y) in rows.chunks_exact_mut(d).enumerate() {
                        let x = &from[(first + i) * d..][..d];
                        let inverse = inverse_rms(x, self.eps);
                        for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                            *y = x * inverse * w;
                        }
                    }
                },
            );
        });
        let output = Output::new(y, x.shape());
        let mut saved = Saved::default();
        if tracked.contains(&true) {
            // The statistic is one read of x away: cheaper to compute again than to keep.
            saved.inputs = vec![Some(x), Some(weight)];
        }
        (output, saved)
    }

    /// With `r` the inverse root mean square and `h = g w`: `dx = r h - x r^3 mean(h x)`, `dw = sum over rows of g x r`.
    fn backward(&self, saved: Saved, grad: HostTensor, tracked: &[bool]) -> Vec<Option<Output>> {
        let (x, weight) = (saved.input(0), saved.input(1));
        let grad = grad.contiguous();
        let (d, from, g) = (x.width(), x.slice(), grad.slice());
        let dx = tracked[0].then(|| {
            let mut dx = buffer(from.len());
            fill_rows(&mut dx, d, |first, rows| {
                let w = weight.slice();
                vectorized(
                    #[inline(always)]
                    || {
                        for (i, dx) in rows.chunks_exact_mut(d).enumerate() {
                            let x = &from[(first + i) * d..][..d];
                            let g = &g[(first + i) * d..][..d];
                            for ((dx, g), w) in dx.iter_mut().zip(g).zip(w) {
                                *dx = g * w;
                            }
                            let r = inverse_rms(x, self.eps);
                            let c = dot(dx, x) * r * r * r / d as f32;
                            for (dx, x) in dx.iter_mut().zip(x) {
                                *dx = r * *dx - c * x;
                            }
                        }
                    },
                );
            });
            Output::new(dx, x.shape())
        });
        let dw = tracked[1].then(|| {
            let sums = sum_over_rows(x.rows(), d, |range| {
                let mut sums = vec![0.0; d];
                vectorized(
                    #[inline(always)]
                    || {
                        for row in range {
                            let x = &from[row * d..][..d];
                            let r = inverse_rms(x, self.eps);
                            for ((sum, x), g) in sums.iter_mut().zip(x).zip(&g[row * d..][..d]) {
                                *sum += g * x * r;
                            }
                        }
                    },
                );
                sums
            });
            Output::new(sums, &[d])
        });
        vec![dx, dw]
    }
}

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt()
}
