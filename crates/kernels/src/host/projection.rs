use std::sync::Arc;

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::product::{Matrix, Mode, Target, product, product_here};
use super::rows::{buffer, sum_over_rows};
use super::{HostOp, HostTensor, Output, Saved, apply};
use crate::projection::LowRank;

/// Fewer rows than this for a thread are multiplied by columns instead.
const ROWS_PER_PART: usize = 32;

pub(crate) fn projection<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    low_rank: Option<LowRank>,
) -> Tensor<D> {
    let dtype = weight.dtype();
    let op = Projection {
        bias: bias.is_some(),
        scale: low_rank.as_ref().map(|change| change.scale as f32),
    };
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    let bias = bias.map(Tensor::into_dispatch);
    let factors = low_rank.map(|change| (change.a.into_dispatch(), change.b.into_dispatch()));
    match (bias, factors) {
        (None, None) => apply(op, [x, weight], dtype),
        (Some(bias), None) => apply(op, [x, weight, bias], dtype),
        (None, Some((a, b))) => apply(op, [x, weight, a, b], dtype),
        (Some(bias), Some((a, b))) => apply(op, [x, weight, bias, a, b], dtype),
    }
}

/// `y = x W + bias + s (x A) B`; the operands are `x`, `W`, the bias if there is one, `A` and `B` if there is a scale.
#[derive(Clone, Debug)]
struct Projection {
    bias: bool,
    scale: Option<f32>,
}

impl Projection {
    /// The places of A and B among the operands.
    fn factors(&self) -> (usize, usize) {
        let a = if self.bias { 3 } else { 2 };
        (a, a + 1)
    }
}

impl HostOp for Projection {
    fn forward(&self, inputs: &[HostTensor], tracked: &[bool]) -> (Output, Saved) {
        let x = inputs[0].clone().contiguous();
        let weight = Matrix::of(&inputs[1]);
        let rows = Matrix::dense(x.slice(), x.rows(), x.width());
        let (m, n) = (rows.rows, weight.cols);
        let (a_at, b_at) = self.factors();
        let change = self.scale.map(|scale| {
            let (a, b) = (Matrix::of(&inputs[a_at]), Matrix::of(&inputs[b_at]));
            (a, b, scale)
        });
        let rank = change.map_or(0, |(a, _, _)| a.cols);

        let mut y = buffer(m * n);
        let mode = if self.bias {
            let bias = inputs[2].clone().contiguous();
            y.par_chunks_mut(n.max(1) * ROWS_PER_PART).for_each(|rows| {
                rows.chunks_mut(n)
                    .for_each(|row| row.copy_from_slice(bias.slice()))
            });
            Mode::Add
        } else {
            Mode::Set
        };
        let mut low = buffer(m * rank); // [m, rank]
        match Parts::of(m) {
            // Everything about a row on one thread: it reads x and writes y while they are in its cache.
            Some(parts) => parts.for_each(&mut y, n, &mut low, rank, |from, y, low| {
                let count = y.len() / n;
                let x = rows.row_range(from, count);
                // SAFETY: the parts of y and low are this task's own, and as large as the products.
                unsafe {
                    product_here(&Target::dense(y, n), x, weight, 1.0, mode);
                    if let Some((a, b, scale)) = change {
                        product_here(&Target::dense(low, rank), x, a, 1.0, Mode::Set);
                        let low = Matrix::dense(low, count, rank);
                        product_here(&Target::dense(y, n), low, b, scale, Mode::Add);
                    }
                }
            }),
            None => {
                product(&mut y, rows, weight, 1.0, mode);
                if let Some((a, b, scale)) = change {
                    product(&mut low, rows, a, 1.0, Mode::Set);
                    product(&mut y, Matrix::dense(&low, m, rank), b, scale, Mode::Add);
                }
            }
        }

        let mut shape = x.shape().to_vec();
        shape.pop();
        shape.push(n);
        let mut saved = Saved::default();
        if tracked.contains(&true) {
            let tracked = |index: usize| tracked.get(index).copied().unwrap_or(false);
            let keep = |index: usize, wanted: bool| wanted.then(|| inputs[index].clone());
            let factors = self.scale.is_some();
            saved.inputs = vec![
                (tracked(1) || factors && tracked(a_at)).then_some(x),
                keep(1, tracked(0)),
            ];
            if self.bias {
                saved.inputs.push(None);
            }
            if factors {
                saved.inputs.push(keep(a_at, tracked(0)));
                saved.inputs.push(keep(b_at, tracked(0) || tracked(a_at)));
                saved.extra = vec![Arc::new(low)];
            }
        }
        (Output::new(y, &shape), saved)
    }

