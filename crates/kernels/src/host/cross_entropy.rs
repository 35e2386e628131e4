use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use rayon::prelude::*;

use super::math::{exp, max, sum, tanh_near_zero, vectorized};
use super::pool::{Buffer, buffer, zeroed};
use super::product::{Matrix, Mode, product};
use super::rows::rows_per_task;
use super::{HostTensor, InMemory, Operation, Output, Saved, apply};

/// Logits that exist at a time.
const CHUNK_BYTES: usize = 8 << 20;

/// Fewer rows at a time would read the weight too often.
const FEWEST_ROWS: usize = 128;

/// `targets` and `weights` have one number for each row of `hidden`.
pub(crate) fn cross_entropy(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Vec<usize>,
    weights: Vec<f32>,
    softcap: Option<f64>,
) -> Tensor<1> {
    let op = CrossEntropy {
        targets: Arc::new(targets),
        weights: Arc::new(weights),
        softcap: softcap.map(|cap| cap as f32),
    };
    apply(
        op,
        [hidden.into_dispatch(), weight.into_dispatch()],
        DType::F32,
    )
}

#[derive(Clone, Debug)]
struct CrossEntropy {
    targets: Arc<Vec<usize>>,
    weights: Arc<Vec<f32>>,
    softcap: Option<f32>,
}

impl Operation<InMemory> for CrossEntropy {
    /// The loss has one gradient but for a factor, so the forward computes it while it has the logits: they never exist
    /// again, and never all at once (Hsu et al., 2024, arXiv:2410.10989).
    fn forward(&self, inputs: &[HostTensor], tracked: &[bool]) -> (Output, Saved) {
        let hidden = inputs[0].clone().contiguous();
        let weight = Matrix::of(&inputs[1]);
        let rows = Matrix::dense(hidden.slice(), hidden.rows(), hidden.width());
        let (n, d, vocab) = (rows.rows, rows.cols, weight.cols);
        let by_columns = weight.is_by_columns();
        let mut d_hidden = buffer(if tracked[0] { n * d } else { 0 });
        let mut d_weight = zeroed(if tracked[1] { d * vocab } else { 0 });

        let step = (CHUNK_BYTES / 4 / vocab.max(1))
            .max(FEWEST_ROWS)
            .min(n.max(1));
        let mut logits = buffer(step * vocab);
        let mut loss = 0.0f64;
        for from in (0..n).step_by(step) {
            let count = step.min(n - from);
            let rows = rows.row_range(from, count);
            let logits = &mut logits[..count * vocab];
            product(logits, rows, weight, 1.0, Mode::Set);
            loss += self.gradient_in_place(logits, from, vocab);
            let logits = Matrix::dense(logits, count, vocab);
            if tracked[0] {
                let part = &mut d_hidden[from * d..][..count * d];
                product(part, logits, weight.transposed(), 1.0, Mode::Set);
            }
            if tracked[1] && by_columns {
                product(&mut d_weight, logits.transposed(), rows, 1.0, Mode::Add);
            } else if tracked[1] {
                product(&mut d_weight, rows.transposed(), logits, 1.0, Mode::Add);
            }
        }
        let saved = Saved {
            extra: vec![Arc::new(d_hidden), Arc::new(d_weight)],
            // For their shapes and layouts.
            inputs: inputs.iter().cloned().map(Some).collect(),
            ..Saved::default()
        };
        (Output::new(vec![loss as f32], &[1]), saved)
    }

    fn backward(&self, saved: Saved, grad: HostTensor, tracked: &[bool]) -> Vec<Option<Output>> {
        let scale = grad.slice()[0];
        let shapes: Vec<Vec<usize>> = (0..2)
            .map(|index| saved.input(index).shape().to_vec())
            .collect();
        let by_columns = Matrix::of(saved.input(1)).is_by_columns();
        let scaled = |numbers: Arc<Buffer>| {
            // The state's own copy, unless the graph is walked twice.
            let mut numbers = Arc::unwrap_or_clone(numbers);
            if scale != 1.0 {
                numbers.par_chunks_mut(1 << 16).for_each(|part| {
                    part.iter_mut().for_each(|number| *number *= scale);
                });
            }
            numbers
        };
        let mut extra = saved.extra.into_iter();
        let (d_hidden, d_weight) = (extra.next(), extra.next());
        vec![
            d_hidden
                .filter(|_| tracked[0])
                .map(|numbers| Output::new(scaled(numbers), &shapes[0])),
            d_weight.filter(|_| tracked[1]).map(|numbers| {
                let [d, vocab] = [shapes[1][0], shapes[1][1]];
                match by_columns {
                    true => Output::new(scaled(numbers), &[vocab, d]).swap_dims(0, 1),
                    false => Output::new(scaled(numbers), &[d, vocab]),
                }
            }),
        ]
    }
}

impl CrossEntropy {
    /// Gives the weighted sum of losses of some rows and turns their logits into its gradient,
    /// `weight (softmax(z) - target)`; logits bounded by `c tanh(z / c)` have the further factor `1 - tanh(z / c)^2`.
    fn gradient_in_place(&self, logits: &mut [f32], first: usize, vocab: usize) -> f64 {
        let step = rows_per_task(logits.len() / vocab.max(1), vocab);
        let losses: Vec<f64> = logits
            .par_chunks_mut(step * vocab)
            .enumerate()
            .map(|(task, rows)| {
                let mut loss = 0.0;
                let mut slopes = vec![0.0; self.softcap.map_or(0, |_| vocab)];
                for (i, row) in rows.chunks_exact_mut(vocab).enumerate() {
                    let at = first + task * step + i;
                    let (target, weight) = (self.targets[at], self.weights[at]);
                    if let Some(cap) = self.softcap {
                        bound(row, &mut slopes, cap);
                    }
                    let z = row[target];
                    let log_sum = vectorized(
                        #[inline(always)]
                        || {
                            let largest = max(row);
                            row.iter_mut().for_each(|z| *z = exp(*z - largest));
                            let total = sum(row);
                            let factor = weight / total;
                            row.iter_mut().for_each(|p| *p *= factor);
                            largest + total.ln()
                        },
                    );
                    row[target] -= weight;
                    let slopes = slopes.iter();
                    row.iter_mut()
                        .zip(slopes)
                        .for_each(|(dz, slope)| *dz *= slope);
                    if weight != 0.0 {
                        loss += (weight * (log_sum - z)) as f64;
                    }
                }
                loss
            })
            .collect();
        losses.into_iter().sum()
    }
}

/// Bounds logits by `cap tanh(z / cap)` and notes the slopes.
fn bound(row: &mut [f32], slopes: &mut [f32], cap: f32) {
    let inverse = 1.0 / cap;
    vectorized(
        #[inline(always)]
        || {
            for (z, slope) in row.iter_mut().zip(slopes) {
                let t = tanh_near_zero(*z * inverse);
                *z = cap * t;
                *slope = 1.0 - t * t;
            }
        },
    );
}
