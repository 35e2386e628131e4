use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::math::{dot, exp, max, sum, tanh_near_zero, vectorized};
use super::pool::{Buffer, zeroed};
use super::product::{Matrix, Mode, Target, product_here};
use super::{HostTensor, InMemory, Operation, Output, Saved, apply};
use crate::Scores;
use crate::attention_mask::Visible;

/// Queries, and keys, that are multiplied at a time: their scores stay in a core's cache.
const QUERIES: usize = 64;
const KEYS: usize = 256;

/// Attention in blocks (Dao et al., 2022, arXiv:2205.14135): of all scores, only the logarithm of each row's sum of
/// exponentials is kept, and the backward computes them again.
pub(crate) fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    visible: Option<Arc<Visible>>,
    scores: Scores,
) -> Tensor<4> {
    let dtype = q.dtype();
    let op = Attention {
        visible,
        scale: scores.scale as f32,
        softcap: scores.softcap.map(|cap| cap as f32),
    };
    let inputs = [q.into_dispatch(), k.into_dispatch(), v.into_dispatch()];
    apply(op, inputs, dtype)
}

#[derive(Clone, Debug)]
struct Attention {
    /// None: every query sees every key.
    visible: Option<Arc<Visible>>,
    scale: f32,
    softcap: Option<f32>,
}

/// The sizes of an attention, and who sees what.
#[derive(Clone, Copy)]
struct Shape<'a> {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    queries: usize,
    keys: usize,
    d: usize,
    visible: Option<&'a Visible>,
}

/// Some queries, the keys that any of them sees, and their scores.
struct Block {
    queries: Range<usize>,
    keys: Range<usize>,
}

impl Shape<'_> {
    /// The keys that a query of this row of the batch sees.
    fn seen(&self, row: usize, query: usize) -> Range<usize> {
        match self.visible {
            Some(visible) => visible.range(row, query, self.keys),
            None => 0..self.keys,
        }
    }

    /// The blocks that hold a visible score, queries first.
    fn blocks(self, row: usize) -> impl Iterator<Item = Block> {
        (0..self.queries).step_by(QUERIES).flat_map(move |first| {
            let queries = first..self.queries.min(first + QUERIES);
            let seen = queries.clone().map(|query| self.seen(row, query));
            let seen = seen.filter(|seen| !seen.is_empty());
            let union = seen.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
            let union = union.unwrap_or(0..0);
            union.clone().step_by(KEYS).map(move |key| Block {
                queries: queries.clone(),
                keys: key..union.end.min(key + KEYS),
            })
        })
    }

    /// The columns of a block's scores that a query sees.
    fn columns(&self, row: usize, query: usize, block: &Block) -> Range<usize> {
        let seen = self.seen(row, query);
        let from = seen.start.clamp(block.keys.start, block.keys.end);
        let to = seen.end.clamp(from, block.keys.end);
        from - block.keys.start..to - block.keys.start
    }
}

/// One head of a tensor `[batch, heads, positions, d]`, as a matrix of some of its positions.
fn head<'a>(x: &'a HostTensor, row: usize, head: usize, positions: Range<usize>) -> Matrix<'a> {
    let [_, _, _, d] = x.dims::<4>();
    let strides = x.strides();
    let at = row * strides[0] + head * strides[1] + positions.start * strides[2];
    Matrix::new(
        &x.view()[at..],
        [positions.len(), d],
        [strides[2], strides[3]],
    )
}

/// Memory `[batch, positions, heads, d]` of which each task writes its own heads.
struct Heads {
    start: *mut f32,
    heads: usize,
    positions: usize,
    d: usize,
}

// SAFETY: tasks write different heads (see the uses).
unsafe impl Sync for Heads {}

impl Heads {
    fn new(numbers: &mut [f32], positions: usize, heads: usize, d: usize) -> Self {
        Self {
            start: numbers.as_mut_ptr(),
            heads,
            positions,
            d,
        }
    }

    /// # Safety
    /// Only one task may use this head of this row, and the head, row and position must be inside the memory.
    unsafe fn at(&self, row: usize, head: usize, position: usize) -> Target {
        let offset = ((row * self.positions + position) * self.heads + head) * self.d;
        // SAFETY: inside by the caller's word, who also keeps others away.
        unsafe { Target::strided(self.start.add(offset), self.heads * self.d) }
    }

    /// # Safety
    /// As [`at`](Self::at).
    #[allow(
        clippy::mut_from_ref,
        reason = "the tasks share the memory, not the heads"
    )]
    unsafe fn row(&self, row: usize, head: usize, position: usize) -> &mut [f32] {
        let offset = ((row * self.positions + position) * self.heads + head) * self.d;
        // SAFETY: inside by the caller's word, who also keeps others away.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), self.d) }
    }
}

impl Attention {
    fn shape(&self, q: &HostTensor, k: &HostTensor) -> Shape<'_> {
        let [batch, heads, queries, d] = q.dims();
        let [_, kv_heads, keys, _] = k.dims();
        Shape {
            batch,
            heads,
            kv_heads,
            queries,
            keys,
            d,
            visible: self.visible.as_deref(),
        }
    }
}

