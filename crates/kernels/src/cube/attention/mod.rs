//! Attention on NVIDIA GPUs in tiles (Dao, 2023, arXiv:2307.08691), by CUDA C++ on the tensor cores.
//!
//! The forward keeps the operands, the result and the logarithm of each query's sum of exponentials: memory grows with the
//! length, not with its square. The backward computes the scores again, once for the queries' gradient and once for that of
//! keys and values, each summed by one block of threads: nothing is added to memory, so that the same operands always have
//! the same gradients.

mod shape;
#[cfg(all(test, feature = "flex"))]
mod tests;

use std::sync::Arc;

use burn::backend::DispatchDevice;
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeDevice;
use burn_cubecl::kernel::cast;
use burn_cubecl::tensor::CubeTensor;

use super::cuda_source::{Access, CudaText};
use super::memory::{aligned, empty, positions_first};
use super::{OnDevice, Operation, Saved, apply};
use crate::Scores;
use crate::attention_mask::Visible;
use shape::{PADDED_ROWS, Shape};

static FORWARD: CudaText = CudaText::new(&[include_str!("tile.cu"), include_str!("forward.cu")]);
static BACKWARD_QUERIES: CudaText =
    CudaText::new(&[include_str!("tile.cu"), include_str!("backward_queries.cu")]);
static BACKWARD_KEYS: CudaText =
    CudaText::new(&[include_str!("tile.cu"), include_str!("backward_keys.cu")]);

#[cfg(test)]
thread_local! {
    /// The forwards that this thread launched: tests see who computed.
    static LAUNCHED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Whether [`attention`] computes it: halves, on an NVIDIA GPU from Ampere on, heads of a width that fits the tiles.
///
/// q, k and v must be of one device.
pub(crate) fn takes(
    [q, k, v]: [&Tensor<4>; 3],
    visible: Option<&Visible>,
    Scores { scale, softcap }: Scores,
) -> bool {
    let [batch, heads, _, d] = q.dims();
    let half = |dtype| matches!(dtype, DType::BF16 | DType::F16);
    let positive = |x: f64| x > 0.0 && x.is_finite();
    let padded = visible.is_some_and(Visible::is_padded);
    super::takes(q)
        && half(q.dtype())
        && [k, v].iter().all(|x| x.dtype() == q.dtype() && x.dims()[2] > 0)
        && d.is_multiple_of(16)
        && d <= 128
        // The maximum of the products must be that of the scores.
        && positive(scale)
        && softcap.is_none_or(positive)
        && (!padded || batch <= PADDED_ROWS)
        && !visible.is_some_and(Visible::is_ranged)
        && batch * heads <= i32::MAX as usize
        && on_cuda(q.device().as_dispatch())
}

fn on_cuda(device: &DispatchDevice) -> bool {
    match device {
        DispatchDevice::Cube(device @ CubeDevice::Cuda(_)) => {
            // The copies past the registers that came with Ampere, as bf16 on the tensor cores did.
            device.client().properties().features.copy_async
        }
        DispatchDevice::Autodiff(device) => on_cuda(device),
        #[allow(
            unreachable_patterns,
            reason = "other backends are other crates' features"
        )]
        _ => false,
    }
}

/// See [`crate::attention_with`]. A query that sees no key has a result and a gradient of 0.
pub(crate) fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    visible: Option<Arc<Visible>>,
    scores: Scores,
) -> Tensor<4> {
    let dtype = q.dtype();
    let inputs = [q.into_dispatch(), k.into_dispatch(), v.into_dispatch()];
    apply(Attention { visible, scores }, inputs, dtype)
}

#[derive(Clone, Debug)]
struct Attention {
    /// None: every query sees every key.
    visible: Option<Arc<Visible>>,
    scores: Scores,
}

impl Attention {
    fn shape(&self, q: &CubeTensor, k: &CubeTensor) -> Shape<'_> {
        Shape::new(q, k, self.visible.as_deref(), self.scores)
    }
}

