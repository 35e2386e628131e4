//! The three kernels.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::super::batched_attention::seen;
use super::super::softcap::{bounded, slope_of};
use super::tile::*;

/// A score that does not count.
const HIDDEN: f32 = -3.0e38;

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

/// The keys that a query sees: from one to before another.
#[derive(CubeType, Clone, Copy)]
struct Keys {
    from: u32,
    end: u32,
}

#[cube]
fn keys_of(query: u32, row: u32, bounds: &[u32], size: &Sizes, #[comptime] kind: Kind) -> Keys {
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
    Keys { from, end }
}

/// The keys that any of the cube's queries may see.
#[cube]
fn keys_of_all(first: u32, row: u32, bounds: &[u32], size: &Sizes, #[comptime] plan: Plan) -> Keys {
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
    Keys { from, end }
}

/// The first of the last queries.
#[cube]
fn last_block(size: &Sizes, #[comptime] plan: Plan) -> u32 {
    (size.queries - 1) / comptime!(plan.rows() as u32) * comptime!(plan.rows() as u32)
}

/// The largest number of the units that share a row.
#[cube]
fn largest_of_row(value: f32, #[comptime] plan: Plan) -> f32 {
    let mut largest = value;
    #[unroll]
    for i in 0..comptime!(plan.planes.sharers().ilog2()) {
        largest = max(
            largest,
            plane_shuffle_xor(largest, comptime!((plan.side() << i) as u32).runtime()),
        );
    }
    largest
}

/// The sum over the units that share a row.
#[cube]
fn sum_of_row(value: f32, #[comptime] plan: Plan) -> f32 {
    let mut sum = value;
    #[unroll]
    for i in 0..comptime!(plan.planes.sharers().ilog2()) {
        sum += plane_shuffle_xor(sum, comptime!((plan.side() << i) as u32).runtime());
    }
    sum
}

/// The scores of a four of keys, as they are in the exponent, and before they are bounded.
#[derive(CubeType, Clone, Copy)]
struct Four<N: Size> {
    raw: Vector<f32, N>,
    z: Vector<f32, N>,
}

