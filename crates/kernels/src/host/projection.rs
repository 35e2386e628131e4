use std::sync::Arc;

use super::pool::buffer;
use super::product::{Matrix, Mode, Term, product, sum};
use super::rows::{fill_rows, sum_over_rows};
use super::{HostTensor, InMemory, Operation, Output, Saved, apply};
use crate::projection::LowRank;
use burn::tensor::Tensor;

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

impl Operation<InMemory> for Projection {
    fn forward(&self, inputs: &[HostTensor], tracked: &[bool]) -> (Output, Saved) {
        let x = inputs[0].clone().contiguous();
        let rows = Matrix::dense(x.slice(), x.rows(), x.width());
        let weight = Matrix::of(&inputs[1]);
        let (m, n) = (rows.rows, weight.cols);
        let (a_at, b_at) = self.factors();

        let mut y = buffer(m * n);
        let mut terms = vec![Term::new(rows, weight, 1.0)];
        let low = self.scale.map(|_| {
            let a = Matrix::of(&inputs[a_at]);
            let mut low = buffer(m * a.cols); // x A: [m, rank]
            product(&mut low, rows, a, 1.0, Mode::Set);
            (low, a.cols)
        });
        if let (Some((low, rank)), Some(scale)) = (&low, self.scale) {
            let low = Matrix::dense(low, m, *rank);
            terms.push(Term::new(low, Matrix::of(&inputs[b_at]), scale));
        }
        if self.bias {
            let bias = inputs[2].clone().contiguous();
            fill_rows(&mut y, n, |_, rows| {
                rows.chunks_exact_mut(n.max(1))
                    .for_each(|row| row.copy_from_slice(bias.slice()));
            });
            sum(&mut y, &terms, Mode::Add);
        } else {
            sum(&mut y, &terms, Mode::Set);
        }

        let output = Output::new(y, &with_width(x.shape(), n));
        let mut saved = Saved::default();
        if tracked.contains(&true) {
            let keep = |index: usize, wanted: bool| wanted.then(|| inputs[index].clone());
            let wants_a = low.is_some() && tracked[a_at];
            saved.inputs = vec![(tracked[1] || wants_a).then_some(x), keep(1, tracked[0])];
            if self.bias {
                saved.inputs.push(None);
            }
            if let Some((low, _)) = low {
                saved.inputs.push(keep(a_at, tracked[0]));
                saved.inputs.push(keep(b_at, tracked[0] || wants_a));
                saved.extra = vec![Arc::new(low)];
            }
        }
        (output, saved)
    }

    /// `dx = g W^T + s (g B^T) A^T`, `dA = s x^T (g B^T)`, `dB = s (x A)^T g`, `dW = x^T g`, `dbias = sum over rows of g`.
    fn backward(&self, saved: Saved, grad: HostTensor, tracked: &[bool]) -> Vec<Option<Output>> {
        let grad = grad.contiguous();
        let g = Matrix::dense(grad.slice(), grad.rows(), grad.width()); // [m, n]
        let (m, n) = (g.rows, g.cols);
        let x = || {
            let x = saved.input(0);
            Matrix::dense(x.slice(), m, x.width())
        };
        let mut grads: Vec<Option<Output>> = tracked.iter().map(|_| None).collect();
        if tracked[1] {
            grads[1] = Some(outer(x(), g, 1.0));
        }
        if self.bias && tracked[2] {
            grads[2] = Some(Output::new(column_sums(grad.slice(), n), &[n]));
        }

        let (a_at, b_at) = self.factors();
        // s (g B^T): [m, rank]
        let mut d_low = None;
        if let Some(scale) = self.scale {
            let rank = saved.extra[0].len() / m.max(1);
            if tracked[0] || tracked[a_at] {
                let mut numbers = buffer(m * rank);
                let b = Matrix::of(saved.input(b_at));
                product(&mut numbers, g, b.transposed(), scale, Mode::Set);
                d_low = Some((numbers, rank));
            }
            if tracked[b_at] {
                grads[b_at] = Some(outer(Matrix::dense(&saved.extra[0], m, rank), g, scale));
            }
        }
        let d_low = d_low
            .as_ref()
            .map(|(numbers, rank)| Matrix::dense(numbers, m, *rank));
        if let Some(d_low) = d_low.filter(|_| tracked[a_at]) {
            grads[a_at] = Some(outer(x(), d_low, 1.0));
        }
        if tracked[0] {
            let weight = Matrix::of(saved.input(1));
            let mut terms = vec![Term::new(g, weight.transposed(), 1.0)];
            if let Some(d_low) = d_low {
                let a = Matrix::of(saved.input(a_at));
                terms.push(Term::new(d_low, a.transposed(), 1.0));
            }
            let mut dx = buffer(m * weight.rows);
            sum(&mut dx, &terms, Mode::Set);
            grads[0] = Some(Output::new(dx, &with_width(grad.shape(), weight.rows)));
        }
        grads
    }
}

/// `s x^T g`, the gradient of what x was multiplied by.
fn outer(x: Matrix<'_>, g: Matrix<'_>, scale: f32) -> Output {
    let mut numbers = buffer(x.cols * g.cols);
    product(&mut numbers, x.transposed(), g, scale, Mode::Set);
    Output::new(numbers, &[x.cols, g.cols])
}

fn column_sums(numbers: &[f32], width: usize) -> Vec<f32> {
    let width = width.max(1);
    sum_over_rows(numbers.len() / width, width, |range| {
        let mut sums = vec![0.0; width];
        for row in numbers[range.start * width..range.end * width].chunks_exact(width) {
            sums.iter_mut().zip(row).for_each(|(sum, g)| *sum += g);
        }
        sums
    })
}

fn with_width(shape: &[usize], width: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    if let Some(last) = shape.last_mut() {
        *last = width;
    }
    shape
}
