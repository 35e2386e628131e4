use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use burn_cubecl::kernel::cast;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::bounds::bounds;
use super::elementwise::add;
use super::memory::{
    buffer, contiguous, cubes, elem, empty, positions_first, reshaped, rows, transposed,
    vector_size,
};
use super::product::product;
use super::reduce::{Team, cube_max, cube_sum};
use super::softcap::{bounded, slope_of};
use super::{OnDevice, Operation, Saved, apply};
use crate::Scores;
use crate::attention_mask::Visible;

/// Scores that exist at a time: few in tests, so that small ones have more than one chunk.
const CHUNK_BYTES: usize = if cfg!(test) { 32 << 10 } else { 256 << 20 };

/// Fewer queries at a time would not fill a GPU.
const FEWEST_QUERIES: usize = 64;

/// Parts of the queries under a causal mask: each leaves out the keys behind its last query, in all 3 of 8 products.
const CAUSAL_PARTS: usize = 4;

/// Keys are left out in so many: what tiles and wide reads divide.
const KEYS: usize = 64;

/// See [`crate::attention_with`]: by products for all heads of some queries at a time, and one kernel between them. Only
/// the operands are kept; the backward computes the scores again. A query that sees no key has a result and a gradient
/// of 0.
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

/// Some rows of the batch, some of their queries, and the first keys, all that these see among them.
#[derive(Clone, Copy)]
struct Chunk {
    row: usize,
    rows: usize,
    query: usize,
    queries: usize,
    keys: usize,
}

/// The sizes of an attention.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    queries: usize,
    keys: usize,
    d: usize,
}

impl Sizes {
    fn of(q: &CubeTensor, k: &CubeTensor) -> Self {
        let (q, k) = (q.meta.shape(), k.meta.shape());
        Self {
            batch: q[0],
            heads: q[1],
            kv_heads: k[1],
            queries: q[2],
            keys: k[2],
            d: q[3],
        }
    }

    /// All queries, or under a causal mask some of them, and as many rows of the batch at a time as may be. The last queries come
    /// first, with all keys.
    fn chunks(self, bytes: usize, causal_from: Option<usize>) -> Vec<Chunk> {
        let of_query = self.heads * self.keys * bytes;
        let fit = CHUNK_BYTES / of_query / FEWEST_QUERIES * FEWEST_QUERIES;
        let wanted = match causal_from {
            Some(_) => self.queries.div_ceil(CAUSAL_PARTS),
            None => self.queries,
        };
        let wanted = wanted.next_multiple_of(FEWEST_QUERIES);
        let queries = wanted.min(fit).max(FEWEST_QUERIES).min(self.queries);
        let rows = (CHUNK_BYTES / (of_query * queries)).clamp(1, self.batch);
        let chunk = |row: usize, query: usize| {
            let end = (query + queries).min(self.queries);
            let seen = match causal_from {
                Some(from) if end < self.queries => (from + end).next_multiple_of(KEYS),
                _ => self.keys,
            };
            Chunk {
                row,
                rows: rows.min(self.batch - row),
                query,
                queries: end - query,
                keys: seen.min(self.keys),
            }
        };
        let starts = (0..self.batch).step_by(rows);
        let parts = (0..self.queries).step_by(queries).rev();
        starts
            .flat_map(|row| parts.clone().map(move |query| chunk(row, query)))
            .collect()
    }
}

impl Attention {
    /// The position of the first query, where no query sees keys behind its own.
    fn causal_from(&self) -> Option<usize> {
        let visible = self.visible.as_deref()?;
        let by_rule = !visible.is_ranged();
        by_rule.then(|| visible.causal_from()).flatten()
    }

    fn bounds(&self, sizes: Sizes, beside: &CubeTensor) -> Option<CubeTensor> {
        let visible = self.visible.as_deref()?;
        bounds(visible, [sizes.batch, sizes.queries, sizes.keys], beside)
    }

