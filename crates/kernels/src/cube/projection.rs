use burn::tensor::Tensor;
use burn_cubecl::kernel::cast;
use burn_cubecl::tensor::CubeTensor;

use super::columns::column_sums;
use super::elementwise::casts;
use super::memory::{contiguous, reshaped, rows, transposed, width};
use super::product::{Outer, outers, product, product_plus, product_times};
use super::{OnDevice, Operation, Saved, apply};
use crate::projection::LowRank;

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
///
/// The products are in the dtype of W, and so are the factors in them, which are `f32` as a rule.
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

impl Operation<OnDevice> for Projection {
    fn forward(&self, inputs: &[CubeTensor], tracked: &[bool]) -> (CubeTensor, Saved) {
        let weight = inputs[1].clone();
        let dtype = weight.dtype;
        let x = cast(contiguous(inputs[0].clone()), dtype);
        let mut shape = x.meta.shape().to_vec();
        let x = as_matrix(x);
        let (a_at, b_at) = self.factors();

        // The factors as the products take them, for the backward too.
        let factors = self.scale.map(|_| {
            let [a, b] = casts([&inputs[a_at], &inputs[b_at]], dtype);
            (a, b)
        });
        // s (x A): [m, rank]
        let low = self.scale.zip(factors.as_ref());
        let low = low.map(|(scale, (a, _))| product_times(x.clone(), a.clone(), scale, dtype));
        let bias = self.bias.then(|| inputs[2].clone());
        let change = low.clone().zip(factors.as_ref().map(|(_, b)| b.clone()));
        let y = product_plus(x.clone(), weight, change, bias);

        if let Some(last) = shape.last_mut() {
            *last = width(&y);
        }
        let mut saved = Saved::default();
        if tracked.contains(&true) {
            let wants_a = low.is_some() && tracked[a_at];
            saved.inputs = vec![
                (tracked[1] || wants_a).then_some(x),
                tracked[0].then(|| inputs[1].clone()),
            ];
            if self.bias {
                saved.inputs.push(None);
            }
            if let Some((low, (a, b))) = low.zip(factors) {
                saved.inputs.push(tracked[0].then_some(a));
                saved.inputs.push((tracked[0] || wants_a).then_some(b));
                if tracked[b_at] {
                    saved.extra = vec![low];
                }
            }
        }
        (reshaped(y, &shape), saved)
    }

    /// `dx = g W^T + s (g B^T) A^T`, `dA = s x^T (g B^T)`, `dB = s (x A)^T g`, `dW = x^T g`, `dbias = sum over rows of g`.
    fn backward(
        &self,
        saved: Saved,
        grad: CubeTensor,
        tracked: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let grad = contiguous(grad);
        let mut shape = grad.meta.shape().to_vec();
        let g = as_matrix(grad); // [m, n]
        let mut grads: Vec<Option<CubeTensor>> = tracked.iter().map(|_| None).collect();
        if tracked[1] {
            grads[1] = Some(product(
                transposed(saved.input(0).clone()),
                g.clone(),
                g.dtype,
            ));
        }
        if self.bias && tracked[2] {
            grads[2] = Some(column_sums(&g, None));
        }

        let (a_at, b_at) = self.factors();
        // s (g B^T): [m, rank]
        let mut d_low = None;
        if let Some(scale) = self.scale {
            if tracked[0] || tracked[a_at] {
                let b = transposed(saved.input(b_at).clone());
                d_low = Some(product_times(g.clone(), b, scale, g.dtype));
            }
        }
        let mut factors = Vec::new();
        if let Some(d) = d_low.as_ref().filter(|_| tracked[a_at]) {
            let (x, transpose) = (saved.input(0), false);
            factors.push((a_at, Outer { x, d, transpose }));
        }
        if let Some(d) = saved.extra.first() {
            let (x, transpose) = (&g, true);
            factors.push((b_at, Outer { x, d, transpose }));
        }
        let (places, factors): (Vec<_>, Vec<_>) = factors.into_iter().unzip();
        for (place, factor) in places.into_iter().zip(outers(&factors)) {
            grads[place] = Some(factor);
        }
        if tracked[0] {
            let weight = transposed(saved.input(1).clone());
            let change = d_low.map(|d_low| (d_low, transposed(saved.input(a_at).clone())));
            let dx = product_plus(g, weight, change, None);
            if let Some(last) = shape.last_mut() {
                *last = width(&dx);
            }
            grads[0] = Some(reshaped(dx, &shape));
        }
        grads
    }
}

fn as_matrix(x: CubeTensor) -> CubeTensor {
    let shape = [rows(&x), width(&x)];
    reshaped(x, &shape)
}