    fn backward(&self, saved: Saved, grad: HostTensor, tracked: &[bool]) -> Vec<Option<Output>> {
        let grad = grad.contiguous();
        let rows = Matrix::dense(grad.slice(), grad.rows(), grad.width()); // [m, n]
        let (m, n) = (rows.rows, rows.cols);
        let (a_at, b_at) = self.factors();
        let mut grads: Vec<Option<Output>> = tracked.iter().map(|_| None).collect();

        if tracked[1] {
            let x = saved.input(0);
            let x = Matrix::dense(x.slice(), m, x.width());
            grads[1] = Some(weight_gradient(x, rows));
        }
        if self.bias && tracked[2] {
            let sums = sum_over_rows(m, n, |range| {
                let mut sums = vec![0.0; n];
                for row in grad.slice()[range.start * n..range.end * n].chunks_exact(n) {
                    sums.iter_mut().zip(row).for_each(|(sum, g)| *sum += g);
                }
                sums
            });
            grads[2] = Some(Output::new(sums, &[n]));
        }

        let (wants_a, wants_b) = match self.scale {
            Some(_) => (tracked[a_at], tracked[b_at]),
            None => (false, false),
        };
        if !tracked[0] && !wants_a && !wants_b {
            return grads;
        }
        let scale = self.scale.unwrap_or(0.0);
        let part = |index: usize| saved.inputs.get(index).and_then(Option::as_ref);
        let (a, b) = (part(a_at).map(Matrix::of), part(b_at).map(Matrix::of));
        let low = saved.extra.first();
        let rank = low.map_or(0, |low| low.len() / m.max(1));
        let weight = tracked[0].then(|| Matrix::of(saved.input(1)));
        let x = wants_a.then(|| saved.input(0));
        let x = x.map(|x| Matrix::dense(x.slice(), m, x.width()));
        let k = weight.map_or(0, |weight| weight.rows);
        let d_in = x.map_or(0, |x| x.cols);

        let parts = Parts::of(m).unwrap_or(Parts { rows: m, step: m });
        let by_columns = parts.count() == 1;
        let mut dx = buffer(m * k);
        let mut d_low = buffer(m * rank); // s (g B^T): [m, rank]
        if let (true, Some(weight)) = (by_columns, weight) {
            // Too few rows to share out: the product is shared by its columns, before the rest.
            product(&mut dx, rows, weight.transposed(), 1.0, Mode::Set);
        }
        let sums = parts.map(&mut dx, k, &mut d_low, rank, |from, count, dx, d_low| {
            let g = rows.row_range(from, count);
            let mut da = vec![0.0; d_in * rank];
            let mut db = vec![0.0; if wants_b { rank * n } else { 0 }];
            // SAFETY: the parts of dx and d_low are this task's own, da and db its own memory, all as large as the products.
            unsafe {
                if let Some(weight) = weight
                    && !by_columns
                {
                    product_here(
                        &Target::dense(dx, k),
                        g,
                        weight.transposed(),
                        1.0,
                        Mode::Set,
                    );
                }
                if let Some(b) = b {
                    product_here(
                        &Target::dense(d_low, rank),
                        g,
                        b.transposed(),
                        scale,
                        Mode::Set,
                    );
                }
                let d_low = Matrix::dense(d_low, count, rank);
                if let (Some(a), true) = (a, k > 0) {
                    product_here(&Target::dense(dx, k), d_low, a.transposed(), 1.0, Mode::Add);
                }
                if let Some(x) = x {
                    let x = x.row_range(from, count).transposed();
                    product_here(&Target::dense(&mut da, rank), x, d_low, 1.0, Mode::Set);
                }
                if let (true, Some(low)) = (wants_b, low) {
                    let low = Matrix::dense(low, m, rank)
                        .row_range(from, count)
                        .transposed();
                    product_here(&Target::dense(&mut db, n), low, g, scale, Mode::Set);
                }
            }
            (da, db)
        });
        if tracked[0] {
            let mut shape = grad.shape().to_vec();
            shape.pop();
            shape.push(k);
            grads[0] = Some(Output::new(dx, &shape));
        }
        if wants_a || wants_b {
            let (da, db) = sums
                .into_iter()
                .reduce(|(da, db), (more_a, more_b)| (add(da, more_a), add(db, more_b)))
                .unwrap_or_default();
            grads[a_at] = wants_a.then(|| Output::new(da, &[d_in, rank]));
            grads[b_at] = wants_b.then(|| Output::new(db, &[rank, n]));
        }
        grads
    }
}

/// `x^T g`, as the gradient of a weight: `[k, n]`.
pub(super) fn weight_gradient(x: Matrix<'_>, g: Matrix<'_>) -> Output {
    let mut dw = buffer(x.cols * g.cols);
    product(&mut dw, x.transposed(), g, 1.0, Mode::Set);
    Output::new(dw, &[x.cols, g.cols])
}

fn add(mut sum: Vec<f32>, more: Vec<f32>) -> Vec<f32> {
    sum.iter_mut()
        .zip(more)
        .for_each(|(sum, more)| *sum += more);
    sum
}

/// Rows shared out so that each thread has one part.
struct Parts {
    rows: usize,
    step: usize,
}

impl Parts {
    /// None where the rows are too few.
    fn of(rows: usize) -> Option<Self> {
        let threads = rayon::current_num_threads();
        let step = rows.div_ceil(threads);
        (threads > 1 && step >= ROWS_PER_PART).then_some(Self { rows, step })
    }

    fn count(&self) -> usize {
        self.rows.div_ceil(self.step.max(1)).max(1)
    }

    fn for_each(
        &self,
        first: &mut [f32],
        first_width: usize,
        second: &mut [f32],
        second_width: usize,
        work: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
    ) {
        self.map(
            first,
            first_width,
            second,
            second_width,
            |from, _, first, second| {
                work(from, first, second);
            },
        );
    }

    /// Runs the work on each part of two results, either of which may have no width.
    fn map<R: Send>(
        &self,
        first: &mut [f32],
        first_width: usize,
        second: &mut [f32],
        second_width: usize,
        work: impl Fn(usize, usize, &mut [f32], &mut [f32]) -> R + Sync,
    ) -> Vec<R> {
        let mut parts = Vec::with_capacity(self.count());
        let (mut first, mut second) = (first, second);
        for part in 0..self.count() {
            let from = part * self.step;
            let count = self.step.min(self.rows - from);
            let (head, tail) = first.split_at_mut(count * first_width);
            first = tail;
            let (second_head, tail) = second.split_at_mut(count * second_width);
            second = tail;
            parts.push((from, count, head, second_head));
        }
        let run = |(from, count, first, second)| work(from, count, first, second);
        match parts.len() {
            1 => parts.into_iter().map(run).collect(),
            _ => parts.into_par_iter().map(run).collect(),
        }
    }
}