#[cube]
fn four<N: Size>(
    products: Vector<f32, N>,
    key: u32,
    keys: &Keys,
    size: &Sizes,
    #[comptime] kind: Kind,
) -> Four<N> {
    let raw = products * Vector::new(size.scale);
    let z = seen::<N>(
        bounded::<N>(raw, size.cap, kind.capped),
        key as usize,
        keys.from as usize,
        keys.end as usize,
    );
    Four::<N> { raw, z }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn forward<E: Float, N: Size>(
    q: &[Vector<u32, N>],
    k: &[Vector<u32, N>],
    v: &[Vector<u32, N>],
    bounds: &[u32],
    y: &mut [Vector<E, N>],
    log_sums: &mut [f32],
    size: Sizes,
    #[comptime] plan: Plan,
    #[define(E)] _type: ElemType,
) {
    let kind = comptime!(plan.kind);
    let (row, head) = (CUBE_POS_Y / size.heads, CUBE_POS_Y % size.heads);
    let kv_head = head / (size.heads / size.kv_heads);
    // The last queries have the most keys: they come first.
    let first = last_block(&size, plan) - CUBE_POS_X * comptime!(plan.rows() as u32);
    let place = place(plan);
    let query = first + place.plane_row + place.own_row;

    let mut tiles = Shared::<[Vector<u32, N>]>::new_slice(comptime!(plan.tiles()));
    let mut scores = Shared::<[Vector<f32, N>]>::new_slice(comptime!(plan.scores()));
    let mut weights = Shared::<[Vector<E, N>]>::new_slice(comptime!(plan.weights()));

    let q_rows = rows_of(row, head, &size.q, size.queries);
    let queries = own_sides::<E, N>(q, &q_rows, first, &mut tiles, &place, plan);

    let keys = keys_of(query, row, bounds, &size, kind);
    let all = keys_of_all(first, row, bounds, &size, plan);
    let columns = comptime!(COLUMNS as u32);
    let begin = all.from / columns * columns;
    let k_rows = rows_of(row, kv_head, &size.k, size.keys);
    let v_rows = rows_of(row, kv_head, &size.v, size.keys);
    let mine = own_scores(&place, plan);
    let own_column = place.part * comptime!((plan.own() * 4) as u32);

    // How large the scores are, and the sum of their exponentials.
    let mut top = comptime!(HIDDEN).runtime();
    let mut sum = 0.0f32;
    let mut held = hold::<N>(COLUMNS, plan);
    fetch::<N>(k, &k_rows, begin, &mut held, COLUMNS, plan);
    for at in range_stepped(begin, all.end, columns) {
        put::<N>(&held, &mut tiles, 0usize, COLUMNS, plan);
        sync_cube();
        // The next ones are on their way while these are multiplied.
        fetch::<N>(k, &k_rows, at + columns, &mut held, COLUMNS, plan);
        #[unroll]
        for block in 0..comptime!(plan.blocks()) {
            score::<E, N>(&queries, &tiles, 0usize, block, &mut scores, &place, plan);
            sync_plane();
            let key = at + own_column + comptime!((block * plan.side()) as u32);
            let mut z = Array::<Vector<f32, N>>::new(comptime!(plan.own()));
            let mut largest = Vector::<f32, N>::new(HIDDEN);
            #[unroll]
            for i in 0..comptime!(plan.own()) {
                let products = scores[(mine + comptime!(i as u32)) as usize];
                z[i] = four::<N>(
                    products,
                    key + comptime!((4 * i) as u32),
                    &keys,
                    &size,
                    kind,
                )
                .z;
                largest = max(largest, z[i]);
            }
            let mut larger = top;
            #[unroll]
            for lane in 0..4usize {
                larger = max(larger, largest.extract(lane));
            }
            let mut more = Vector::<f32, N>::new(0.0f32);
            #[unroll]
            for i in 0..comptime!(plan.own()) {
                more += (z[i] - Vector::new(larger)).exp();
            }
            sum = sum * (top - larger).exp() + Vector::vector_sum(more);
            top = larger;
            sync_plane();
        }
        sync_cube();
    }
    let of_row = largest_of_row(top, plan);
    let total = sum_of_row(sum * (top - of_row).exp(), plan);
    // Of a query that sees no key, every exponential below is 0.
    let mut log_sum = 3.0e38f32;
    if keys.from < keys.end {
        log_sum = of_row + total.ln();
    }
    let exists = query < size.queries;
    if exists && place.part == 0 {
        log_sums[(CUBE_POS_Y * size.queries + query) as usize] = log_sum;
    }

    let result = sums(plan);
    let own_weight = own_weights(&place, plan);
    let mut held_k = hold::<N>(COLUMNS, plan);
    fetch::<N>(k, &k_rows, begin, &mut held_k, COLUMNS, plan);
    let mut held_v = hold::<N>(COLUMNS, plan);
    fetch::<N>(v, &v_rows, begin, &mut held_v, COLUMNS, plan);
    for at in range_stepped(begin, all.end, columns) {
        put::<N>(&held_k, &mut tiles, 0usize, COLUMNS, plan);
        put::<N>(&held_v, &mut tiles, comptime!(plan.tile()), COLUMNS, plan);
        sync_cube();
        fetch::<N>(k, &k_rows, at + columns, &mut held_k, COLUMNS, plan);
        fetch::<N>(v, &v_rows, at + columns, &mut held_v, COLUMNS, plan);
        #[unroll]
        for block in 0..comptime!(plan.blocks()) {
            score::<E, N>(&queries, &tiles, 0usize, block, &mut scores, &place, plan);
            sync_plane();
            let key = at + own_column + comptime!((block * plan.side()) as u32);
            #[unroll]
            for i in 0..comptime!(plan.own()) {
                let products = scores[(mine + comptime!(i as u32)) as usize];
                let z = four::<N>(
                    products,
                    key + comptime!((4 * i) as u32),
                    &keys,
                    &size,
                    kind,
                )
                .z;
                let p = (z - Vector::new(log_sum)).exp();
                weights[(own_weight + comptime!(i as u32)) as usize] = Vector::cast_from(p);
            }
            sync_plane();
            weigh::<E, N>(
                &weights,
                &tiles,
                comptime!(plan.tile()),
                block,
                &result,
                &place,
                plan,
            );
        }
        sync_cube();
    }
    let fours = comptime!((plan.d / 4) as u32);
    let to = ((row * size.queries + query) * size.heads + head) * fours;
    write::<E, N>(&result, &mut scores, y, to, exists, &place, plan);
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn backward_queries<E: Float, N: Size>(
    q: &[Vector<u32, N>],
    k: &[Vector<u32, N>],
    v: &[Vector<u32, N>],
    grad: &[Vector<u32, N>],
    y_numbers: &[Vector<E, N>],
    grad_numbers: &[Vector<E, N>],
    bounds: &[u32],
    log_sums: &[f32],
    deltas: &mut [f32],
    dq: &mut [Vector<E, N>],
    size: Sizes,
    #[comptime] plan: Plan,
    #[define(E)] _type: ElemType,
) {
    let kind = comptime!(plan.kind);
    let (row, head) = (CUBE_POS_Y / size.heads, CUBE_POS_Y % size.heads);
    let kv_head = head / (size.heads / size.kv_heads);
    let first = last_block(&size, plan) - CUBE_POS_X * comptime!(plan.rows() as u32);
    let place = place(plan);
    let query = first + place.plane_row + place.own_row;
    let exists = query < size.queries;

    let mut tiles = Shared::<[Vector<u32, N>]>::new_slice(comptime!(plan.tiles()));
    let mut scores = Shared::<[Vector<f32, N>]>::new_slice(comptime!(plan.scores()));
    let mut weights = Shared::<[Vector<E, N>]>::new_slice(comptime!(plan.weights()));

    let q_rows = rows_of(row, head, &size.q, size.queries);
    let grad_rows = rows_of(row, head, &size.grad, size.queries);
    let queries = own_sides::<E, N>(q, &q_rows, first, &mut tiles, &place, plan);
    let grads = own_sides::<E, N>(grad, &grad_rows, first, &mut tiles, &place, plan);

    // The sum over the keys of each probability and its gradient is that of the result and its own.
    let known = min(query, size.queries - 1);
    let fours = comptime!(plan.d / 4 / plan.planes.sharers());
    let part = place.part * comptime!(fours as u32);
    let y_at =
        ((row * size.queries + known) * size.heads + head) * comptime!((plan.d / 4) as u32) + part;
    let grad_at = (grad_rows.start + known * grad_rows.position) * 2 + part;
    let mut products = Vector::<f32, N>::new(0.0f32);
    for i in 0..comptime!(fours as u32) {
        let y = Vector::<f32, N>::cast_from(y_numbers[(y_at + i) as usize]);
        products += y * Vector::<f32, N>::cast_from(grad_numbers[(grad_at + i) as usize]);
    }
    let delta = sum_of_row(Vector::vector_sum(products), plan);
    let of_query = (CUBE_POS_Y * size.queries + known) as usize;
    let log_sum = log_sums[of_query];
    if exists && place.part == 0 {
        deltas[of_query] = delta;
    }

    let keys = keys_of(query, row, bounds, &size, kind);
    let all = keys_of_all(first, row, bounds, &size, plan);
    let columns = comptime!(COLUMNS as u32);
    let begin = all.from / columns * columns;
    let k_rows = rows_of(row, kv_head, &size.k, size.keys);
    let v_rows = rows_of(row, kv_head, &size.v, size.keys);
    let mine = own_scores(&place, plan);
    let own_weight = own_weights(&place, plan);
    let own_column = place.part * comptime!((plan.own() * 4) as u32);
    let result = sums(plan);
    let mut held_k = hold::<N>(COLUMNS, plan);
    fetch::<N>(k, &k_rows, begin, &mut held_k, COLUMNS, plan);
    let mut held_v = hold::<N>(COLUMNS, plan);
    fetch::<N>(v, &v_rows, begin, &mut held_v, COLUMNS, plan);
    for at in range_stepped(begin, all.end, columns) {
        put::<N>(&held_k, &mut tiles, 0usize, COLUMNS, plan);
        put::<N>(&held_v, &mut tiles, comptime!(plan.tile()), COLUMNS, plan);
        sync_cube();
        fetch::<N>(k, &k_rows, at + columns, &mut held_k, COLUMNS, plan);
        fetch::<N>(v, &v_rows, at + columns, &mut held_v, COLUMNS, plan);
        #[unroll]
        for block in 0..comptime!(plan.blocks()) {
            score::<E, N>(&queries, &tiles, 0usize, block, &mut scores, &place, plan);
            sync_plane();
            let key = at + own_column + comptime!((block * plan.side()) as u32);
            let mut slopes = Array::<Vector<f32, N>>::new(comptime!(plan.own()));
            #[unroll]
            for i in 0..comptime!(plan.own()) {
                let products = scores[(mine + comptime!(i as u32)) as usize];
                let four = four::<N>(
                    products,
                    key + comptime!((4 * i) as u32),
                    &keys,
                    &size,
                    kind,
                );
                let mut slope = (four.z - Vector::new(log_sum)).exp() * Vector::new(size.scale);
                if comptime!(kind.capped) {
                    slope *= slope_of::<N>(four.raw, size.cap);
                }
                slopes[i] = slope;
            }
            sync_plane();
            score::<E, N>(
                &grads,
                &tiles,
                comptime!(plan.tile()),
                block,
                &mut scores,
                &place,
                plan,
            );
            sync_plane();
            #[unroll]
            for i in 0..comptime!(plan.own()) {
                let d = scores[(mine + comptime!(i as u32)) as usize] - Vector::new(delta);
                weights[(own_weight + comptime!(i as u32)) as usize] =
                    Vector::cast_from(slopes[i] * d);
            }
            sync_plane();
            weigh::<E, N>(&weights, &tiles, 0usize, block, &result, &place, plan);
        }
        sync_cube();
    }
    let to = ((row * size.queries + query) * size.heads + head) * comptime!((plan.d / 4) as u32);
    write::<E, N>(&result, &mut scores, dq, to, exists, &place, plan);
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn backward_keys<E: Float, N: Size>(
    q: &[Vector<u32, N>],
    k: &[Vector<u32, N>],
    v: &[Vector<u32, N>],
    grad: &[Vector<u32, N>],
    bounds: &[u32],
    log_sums: &[f32],
    deltas: &[f32],
    dk: &mut [Vector<E, N>],
    dv: &mut [Vector<E, N>],
    size: Sizes,
    #[comptime] plan: Plan,
    #[define(E)] _type: ElemType,
) {
    let kind = comptime!(plan.kind);
    let (row, kv_head) = (CUBE_POS_Y / size.kv_heads, CUBE_POS_Y % size.kv_heads);
    let groups = size.heads / size.kv_heads;
    // The first keys have the most queries.
    let first = CUBE_POS_X * comptime!(plan.rows() as u32);
    let place = place(plan);
    let key = first + place.plane_row + place.own_row;
    let exists = key < size.keys;

    let mut tiles = Shared::<[Vector<u32, N>]>::new_slice(comptime!(plan.tiles()));
    let mut scores = Shared::<[Vector<f32, N>]>::new_slice(comptime!(plan.scores()));
    let mut weights = Shared::<[Vector<E, N>]>::new_slice(comptime!(plan.weights()));
    let mut tile_logs = Shared::<[f32]>::new_slice(COLUMNS);
    let mut tile_deltas = Shared::<[f32]>::new_slice(COLUMNS);
    let mut tile_from = Shared::<[u32]>::new_slice(COLUMNS);
    let mut tile_end = Shared::<[u32]>::new_slice(COLUMNS);

    let k_rows = rows_of(row, kv_head, &size.k, size.keys);
    let v_rows = rows_of(row, kv_head, &size.v, size.keys);
    let keys = own_sides::<E, N>(k, &k_rows, first, &mut tiles, &place, plan);
    let values = own_sides::<E, N>(v, &v_rows, first, &mut tiles, &place, plan);

    // The queries that may see any of the cube's keys.
    let columns = comptime!(COLUMNS as u32);
    let mut begin = 0u32;
    let mut end = size.queries;
    if comptime!(kind.causal) {
        begin = (first - min(first, size.causal_from)) / columns * columns;
        if comptime!(kind.windowed) {
            let last = min(first + comptime!(plan.rows() as u32), size.keys) + size.window - 1;
            end = min(end, last - min(last, size.causal_from));
        }
    }

    let mine = own_scores(&place, plan);
    let own_weight = own_weights(&place, plan);
    let own_column = place.part * comptime!((plan.own() * 4) as u32);
    let key_sums = sums(plan);
    let value_sums = sums(plan);
    for group in 0..groups {
        let head = kv_head * groups + group;
        let q_rows = rows_of(row, head, &size.q, size.queries);
        let grad_rows = rows_of(row, head, &size.grad, size.queries);
        let of_head = (row * size.heads + head) * size.queries;
        let mut held_q = hold::<N>(COLUMNS, plan);
        fetch::<N>(q, &q_rows, begin, &mut held_q, COLUMNS, plan);
        let mut held_grad = hold::<N>(COLUMNS, plan);
        fetch::<N>(grad, &grad_rows, begin, &mut held_grad, COLUMNS, plan);
        for at in range_stepped(begin, end, columns) {
            put::<N>(&held_q, &mut tiles, 0usize, COLUMNS, plan);
            put::<N>(
                &held_grad,
                &mut tiles,
                comptime!(plan.tile()),
                COLUMNS,
                plan,
            );
            if UNIT_POS_X < columns {
                let unit = UNIT_POS_X as usize;
                let query = at + UNIT_POS_X;
                let known = (of_head + min(query, size.queries - 1)) as usize;
                tile_logs[unit] = log_sums[known];
                tile_deltas[unit] = deltas[known];
                let seen = keys_of(query, row, bounds, &size, kind);
                tile_from[unit] = seen.from;
                tile_end[unit] = seen.end;
            }
            sync_cube();
            fetch::<N>(q, &q_rows, at + columns, &mut held_q, COLUMNS, plan);
            fetch::<N>(
                grad,
                &grad_rows,
                at + columns,
                &mut held_grad,
                COLUMNS,
                plan,
            );
            #[unroll]
            for block in 0..comptime!(plan.blocks()) {
                score::<E, N>(&keys, &tiles, 0usize, block, &mut scores, &place, plan);
                sync_plane();
                let first_column = own_column + comptime!((block * plan.side()) as u32);
                let mut slopes = Array::<Vector<f32, N>>::new(comptime!(plan.own()));
                #[unroll]
                for i in 0..comptime!(plan.own()) {
                    let raw =
                        scores[(mine + comptime!(i as u32)) as usize] * Vector::new(size.scale);
                    let z = bounded::<N>(raw, size.cap, kind.capped);
                    let column = (first_column + comptime!((4 * i) as u32)) as usize;
                    let mut logs = Vector::<f32, N>::new(0.0f32);
                    #[unroll]
                    for lane in 0..4usize {
                        let mut log = tile_logs[column + lane];
                        if key < tile_from[column + lane] || key >= tile_end[column + lane] {
                            log = 3.0e38f32;
                        }
                        logs.insert(lane, log);
                    }
                    let p = (z - logs).exp();
                    weights[(own_weight + comptime!(i as u32)) as usize] = Vector::cast_from(p);
                    let mut slope = p * Vector::new(size.scale);
                    if comptime!(kind.capped) {
                        slope *= slope_of::<N>(raw, size.cap);
                    }
                    slopes[i] = slope;
                }
                sync_plane();
                weigh::<E, N>(
                    &weights,
                    &tiles,
                    comptime!(plan.tile()),
                    block,
                    &value_sums,
                    &place,
                    plan,
                );
                score::<E, N>(
                    &values,
                    &tiles,
                    comptime!(plan.tile()),
                    block,
                    &mut scores,
                    &place,
                    plan,
                );
                sync_plane();
                #[unroll]
                for i in 0..comptime!(plan.own()) {
                    let column = (first_column + comptime!((4 * i) as u32)) as usize;
                    let mut d = scores[(mine + comptime!(i as u32)) as usize];
                    #[unroll]
                    for lane in 0..4usize {
                        d.insert(lane, d.extract(lane) - tile_deltas[column + lane]);
                    }
                    weights[(own_weight + comptime!(i as u32)) as usize] =
                        Vector::cast_from(slopes[i] * d);
                }
                sync_plane();
                weigh::<E, N>(&weights, &tiles, 0usize, block, &key_sums, &place, plan);
            }
            sync_cube();
        }
    }
    let to = ((row * size.keys + key) * size.kv_heads + kv_head) * comptime!((plan.d / 4) as u32);
    write::<E, N>(&key_sums, &mut scores, dk, to, exists, &place, plan);
    write::<E, N>(&value_sums, &mut scores, dv, to, exists, &place, plan);
}
