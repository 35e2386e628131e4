use burn::tensor::Tensor;

use super::math::{erf, tanh, vectorized};
use super::pool::buffer;
use super::rows::fill_rows;
use super::{HostTensor, InMemory, Operation, Output, Saved, apply};

pub(crate) fn gelu<const D: usize>(form: Gelu, x: Tensor<D>) -> Tensor<D> {
    let dtype = x.dtype();
    apply(form, [x.into_dispatch()], dtype)
}

/// The two forms of GELU in use.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Gelu {
    /// By the error function.
    Exact,
    /// By the hyperbolic tangent.
    Tanh,
}

/// `sqrt(2 / pi)`
const SQRT_2_OVER_PI: f32 = 0.797_884_6;

impl Gelu {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        match self {
            Gelu::Exact => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2).0),
            Gelu::Tanh => 0.5 * x * (1.0 + tanh(SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x))),
        }
    }

    #[inline(always)]
    fn slope(self, x: f32) -> f32 {
        match self {
            Gelu::Exact => {
                let (erf, bell) = erf(x * std::f32::consts::FRAC_1_SQRT_2);
                0.5 * (1.0 + erf) + 0.5 * SQRT_2_OVER_PI * x * bell
            }
            Gelu::Tanh => {
                let t = tanh(SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x));
                let inner = SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044_715 * x * x);
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
            }
        }
    }
}

impl Operation<InMemory> for Gelu {
    fn forward(&self, inputs: &[HostTensor], tracked: &[bool]) -> (Output, Saved) {
        let x = inputs[0].clone().contiguous();
        let from = x.slice();
        let mut y = buffer(x.len());
        let width = x.width();
        fill_rows(&mut y, width, |first, y| {
            let from = &from[first * width..][..y.len()];
            vectorized(
                #[inline(always)]
                || {
                    for (y, x) in y.iter_mut().zip(from) {
                        *y = self.value(*x);
                    }
                },
            );
        });
        let output = Output::new(y, x.shape());
        let mut saved = Saved::default();
        if tracked[0] {
            saved.inputs = vec![Some(x)];
        }
        (output, saved)
    }

    fn backward(&self, mut saved: Saved, grad: HostTensor, _: &[bool]) -> Vec<Option<Output>> {
        let grad = grad.contiguous();
        let (width, g) = (grad.width(), grad.slice());
        let mut x = saved.take_input(0).into_exclusive();
        fill_rows(x.slice_mut(), width, |first, x| {
            let g = &g[first * width..][..x.len()];
            vectorized(
                #[inline(always)]
                || {
                    for (x, g) in x.iter_mut().zip(g) {
                        *x = g * self.slope(*x);
                    }
                },
            );
        });
        vec![Some(Output::in_place(x))]
    }
}