impl Operation<OnDevice> for Attention {
    fn forward(&self, inputs: &[CubeTensor], tracked: &[bool]) -> (CubeTensor, Saved) {
        let [q, k, v] = [0, 1, 2].map(|index| aligned(inputs[index].clone()));
        let shape = self.shape(&q, &k);
        let y = positions_first(&q, shape.of_queries(), q.dtype);
        let log_sums = empty(&q, &shape.statistics(), DType::F32);
        let kernel = shape.kernel(&FORWARD, "attention_forward", shape.forward());
        let tensors = [
            (&q, Access::Reads),
            (&k, Access::Reads),
            (&v, Access::Reads),
            (&y, Access::Writes),
            (&log_sums, Access::Writes),
        ];
        let numbers = shape.numbers([&q, &k, &v, &q]);
        #[cfg(test)]
        LAUNCHED.set(LAUNCHED.get() + 1);
        // SAFETY: the kernel looks where queries and keys end.
        unsafe { kernel.launch(shape.query_blocks(), &tensors, numbers) };

        let mut saved = Saved::default();
        if tracked.contains(&true) {
            saved.inputs = [q, k, v].map(Some).into();
            saved.extra = vec![y.clone(), log_sums];
        }
        (y, saved)
    }

    /// With `P = softmax(s q k^T)` and `D_i = sum_j dy_ij y_ij`:
    /// `dS = P (dy v^T - D)`, `dq = s dS k`, `dk = s dS^T q`, `dv = P^T dy`. Scores bounded by `c tanh(S / c)` have the
    /// further factor `1 - tanh(S / c)^2` in `dS`.
    fn backward(
        &self,
        saved: Saved,
        grad: CubeTensor,
        tracked: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let (q, k, v) = (saved.input(0), saved.input(1), saved.input(2));
        let [y, log_sums] = [&saved.extra[0], &saved.extra[1]];
        let grad = aligned(cast(grad, q.dtype));
        let shape = self.shape(q, k);
        let numbers = shape.numbers([q, k, v, &grad]);

        let deltas = empty(q, &shape.statistics(), DType::F32);
        let dq = positions_first(q, shape.of_queries(), q.dtype);
        let tiles = shape.backward_queries();
        let tensors = [
            (q, Access::Reads),
            (k, Access::Reads),
            (v, Access::Reads),
            (y, Access::Reads),
            (&grad, Access::Reads),
            (log_sums, Access::Reads),
            (&deltas, Access::Writes),
            (&dq, Access::Writes),
        ];
        // The sums that the other kernel needs come from this one, so it runs whether or not q is tracked.
        let kernel = shape.kernel(&BACKWARD_QUERIES, "attention_backward_queries", tiles);
        // SAFETY: the kernel looks where queries and keys end.
        unsafe { kernel.launch(shape.query_blocks(), &tensors, numbers.clone()) };

        let mut gradients = vec![tracked[0].then_some(dq), None, None];
        if tracked[1] || tracked[2] {
            let [dk, dv] = [k, v].map(|x| positions_first(x, shape.of_keys(), x.dtype));
            let tiles = shape.backward_keys();
            let tensors = [
                (q, Access::Reads),
                (k, Access::Reads),
                (v, Access::Reads),
                (&grad, Access::Reads),
                (log_sums, Access::Reads),
                (&deltas, Access::Reads),
                (&dk, Access::Writes),
                (&dv, Access::Writes),
            ];
            let kernel = shape.kernel(&BACKWARD_KEYS, "attention_backward_keys", tiles);
            // SAFETY: as above.
            unsafe { kernel.launch(shape.key_blocks(), &tensors, numbers) };
            gradients[1] = tracked[1].then_some(dk);
            gradients[2] = tracked[2].then_some(dv);
        }
        gradients
    }
}