    /// The probabilities of scores `[rows, heads, queries, keys]` in `f32`, in this dtype, and where their gradient is
    /// given in `f32` that of the scores.
    fn softmax(
        &self,
        scores: &CubeTensor,
        d_probabilities: Option<&CubeTensor>,
        bounds: Option<&CubeTensor>,
        sizes: Sizes,
        chunk: Chunk,
        dtype: DType,
    ) -> (CubeTensor, Option<CubeTensor>) {
        let new = || empty(scores, scores.meta.shape(), dtype);
        let (probabilities, d_scores) = (new(), d_probabilities.map(|_| new()));
        let size = vector_size(&[scores, &probabilities], chunk.keys);
        let vectors = chunk.keys / size;
        let team = Team::new(&scores.client, vectors);
        let visible = self.visible.as_deref();
        let ranged = visible.is_some_and(Visible::is_ranged);
        // What ranges have in them already.
        let rule = visible.filter(|_| !ranged);
        let causal = rule.and_then(Visible::causal_from);
        let window = rule.and_then(Visible::window);
        let count = rows(scores);
        // SAFETY: a cube stays in its row, and those beyond the last one write nothing.
        unsafe {
            softmax::launch_unchecked(
                &scores.client,
                cubes(&scores.client, count),
                team.dim(),
                size,
                buffer(scores),
                buffer(d_probabilities.unwrap_or(scores)),
                buffer(bounds.unwrap_or(scores)),
                buffer(&probabilities),
                buffer(d_scores.as_ref().unwrap_or(&probabilities)),
                count,
                vectors,
                chunk.queries,
                sizes.heads * chunk.queries,
                chunk.row,
                chunk.query,
                sizes.queries,
                causal.unwrap_or(0),
                window.unwrap_or(0),
                self.scores.scale as f32,
                self.scores.softcap.unwrap_or(1.0) as f32,
                Kind {
                    causal: causal.is_some(),
                    windowed: window.is_some(),
                    padded: bounds.is_some() && !ranged,
                    ranged,
                    capped: self.scores.softcap.is_some(),
                    backward: d_scores.is_some(),
                },
                team,
                [elem(&probabilities), elem(bounds.unwrap_or(scores))],
            );
        }
        (probabilities, d_scores)
    }
}

impl Operation<OnDevice> for Attention {
    fn forward(&self, inputs: &[CubeTensor], tracked: &[bool]) -> (CubeTensor, Saved) {
        let [q, k, v] = [0, 1, 2].map(|index| inputs[index].clone());
        let sizes = Sizes::of(&q, &k);
        let bounds = self.bounds(sizes, &q);
        let y = positions_first(
            &q,
            [sizes.batch, sizes.queries, sizes.heads, sizes.d],
            q.dtype,
        );
        // In f32 until they are probabilities: half a unit of bf16's last place is some percent of an exponential, and f16
        // does not reach far.
        for chunk in sizes.chunks(DType::F32.size() + q.dtype.size(), self.causal_from()) {
            let keys = |x: &CubeTensor| part(x, chunk.row, chunk.rows, 0, chunk.keys);
            let queries = folded(queries_of(&q, chunk), sizes);
            let scores = product(queries, transposed(keys(&k)), DType::F32);
            let (probabilities, _) =
                self.softmax(&scores, None, bounds.as_ref(), sizes, chunk, q.dtype);
            drop(scores);
            let result = product(probabilities, keys(&v), q.dtype);
            store(result, &y, sizes, chunk);
        }
        let mut saved = Saved::default();
        if tracked.contains(&true) {
            saved.inputs = [q, k, v].map(Some).into();
        }
        (y, saved)
    }

