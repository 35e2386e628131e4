use burn::tensor::Tensor;

use super::math::{dot, sum, sum_of_squares_around, vectorized};
use super::pool::buffer;
use super::rows::{fill_rows, sum_over_rows};
use super::{HostTensor, InMemory, Operation, Output, Saved, apply};

pub(crate) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    let dtype = x.dtype();
    let op = LayerNorm { eps: eps as f32 };
    let inputs = [
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    ];
    apply(op, inputs, dtype)
}

#[derive(Clone, Debug)]
struct LayerNorm {
    eps: f32,
}

impl LayerNorm {
    /// Mean and inverse standard deviation of a row.
    #[inline(always)]
    fn statistics(&self, x: &[f32]) -> (f32, f32) {
        let d = x.len() as f32;
        let mean = sum(x) / d;
        (
            mean,
            1.0 / (sum_of_squares_around(x, mean) / d + self.eps).sqrt(),
        )
    }
}

impl Operation<InMemory> for LayerNorm {
    fn forward(&self, inputs: &[HostTensor], tracked: &[bool]) -> (Output, Saved) {
        let x = inputs[0].clone().contiguous();
        let weight = inputs[1].clone().contiguous();
        let bias = inputs[2].clone().contiguous();
        let (d, from) = (x.width(), x.slice());
        let mut y = buffer(from.len());
        fill_rows(&mut y, d, |first, rows| {
            let (w, b) = (weight.slice(), bias.slice());
            vectorized(
                #[inline(always)]
                || {
                    for (i, y) in rows.chunks_exact_mut(d).enumerate() {
                        let x = &from[(first + i) * d..][..d];
                        let (mean, inverse) = self.statistics(x);
                        for (((y, x), w), b) in y.iter_mut().zip(x).zip(w).zip(b) {
                            *y = (x - mean) * inverse * w + b;
                        }
                    }
                },
            );
        });
        let output = Output::new(y, x.shape());
        let mut saved = Saved::default();
        if tracked.contains(&true) {
            saved.inputs = vec![Some(x), Some(weight)];
        }
        (output, saved)
    }

    /// With `z = (x - mean) r` and `h = g w`: `dx = r (h - mean(h) - z mean(h z))`, `dw = sum of g z`, `db = sum of g`.
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
                            let (mean, r) = self.statistics(x);
                            let h = sum(dx);
                            // sum(h z) = r (sum(h x) - mean sum(h))
                            let hz = r * (dot(dx, x) - mean * h) / d as f32;
                            let h = h / d as f32;
                            for (dx, x) in dx.iter_mut().zip(x) {
                                *dx = r * (*dx - h - (x - mean) * r * hz);
                            }
                        }
                    },
                );
            });
            Output::new(dx, x.shape())
        });
        let (dw, db) = if tracked[1] || tracked[2] {
            let mut sums = sum_over_rows(x.rows(), d, |range| {
                let mut sums = vec![0.0; 2 * d];
                let (dw, db) = sums.split_at_mut(d);
                vectorized(
                    #[inline(always)]
                    || {
                        for row in range {
                            let x = &from[row * d..][..d];
                            let (mean, r) = self.statistics(x);
                            let g = &g[row * d..][..d];
                            for (((dw, db), x), g) in dw.iter_mut().zip(db.iter_mut()).zip(x).zip(g)
                            {
                                *dw += g * (x - mean) * r;
                                *db += g;
                            }
                        }
                    },
                );
                sums
            });
            let db = sums.split_off(d);
            (Output::new(sums, &[d]), Output::new(db, &[d]))
        } else {
            (Output::new(vec![], &[0]), Output::new(vec![], &[0]))
        };
        vec![dx, tracked[1].then_some(dw), tracked[2].then_some(db)]
    }
}
