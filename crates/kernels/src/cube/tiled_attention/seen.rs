//! What the three kernels have in common: sizes, and who sees whom.

use cubecl::prelude::*;

use super::super::batched_attention::seen;
use super::super::softcap::bounded;
use super::tile::*;

/// The logarithm of the sum of a query that sees no key: its exponentials are 0.
pub(super) const INFINITE: f32 = 3.0e38;

/// The numbers of an attention that may change without compiling again.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) heads: u32,
    pub(super) kv_heads: u32,
    pub(super) queries: u32,
    pub(super) keys: u32,
    /// The position of the first query, under a causal mask.
    pub(super) causal_from: u32,
    pub(super) window: u32,
    pub(super) scale: f32,
    pub(super) cap: f32,
    pub(super) q: Distances,
    pub(super) k: Distances,
    pub(super) v: Distances,
    pub(super) grad: Distances,
}

/// The keys that a query sees, or the queries that see a key: from one to before another.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Range {
    pub(super) from: u32,
    pub(super) end: u32,
}

/// The keys of a row of the batch.
#[cube]
pub(super) fn keys_of_row(row: u32, bounds: &[u32], size: &Sizes, #[comptime] kind: Kind) -> Range {
    let mut from = 0u32;
    let mut end = size.keys;
    if comptime!(kind.padded && !kind.ranged) {
        let at = (2 * row) as usize;
        from = bounds[at];
        end = min(end, bounds[at + 1]);
    }
    Range { from, end }
}

#[cube]
pub(super) fn keys_of(
    query: u32,
    row: u32,
    bounds: &[u32],
    size: &Sizes,
    #[comptime] kind: Kind,
) -> Range {
    let mut from = 0u32;
    let mut end = size.keys;
    if comptime!(kind.ranged) {
        let at = (2 * (row * size.queries + min(query, size.queries - 1))) as usize;
        from = bounds[at];
        end = bounds[at + 1];
    } else {
        if comptime!(kind.causal) {
            let limit = size.causal_from + query + 1;
            end = min(end, limit);
            if comptime!(kind.windowed) {
                from = limit - min(size.window, limit);
            }
        }
        if comptime!(kind.padded) {
            let at = (2 * row) as usize;
            from = max(from, bounds[at]);
            end = min(end, bounds[at + 1]);
        }
    }
    if query >= size.queries {
        end = 0u32;
    }
    Range { from, end }
}

/// The keys that any of the cube's queries may see.
#[cube]
pub(super) fn keys_of_all(
    first: u32,
    row: u32,
    bounds: &[u32],
    size: &Sizes,
    #[comptime] plan: Plan,
) -> Range {
    let kind = comptime!(plan.kind);
    let mut from = 0u32;
    let mut end = size.keys;
    if comptime!(kind.causal) {
        let last = min(first + comptime!(plan.rows() as u32), size.queries);
        end = min(end, size.causal_from + last);
        if comptime!(kind.windowed) {
            let limit = size.causal_from + first + 1;
            from = limit - min(size.window, limit);
        }
    }
    if comptime!(kind.padded && !kind.ranged) {
        let at = (2 * row) as usize;
        from = max(from, bounds[at]);
        end = min(end, bounds[at + 1]);
    }
    Range { from, end }
}

/// The first of the last queries.
#[cube]
pub(super) fn last_block(size: &Sizes, #[comptime] plan: Plan) -> u32 {
    (size.queries - 1) / comptime!(plan.rows() as u32) * comptime!(plan.rows() as u32)
}

/// The sum over the units that share a row.
#[cube]
pub(super) fn sum_of_row(value: f32, #[comptime] plan: Plan) -> f32 {
    let mut sum = value;
    #[unroll]
    for i in 0..comptime!(plan.planes.sharers().ilog2()) {
        sum += plane_shuffle_xor(sum, comptime!((plan.side() << i) as u32).runtime());
    }
    sum
}

/// A four of scores, as they are in the exponent, and before they are bounded.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Four<N: Size> {
    pub(super) raw: Vector<f32, N>,
    pub(super) z: Vector<f32, N>,
}

#[cube]
pub(super) fn four<N: Size>(
    products: Vector<f32, N>,
    first: u32,
    range: &Range,
    size: &Sizes,
    #[comptime] kind: Kind,
) -> Four<N> {
    let raw = products * Vector::new(size.scale);
    let z = seen::<N>(
        bounded::<N>(raw, size.cap, kind.capped),
        first as usize,
        range.from as usize,
        range.end as usize,
    );
    Four::<N> { raw, z }
}

/// Where the keys end that any of the plane's queries may see.
#[cube]
pub(super) fn end_of_plane(
    first: u32,
    end: u32,
    place: &Place,
    size: &Sizes,
    #[comptime] plan: Plan,
) -> u32 {
    if comptime!(plan.kind.causal) {
        let last = first + place.plane_row + comptime!(plan.of_plane() as u32);
        min(end, size.causal_from + last)
    } else {
        end
    }
}

/// From the statistics of one head to those of the next: of whole tiles and cubes.
#[cube]
pub(super) fn statistics(size: &Sizes, #[comptime] plan: Plan) -> u32 {
    let rows = comptime!(plan.most_rows() as u32);
    size.queries.div_ceil(rows) * rows
}
