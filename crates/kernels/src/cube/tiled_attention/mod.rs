//! Attention in tiles (Dao, 2023, arXiv:2307.08691), by the matrices of planes, on GPUs that have such matrices (see `planes`).
//!
//! The forward keeps the operands, the result and the logarithm of each query's sum of exponentials: memory grows with the
//! length, not with its square. The exponentials are relative to a score, which changes only where another exceeds it by far,
//! since a plane has to write the rows of sums that it holds in order to scale them. The backward computes the scores again, once
//! for the queries' gradient and once for that of keys and values, each summed by one cube: nothing is added to memory, so that the
//! same operands always have the same gradients. Where it is known which unit holds which score, the backward computes with
//! them [there](direct).

mod backward;
mod direct;
mod forward;
mod running;
mod seen;
#[cfg(all(test, feature = "flex"))]
mod tests;
mod tile;

use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use burn_cubecl::kernel::cast;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::apply::primitive;
use super::bounds::bounds;
use super::memory::{aligned, buffer, elem, empty, positions_first};
use super::planes::{Planes, holds_pairs};
use super::{OnDevice, Operation, Saved, apply};
use crate::Scores;
use crate::attention_mask::Visible;
use backward::{backward_keys, backward_queries};
use seen::SizesLaunch;
use tile::{DistancesLaunch, Kind, PIECE, Plan, STRIPS};