impl Operation<InMemory> for Attention {
    fn forward(&self, inputs: &[HostTensor], tracked: &[bool]) -> (Output, Saved) {
        let inputs = [0, 1, 2].map(|index| inputs[index].clone().contiguous_rows());
        let [q, k, v] = &inputs;
        let s = self.shape(q, k);
        let mut y = zeroed(s.batch * s.queries * s.heads * s.d);
        let mut log_sums = zeroed(s.batch * s.heads * s.queries);
        let out = Heads::new(&mut y, s.queries, s.heads, s.d);
        log_sums
            .par_chunks_mut(s.queries.max(1))
            .enumerate()
            .for_each(|(task, log_sums)| {
                let (row, of) = (task / s.heads, task % s.heads);
                let kv = of / (s.heads / s.kv_heads);
                let mut scores = vec![0.0; QUERIES * KEYS];
                let mut maxima = vec![f32::NEG_INFINITY; s.queries];
                // Until the end, the sums themselves.
                log_sums.fill(0.0);
                for block in s.blocks(row) {
                    let width = block.keys.len();
                    let scores = &mut scores[..block.queries.len() * width];
                    let (q, k) = (
                        head(q, row, of, block.queries.clone()),
                        head(k, row, kv, block.keys.clone()),
                    );
                    // SAFETY: `scores` is this task's own and as large as the product.
                    unsafe {
                        let target = Target::dense(scores, width);
                        product_here(&target, q, k.transposed(), self.scale, Mode::Set);
                    }
                    vectorized(
                        #[inline(always)]
                        || {
                            for (query, scores) in
                                block.queries.clone().zip(scores.chunks_exact_mut(width))
                            {
                                let seen = s.columns(row, query, &block);
                                if let Some(cap) = self.softcap {
                                    bound(&mut scores[seen.clone()], cap);
                                }
                                // SAFETY: this task alone has the head; the query is one of the tensor's.
                                let y = unsafe { out.row(row, of, query) };
                                let sums = (&mut maxima[query], &mut log_sums[query]);
                                add_to_softmax(scores, seen, sums, y);
                            }
                        },
                    );
                    let (p, v) = (
                        Matrix::dense(scores, block.queries.len(), width),
                        head(v, row, kv, block.keys.clone()),
                    );
                    // SAFETY: as above, for all queries of the block.
                    unsafe {
                        let target = out.at(row, of, block.queries.start);
                        product_here(&target, p, v, 1.0, Mode::Add);
                    }
                }
                for query in 0..s.queries {
                    let total = log_sums[query];
                    // A query that sees nothing has no value.
                    let inverse = if total > 0.0 || total.is_nan() {
                        1.0 / total
                    } else {
                        0.0
                    };
                    // SAFETY: as above.
                    let y = unsafe { out.row(row, of, query) };
                    y.iter_mut().for_each(|y| *y *= inverse);
                    log_sums[query] = maxima[query] + total.ln();
                }
            });
        let output = Output::new(y, &[s.batch, s.queries, s.heads, s.d]).swap_dims(1, 2);
        let mut saved = Saved::default();
        if tracked.contains(&true) {
            saved.inputs = inputs.map(Some).into();
            saved.keep_output = true;
            saved.extra = vec![Arc::new(log_sums)];
        }
        (output, saved)
    }