    /// With `P = softmax(s q k^T)` and `dP = dy v^T`: `dS = P (dP - sum of P dP)`, `dq = s dS k`, `dk = s dS^T q`,
    /// `dv = P^T dy`. Scores bounded by `c tanh(S / c)` have the further factor `1 - tanh(S / c)^2` in `dS`.
    fn backward(
        &self,
        saved: Saved,
        grad: CubeTensor,
        tracked: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let (q, k, v) = (saved.input(0), saved.input(1), saved.input(2));
        let dtype = q.dtype;
        let grad = cast(grad, dtype);
        let sizes = Sizes::of(q, k);
        let bounds = self.bounds(sizes, q);
        let chunks = sizes.chunks(2 * (DType::F32.size() + dtype.size()), self.causal_from());
        let all = chunks.iter().all(|chunk| chunk.queries == sizes.queries);
        // Keys and values add up over the chunks of their row, in f32 where there are some.
        let sum_type = if all { dtype } else { DType::F32 };
        let of_keys = [sizes.batch, sizes.keys, sizes.kv_heads, sizes.d];
        let dq = tracked[0]
            .then(|| positions_first(q, [sizes.batch, sizes.queries, sizes.heads, sizes.d], dtype));
        let dk = tracked[1].then(|| positions_first(k, of_keys, dtype));
        let dv = tracked[2].then(|| positions_first(v, of_keys, dtype));
        let mut sums: [Option<CubeTensor>; 2] = [None, None];
        for chunk in chunks {
            let keys = |x: &CubeTensor| part(x, chunk.row, chunk.rows, 0, chunk.keys);
            let queries = folded(queries_of(q, chunk), sizes);
            let grads = folded(queries_of(&grad, chunk), sizes);
            let scores = product(queries.clone(), transposed(keys(k)), DType::F32);
            let d_probabilities = product(grads.clone(), transposed(keys(v)), DType::F32);
            let (probabilities, d_scores) = self.softmax(
                &scores,
                Some(&d_probabilities),
                bounds.as_ref(),
                sizes,
                chunk,
                dtype,
            );
            drop((scores, d_probabilities));
            let d_scores = d_scores.expect("given that of the probabilities");
            if let Some(dq) = &dq {
                store(product(d_scores.clone(), keys(k), dtype), dq, sizes, chunk);
            }
            let last = chunk.query == 0;
            let of_row = Chunk {
                query: 0,
                queries: sizes.keys,
                ..chunk
            };
            let shared = Sizes {
                heads: sizes.kv_heads,
                ..sizes
            };
            let sides = [(&dk, d_scores, queries), (&dv, probabilities, grads)];
            for ((target, left, right), sum) in sides.into_iter().zip(&mut sums) {
                let Some(target) = target else { continue };
                let more = product(transposed(left), right, sum_type);
                let total = match sum.take() {
                    Some(sum) => add_to_first(sum, &more),
                    None => more,
                };
                match last {
                    true => store(total, target, shared, of_row),
                    false => *sum = Some(total),
                }
            }
        }
        vec![dq, dk, dv]
    }
}

/// Some rows of the batch, and some positions of them, of a tensor `[batch, heads, positions, d]`.
fn part(x: &CubeTensor, row: usize, rows: usize, position: usize, positions: usize) -> CubeTensor {
    let (heads, d) = (x.meta.shape()[1], x.meta.shape()[3]);
    let ranges = [
        row..row + rows,
        0..heads,
        position..position + positions,
        0..d,
    ];
    burn_cubecl::kernel::slice(x.clone(), &ranges)
}

/// The queries of a chunk, head after head.
fn queries_of(x: &CubeTensor, chunk: Chunk) -> CubeTensor {
    contiguous(part(x, chunk.row, chunk.rows, chunk.query, chunk.queries))
}

/// `[rows, heads, queries, d]` to `[rows, kv_heads, groups * queries, d]`.
fn folded(x: CubeTensor, sizes: Sizes) -> CubeTensor {
    let [rows, heads, queries, d] = [0, 1, 2, 3].map(|dim| x.meta.shape()[dim]);
    let groups = heads / sizes.kv_heads;
    reshaped(x, &[rows, sizes.kv_heads, groups * queries, d])
}