#[cfg(test)]
thread_local! {
    /// The forwards that this thread launched: tests see who computed.
    static LAUNCHED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Keys up to which few queries are worth a cube of their own: behind a long cache, one cube for each head would go over it alone.
const FEW_KEYS: usize = 256;

/// Fewer queries than that are few.
const QUERIES: usize = 16;

/// From so many queries on, a plane takes [`STRIPS`] of them, if heads have this width: registers hold no more.
const MANY_QUERIES: usize = 256;
const WIDTH_OF_STRIPS: usize = 64;

/// What the widths of heads are multiples of.
const WIDTH: usize = 16;

/// Whether [`attention`] computes it: halves, of heads whose width fits the tiles, on a device that multiplies such matrices; not a
/// few queries behind many keys, as in generation.
///
/// q, k and v must be of one device.
pub(crate) fn takes([q, k, v]: [&Tensor<4>; 3]) -> bool {
    let [batch, heads, queries, d] = q.dims();
    let half = |dtype| matches!(dtype, DType::BF16 | DType::F16);
    let keys = k.dims()[2];
    let fits = |count: usize| count < (u32::MAX / 8) as usize;
    super::takes(q)
        && half(q.dtype())
        && [k, v]
            .iter()
            .all(|x| x.dtype() == q.dtype() && x.dims()[2] > 0)
        && d.is_multiple_of(WIDTH)
        && d <= 128
        && (queries >= QUERIES || keys <= FEW_KEYS)
        && fits(batch * heads * queries.max(keys) * d)
        && fits_device(&primitive(q.clone()), batch * heads, d)
}

/// Whether the device has the matrices, and takes so many cubes along an axis.
fn fits_device(q: &CubeTensor, cubes: usize, d: usize) -> bool {
    let most = q.client.properties().hardware.max_cube_count.1;
    cubes <= most as usize && planes_of(q, d).is_some()
}

/// The planes that compute attention over heads of this width.
fn planes_of(q: &CubeTensor, d: usize) -> Option<Planes> {
    let kind = Kind::default();
    let plan = |planes| Plan {
        d,
        planes,
        kind,
        direct: false,
        strips: 1,
    };
    Planes::of(q, |planes| plan(planes).bytes()).filter(|&planes| plan(planes).fits())
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

/// What the three kernels are launched with.
struct Launch {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    queries: usize,
    keys: usize,
    d: usize,
    plan: Plan,
    bounds: Option<CubeTensor>,
    causal_from: usize,
    window: usize,
    scores: Scores,
}

impl Launch {
    fn new(q: &CubeTensor, k: &CubeTensor, attention: &Attention) -> Self {
        let (q_shape, k_shape) = (q.meta.shape(), k.meta.shape());
        let visible = attention.visible.as_deref();
        let scores = attention.scores;
        let bounds =
            visible.and_then(|visible| bounds(visible, [q_shape[0], q_shape[2], k_shape[2]], q));
        let ranged = visible.is_some_and(Visible::is_ranged);
        let causal_from = visible.and_then(Visible::causal_from);
        let window = visible.and_then(Visible::window);
        let kind = Kind {
            causal: causal_from.is_some(),
            windowed: window.is_some(),
            padded: bounds.is_some() && !ranged,
            ranged,
            capped: scores.softcap.is_some(),
        };
        let planes = planes_of(q, q_shape[3]).expect("a device that `takes` has asked for");
        Self {
            batch: q_shape[0],
            heads: q_shape[1],
            kv_heads: k_shape[1],
            queries: q_shape[2],
            keys: k_shape[2],
            d: q_shape[3],
            plan: Plan {
                d: q_shape[3],
                planes,
                kind,
                direct: !kind.ranged && !kind.capped && holds_pairs(q, planes),
                strips: 1,
            },
            bounds,
            causal_from: causal_from.unwrap_or(0),
            window: window.unwrap_or(0),
            scores,
        }
    }

    fn sizes(&self, strided: [&CubeTensor; 4]) -> SizesLaunch {
        let numbers = [
            self.heads,
            self.kv_heads,
            self.queries,
            self.keys,
            self.causal_from,
            self.window,
        ];
        let [heads, kv_heads, queries, keys, causal_from, window] = numbers.map(|n| n as u32);
        let [q, k, v, grad] = strided.map(distances);
        let (scale, cap) = (
            self.scores.scale as f32,
            self.scores.softcap.unwrap_or(1.0) as f32,
        );
        SizesLaunch::new(
            heads,
            kv_heads,
            queries,
            keys,
            causal_from,
            window,
            scale,
            cap,
            q,
            k,
            v,
            grad,
        )
    }

    /// One number for each query of whole cubes.
    fn statistics(&self) -> [usize; 3] {
        let rows = self.plan.most_rows();
        [self.batch, self.heads, self.queries.next_multiple_of(rows)]
    }

    /// How the kernels with some queries of a cube divide them: in more strips where these are many.
    ///
    /// That is what training takes without padding. Widths, masks and rests of a cube that no device has been seen to compute so have
    /// one strip.
    fn of_queries(&self) -> Plan {
        let causal = Kind {
            causal: true,
            ..Kind::default()
        };
        let known = self.d == WIDTH_OF_STRIPS
            && self.plan.kind == causal
            && self.queries.is_multiple_of(self.plan.most_rows());
        let many = self.plan.direct && known && self.queries >= MANY_QUERIES;
        Plan {
            strips: if many { STRIPS } else { 1 },
            ..self.plan
        }
    }

    fn cubes(&self, plan: Plan, rows: usize, heads: usize) -> CubeCount {
        CubeCount::Static(
            rows.div_ceil(plan.rows()) as u32,
            (self.batch * heads) as u32,
            1,
        )
    }

    fn dim(&self) -> CubeDim {
        CubeDim::new_1d(self.plan.units() as u32)
    }
}

fn distances(tensor: &CubeTensor) -> DistancesLaunch {
    let [row, head, position] = [0, 1, 2].map(|dim| (tensor.meta.strides()[dim] / PIECE) as u32);
    DistancesLaunch::new(row, head, position)
}

impl Operation<OnDevice> for Attention {
    fn forward(&self, inputs: &[CubeTensor], tracked: &[bool]) -> (CubeTensor, Saved) {
        let [q, k, v] = [0, 1, 2].map(|index| aligned(inputs[index].clone()));
        let launch = Launch::new(&q, &k, self);
        let plan = launch.of_queries();
        let y = positions_first(
            &q,
            [launch.batch, launch.queries, launch.heads, launch.d],
            q.dtype,
        );
        let log_sums = empty(&q, &launch.statistics(), DType::F32);
        #[cfg(test)]
        LAUNCHED.set(LAUNCHED.get() + 1);
        // SAFETY: rows behind the last are not read, and not written.
        unsafe {
            forward::forward::launch_unchecked(
                &q.client,
                launch.cubes(plan, launch.queries, launch.heads),
                launch.dim(),
                4,
                buffer(&q),
                buffer(&k),
                buffer(&v),
                buffer(launch.bounds.as_ref().unwrap_or(&log_sums)),
                buffer(&y),
                buffer(&log_sums),
                launch.sizes([&q, &k, &v, &q]),
                plan,
                elem(&q),
            );
        }
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
        let launch = Launch::new(q, k, self);
        let plan = launch.of_queries();
        let deltas = empty(q, &launch.statistics(), DType::F32);
        let dq = positions_first(
            q,
            [launch.batch, launch.queries, launch.heads, launch.d],
            q.dtype,
        );
        let bounds = launch.bounds.as_ref().unwrap_or(log_sums);
        // The sums that the other kernel needs come from this one, so it runs whether or not q is tracked.
        // SAFETY: rows behind the last are not read, and not written.
        unsafe {
            backward_queries::launch_unchecked(
                &q.client,
                launch.cubes(plan, launch.queries, launch.heads),
                launch.dim(),
                4,
                buffer(q),
                buffer(k),
                buffer(v),
                buffer(&grad),
                buffer(y),
                buffer(&grad),
                buffer(bounds),
                buffer(log_sums),
                buffer(&deltas),
                buffer(&dq),
                launch.sizes([q, k, v, &grad]),
                plan,
                elem(q),
            );
        }
        let mut gradients = vec![tracked[0].then_some(dq), None, None];
        if tracked[1] || tracked[2] {
            let of_keys = [launch.batch, launch.keys, launch.kv_heads, launch.d];
            let [dk, dv] = [0, 1].map(|_| positions_first(q, of_keys, q.dtype));
            // SAFETY: as above.
            unsafe {
                backward_keys::launch_unchecked(
                    &q.client,
                    launch.cubes(launch.plan, launch.keys, launch.kv_heads),
                    launch.dim(),
                    4,
                    buffer(q),
                    buffer(k),
                    buffer(v),
                    buffer(&grad),
                    buffer(bounds),
                    buffer(log_sums),
                    buffer(&deltas),
                    buffer(&dk),
                    buffer(&dv),
                    launch.sizes([q, k, v, &grad]),
                    launch.plan,
                    elem(q),
                );
            }
            gradients[1] = tracked[1].then_some(dk);
            gradients[2] = tracked[2].then_some(dv);
        }
        gradients
    }
}