    /// With `P = softmax(s q k^T)` and `D_i = sum_j dy_ij y_ij`:
    /// `dS = P (dy v^T - D)`, `dq = s dS k`, `dk = s dS^T q`, `dv = P^T dy`. Scores bounded by `c tanh(S / c)` have the
    /// further factor `1 - tanh(S / c)^2` in `dS`.
    fn backward(&self, saved: Saved, grad: HostTensor, tracked: &[bool]) -> Vec<Option<Output>> {
        let (q, k, v) = (saved.input(0), saved.input(1), saved.input(2));
        let y = saved
            .output
            .clone()
            .expect("asked for by the forward")
            .contiguous_rows();
        let grad = grad.contiguous_rows();
        let s = self.shape(q, k);
        let log_sums = &saved.extra[0];
        let sizes = [
            (s.queries, s.heads),
            (s.keys, s.kv_heads),
            (s.keys, s.kv_heads),
        ];
        let mut memory: Vec<Buffer> = (sizes.iter().zip(tracked))
            .map(|(&(positions, heads), &tracked)| {
                zeroed(if tracked {
                    s.batch * positions * heads * s.d
                } else {
                    0
                })
            })
            .collect();
        {
            let mut heads = memory.iter_mut().zip(sizes).zip(tracked);
            let mut next = || {
                let ((numbers, (positions, heads)), tracked) = heads.next()?;
                tracked.then(|| Heads::new(numbers, positions, heads, s.d))
            };
            let (dq, dk, dv) = (next(), next(), next());
            // All heads that share keys on one task: their gradients add up in the same place.
            (0..s.batch * s.kv_heads).into_par_iter().for_each(|task| {
                let (row, kv) = (task / s.kv_heads, task % s.kv_heads);
                let groups = s.heads / s.kv_heads;
                let mut p = vec![0.0; QUERIES * KEYS];
                let mut ds = vec![0.0; QUERIES * KEYS];
                let mut deltas = [0.0; QUERIES];
                for of in kv * groups..(kv + 1) * groups {
                    for block in s.blocks(row) {
                        let (count, width) = (block.queries.len(), block.keys.len());
                        let (p, ds) = (&mut p[..count * width], &mut ds[..count * width]);
                        let (q, k, v) = (
                            head(q, row, of, block.queries.clone()),
                            head(k, row, kv, block.keys.clone()),
                            head(v, row, kv, block.keys.clone()),
                        );
                        let (g, y) = (
                            head(&grad, row, of, block.queries.clone()),
                            head(&y, row, of, block.queries.clone()),
                        );
                        // SAFETY: p and ds are this task's own and as large as the products.
                        unsafe {
                            product_here(
                                &Target::dense(p, width),
                                q,
                                k.transposed(),
                                self.scale,
                                Mode::Set,
                            );
                            product_here(
                                &Target::dense(ds, width),
                                g,
                                v.transposed(),
                                1.0,
                                Mode::Set,
                            );
                        }
                        vectorized(
                            #[inline(always)]
                            || {
                                for (i, query) in block.queries.clone().enumerate() {
                                    deltas[i] = dot(g.row(i), y.row(i));
                                    let seen = s.columns(row, query, &block);
                                    let log_sum =
                                        log_sums[(row * s.heads + of) * s.queries + query];
                                    let p = &mut p[i * width..][..width];
                                    let ds = &mut ds[i * width..][..width];
                                    let statistics = (log_sum, deltas[i]);
                                    score_gradient(p, ds, seen, statistics, self.softcap);
                                }
                            },
                        );
                        let (p, ds) = (
                            Matrix::dense(p, count, width),
                            Matrix::dense(ds, count, width),
                        );
                        // SAFETY: this task alone has row `row` of the key head `kv` and of the query heads that share it;
                        // positions are the tensors' own.
                        unsafe {
                            if let Some(dq) = &dq {
                                let target = dq.at(row, of, block.queries.start);
                                product_here(&target, ds, k, self.scale, Mode::Add);
                            }
                            if let Some(dk) = &dk {
                                let target = dk.at(row, kv, block.keys.start);
                                product_here(&target, ds.transposed(), q, self.scale, Mode::Add);
                            }
                            if let Some(dv) = &dv {
                                let target = dv.at(row, kv, block.keys.start);
                                product_here(&target, p.transposed(), g, 1.0, Mode::Add);
                            }
                        }
                    }
                }
            });
        }
        (memory.into_iter().zip(sizes).zip(tracked))
            .map(|((numbers, (positions, heads)), tracked)| {
                tracked.then(|| {
                    Output::new(numbers, &[s.batch, positions, heads, s.d]).swap_dims(1, 2)
                })
            })
            .collect()
    }
}

/// Turns a query's next scores into exponentials, after bringing what it has so far to the new maximum.
///
/// `sums` are the maximum of its scores and the sum of their exponentials, `y` the sum of values not yet divided by it.
#[inline(always)]
fn add_to_softmax(
    scores: &mut [f32],
    seen: Range<usize>,
    (maximum, total): (&mut f32, &mut f32),
    y: &mut [f32],
) {
    scores[..seen.start].fill(0.0);
    scores[seen.end..].fill(0.0);
    let scores = &mut scores[seen];
    if scores.is_empty() {
        return;
    }
    let here = max(scores);
    if here > *maximum || here.is_nan() {
        let shrink = exp(*maximum - here);
        y.iter_mut().for_each(|y| *y *= shrink);
        *total *= shrink;
        *maximum = here;
    }
    let maximum = *maximum;
    scores
        .iter_mut()
        .for_each(|score| *score = exp(*score - maximum));
    *total += sum(scores);
}

/// `cap tanh(score / cap)`
#[inline(always)]
fn bound(scores: &mut [f32], cap: f32) {
    let inverse = 1.0 / cap;
    scores
        .iter_mut()
        .for_each(|score| *score = cap * tanh_near_zero(*score * inverse));
}

/// Turns scores `p` into probabilities, and the gradients of probabilities `ds` into those of the scores.
#[inline(always)]
fn score_gradient(
    p: &mut [f32],
    ds: &mut [f32],
    seen: Range<usize>,
    (log_sum, delta): (f32, f32),
    softcap: Option<f32>,
) {
    for hidden in [0..seen.start, seen.end..p.len()] {
        p[hidden.clone()].fill(0.0);
        ds[hidden].fill(0.0);
    }
    let pairs = p[seen.clone()].iter_mut().zip(&mut ds[seen]);
    match softcap {
        None => pairs.for_each(|(p, ds)| {
            *p = exp(*p - log_sum);
            *ds = *p * (*ds - delta);
        }),
        Some(cap) => {
            let inverse = 1.0 / cap;
            pairs.for_each(|(p, ds)| {
                let t = tanh_near_zero(*p * inverse);
                *p = exp(cap * t - log_sum);
                *ds = *p * (*ds - delta) * (1.0 - t * t);
            });
        }
    }
}