/// Writes `[rows, heads, positions, d]` without gaps to its place in a tensor of [`positions_first`].
fn store(x: CubeTensor, target: &CubeTensor, sizes: Sizes, chunk: Chunk) {
    let (heads, positions) = (sizes.heads, chunk.queries);
    let of_all = target.meta.shape()[2];
    let size = vector_size(&[&x, target], sizes.d);
    let d = sizes.d / size;
    let count = chunk.rows * heads * positions * d;
    // SAFETY: every unit looks first whether its place exists.
    unsafe {
        store_heads::launch_unchecked(
            &x.client,
            super::memory::cubes_for(&x.client, count),
            CubeDim::new_1d(super::memory::UNITS),
            size,
            buffer(&x),
            buffer(target),
            count,
            heads,
            positions,
            d,
            (chunk.row * of_all + chunk.query) * heads * d,
            of_all * heads * d,
            [elem(&x), elem(target)],
        );
    }
}

/// Adds `[rows, heads, some positions, d]` to the first positions of `[rows, heads, positions, d]`, both in `f32` and without
/// gaps, in the memory of the latter.
fn add_to_first(sum: CubeTensor, more: &CubeTensor) -> CubeTensor {
    let [all, d] = [2, 3].map(|dim| sum.meta.shape()[dim]);
    let some = more.meta.shape()[2];
    if all == some {
        return add(sum, more);
    }
    let size = vector_size(&[&sum, more], d);
    let count = more.meta.num_elements() / size;
    // SAFETY: every unit looks first whether its place exists.
    unsafe {
        add_positions::launch_unchecked(
            &sum.client,
            super::memory::cubes_for(&sum.client, count),
            CubeDim::new_1d(super::memory::UNITS),
            size,
            buffer(&sum),
            buffer(more),
            count,
            some * d / size,
            all * d / size,
        );
    }
    sum
}

#[cube(launch_unchecked)]
fn add_positions<N: Size>(
    sum: &mut [Vector<f32, N>],
    more: &[Vector<f32, N>],
    count: usize,
    of_more: usize,
    of_sum: usize,
) {
    if ABSOLUTE_POS < count {
        let at = ABSOLUTE_POS / of_more * of_sum + ABSOLUTE_POS % of_more;
        sum[at] += more[ABSOLUTE_POS];
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn store_heads<X: Float, Y: Float, N: Size>(
    x: &[Vector<X, N>],
    y: &mut [Vector<Y, N>],
    count: usize,
    heads: usize,
    positions: usize,
    d: usize,
    start: usize,
    stride: usize,
    #[define(X, Y)] _types: [ElemType; 2],
) {
    if ABSOLUTE_POS < count {
        let at = ABSOLUTE_POS % d;
        let rest = ABSOLUTE_POS / d;
        let position = rest % positions;
        let rest = rest / positions;
        let head = rest % heads;
        let row = rest / heads;
        let to = start + row * stride + (position * heads + head) * d + at;
        y[to] = Vector::cast_from(x[ABSOLUTE_POS]);
    }
}

/// What a kernel of [`softmax`] is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    causal: bool,
    windowed: bool,
    padded: bool,
    /// Every query has bounds of its own.
    ranged: bool,
    capped: bool,
    backward: bool,
}

/// A score that does not count.
const HIDDEN: f32 = -3.0e38;

/// The scores of one vector, where keys outside of the range do not count.
#[cube]
pub(super) fn seen<N: Size>(
    z: Vector<f32, N>,
    key: usize,
    from: usize,
    end: usize,
) -> Vector<f32, N> {
    let mut seen = z;
    let lanes = z.vector_size();
    if key < from || key + lanes > end {
        #[unroll]
        for lane in 0..lanes {
            if key + lane < from || key + lane >= end {
                seen.insert(lane, HIDDEN);
            }
        }
    }
    seen
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn softmax<P: Float, B: Numeric, N: Size>(
    scores: &[Vector<f32, N>],
    d_probabilities: &[Vector<f32, N>],
    bounds: &[B],
    probabilities: &mut [Vector<P, N>],
    d_scores: &mut [Vector<P, N>],
    count: usize,
    vectors: usize,
    queries: usize,
    of_row: usize,
    first_row: usize,
    first_query: usize,
    all_queries: usize,
    causal_from: usize,
    window: usize,
    scale: f32,
    cap: f32,
    #[comptime] kind: Kind,
    #[comptime] team: Team,
    #[define(P, B)] _types: [ElemType; 2],
) {
    let exists = CUBE_POS < count;
    let at = min(CUBE_POS, count - 1);
    let start = at * vectors;
    let unit = UNIT_POS as usize;
    let units = comptime!(team.units as usize);
    let lanes = Vector::<f32, N>::new(0.0f32).vector_size();

    let mut from = 0usize;
    let mut end = vectors * lanes;
    if comptime!(kind.causal) {
        let limit = causal_from + first_query + at % queries + 1;
        end = min(end, limit);
        if comptime!(kind.windowed) {
            from = limit - min(window, limit);
        }
    }
    if comptime!(kind.padded) {
        let row = first_row + at / of_row;
        from = max(from, usize::cast_from(bounds[2 * row]));
        end = min(end, usize::cast_from(bounds[2 * row + 1]));
    }
    if comptime!(kind.ranged) {
        let row = first_row + at / of_row;
        let query = row * all_queries + first_query + at % queries;
        from = usize::cast_from(bounds[2 * query]);
        end = usize::cast_from(bounds[2 * query + 1]);
    }

    let mut largest = Vector::<f32, N>::new(HIDDEN);
    let mut sums = Vector::<f32, N>::new(0.0f32);
    for i in range_stepped(unit, vectors, units) {
        let raw = scores[start + i] * Vector::new(scale);
        let z = seen::<N>(bounded::<N>(raw, cap, kind.capped), i * lanes, from, end);
        let larger = max(largest, z);
        sums = sums * (largest - larger).exp() + (z - larger).exp();
        largest = larger;
    }
    let mut own = largest.extract(0usize);
    #[unroll]
    for lane in 1..lanes {
        own = max(own, largest.extract(lane));
    }
    let top = cube_max(own, team);
    let total = cube_sum(
        Vector::vector_sum(sums * (largest - Vector::new(top)).exp()),
        team,
    );
    let mut factor = 1.0f32 / total;
    if from >= end {
        factor = 0.0f32;
    }

    let mut product = 0.0f32;
    if comptime!(kind.backward) {
        let mut products = Vector::<f32, N>::new(0.0f32);
        for i in range_stepped(unit, vectors, units) {
            let raw = scores[start + i] * Vector::new(scale);
            let z = seen::<N>(bounded::<N>(raw, cap, kind.capped), i * lanes, from, end);
            let p = (z - Vector::new(top)).exp() * Vector::new(factor);
            products += p * d_probabilities[start + i];
        }
        product = cube_sum(Vector::vector_sum(products), team);
    }

    if exists {
        for i in range_stepped(unit, vectors, units) {
            let raw = scores[start + i] * Vector::new(scale);
            let z = seen::<N>(bounded::<N>(raw, cap, kind.capped), i * lanes, from, end);
            let p = (z - Vector::new(top)).exp() * Vector::new(factor);
            probabilities[start + i] = Vector::cast_from(p);
            if comptime!(kind.backward) {
                let d = d_probabilities[start + i];
                let mut result = p * (d - Vector::new(product)) * Vector::new(scale);
                if comptime!(kind.capped) {
                    result *= slope_of::<N>(raw, cap);
                }
                d_scores[start + i] = Vector::cast_from(result);
            }
        }
    }
}
