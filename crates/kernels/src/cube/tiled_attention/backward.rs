//! The backward kernels.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::super::softcap::slope_of;
use super::direct::*;
use super::seen::*;
use super::tile::*;

/// The queries that see a key, as far as they have no bounds of their own.
#[cube]
fn queries_of(key: u32, row: u32, bounds: &[u32], size: &Sizes, #[comptime] kind: Kind) -> Range {
    let mut from = 0u32;
    let mut end = size.queries;
    if comptime!(kind.causal) {
        from = key - min(key, size.causal_from);
        if comptime!(kind.windowed) {
            let last = key + size.window;
            end = min(end, last - min(last, size.causal_from));
        }
    }
    if comptime!(kind.padded && !kind.ranged) {
        let at = (2 * row) as usize;
        if key < bounds[at] || key >= bounds[at + 1] {
            end = 0u32;
        }
    }
    Range { from, end }
}

/// What probabilities are multiplied by in the gradient of their scores.
#[cube]
fn slope<N: Size>(
    p: Vector<f32, N>,
    raw: Vector<f32, N>,
    size: &Sizes,
    #[comptime] kind: Kind,
) -> Vector<f32, N> {
    let mut slope = p * Vector::new(size.scale);
    if comptime!(kind.capped) {
        slope *= slope_of::<N>(raw, size.cap);
    }
    slope
}

/// What is known of the queries of a strip: of a unit's own row, and of those whose scores it holds.
#[derive(CubeType, Clone, Copy)]
struct OfQueries {
    log_sum: f32,
    delta: f32,
    logs: OfRows,
    deltas: OfRows,
}

/// That of each strip, of which the sums over the keys of each probability and its gradient are written for the other kernel: they are
/// those of the result and its own gradient.
#[cube]
#[allow(clippy::too_many_arguments)]
fn statistics_of_own<E: Float, N: Size>(
    y_numbers: &[Vector<E, N>],
    grad_numbers: &[Vector<E, N>],
    grad_rows: &Rows,
    log_sums: &[f32],
    deltas: &mut [f32],
    row: u32,
    head: u32,
    first: u32,
    place: &Place,
    size: &Sizes,
    #[comptime] plan: Plan,
) -> Sequence<OfQueries> {
    let mut strips = Sequence::<OfQueries>::new();
    let fours = comptime!(plan.d / 4 / plan.planes.sharers());
    let part = place.part * comptime!(fours as u32);
    #[unroll]
    for strip in 0..comptime!(plan.strips) {
        let query = row_of_strip(first, place, strip, plan) + place.own_row;
        let known = min(query, size.queries - 1);
        let y_at = ((row * size.queries + known) * size.heads + head)
            * comptime!((plan.d / 4) as u32)
            + part;
        let grad_at = (grad_rows.start + known * grad_rows.position) * 2 + part;
        let mut products = Vector::<f32, N>::new(0.0f32);
        for i in 0..comptime!(fours as u32) {
            let y = Vector::<f32, N>::cast_from(y_numbers[(y_at + i) as usize]);
            products += y * Vector::<f32, N>::cast_from(grad_numbers[(grad_at + i) as usize]);
        }
        let delta = sum_of_row(Vector::vector_sum(products), plan);
        let of_query = (CUBE_POS_Y * statistics(size, plan) + query) as usize;
        let log_sum = log_sums[of_query];
        if place.part == 0 {
            deltas[of_query] = delta;
        }
        strips.push(OfQueries {
            log_sum,
            delta,
            logs: of_rows(log_sum, plan),
            deltas: of_rows(delta, plan),
        });
    }
    strips
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
    dq: &mut [Vector<u32, N>],
    size: Sizes,
    #[comptime] plan: Plan,
    #[define(E)] _type: ElemType,
) {
    let kind = comptime!(plan.kind);
    let (row, head) = (CUBE_POS_Y / size.heads, CUBE_POS_Y % size.heads);
    let kv_head = head / (size.heads / size.kv_heads);
    let first = last_block(&size, plan) - CUBE_POS_X * comptime!(plan.rows() as u32);
    let place = place(plan);

    let mut tiles = Shared::<[Vector<u32, N>]>::new_slice(comptime!(plan.tiles()));
    let mut exchange = Shared::<[Vector<u32, N>]>::new_slice(comptime!(plan.exchange()));

    let q_rows = rows_of(row, head, &size.q, size.queries);
    let grad_rows = rows_of(row, head, &size.grad, size.queries);
    let queries = own_sides::<E, N>(q, &q_rows, first, &mut tiles, &place, plan);
    let grads = own_sides::<E, N>(grad, &grad_rows, first, &mut tiles, &place, plan);

    let of_row = keys_of_row(row, bounds, &size, kind);
    let of_queries = statistics_of_own::<E, N>(
        y_numbers,
        grad_numbers,
        &grad_rows,
        log_sums,
        deltas,
        row,
        head,
        first,
        &place,
        &size,
        plan,
    );
    let first_strip = of_queries.index(0);
    let (log_sum, delta) = (first_strip.log_sum, first_strip.delta);
    let keys = keys_of(
        first + place.plane_row + place.own_row,
        row,
        bounds,
        &size,
        kind,
    );
    let all = keys_of_all(first, row, bounds, &size, plan);
    let of_plane = end_of_plane(first, all.end, &place, &size, plan);
    let columns = comptime!(COLUMNS as u32);
    let begin = all.from / columns * columns;
    let k_rows = rows_of(row, kv_head, &size.k, size.keys);
    let v_rows = rows_of(row, kv_head, &size.v, size.keys);
    let own_column = place.part * comptime!(PIECE as u32);
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
            let key = at + comptime!((block * plan.side()) as u32);
            if key < of_plane {
                let products = score::<E, N>(&queries, &tiles, 0usize, block, plan);
                let of_values = score::<E, N>(&grads, &tiles, comptime!(plan.tile()), block, plan);
                if comptime!(plan.direct) {
                    #[unroll]
                    for strip in 0..comptime!(plan.strips) {
                        let block_at = Block {
                            query: row_of_strip(first, &place, strip, plan),
                            key,
                            from: of_row.from,
                            end: of_row.end,
                        };
                        let of_strip = of_queries.index(strip);
                        let products = products.index(strip);
                        let kept = cells();
                        probabilities_by_row(
                            products,
                            &of_strip.logs,
                            &kept,
                            &block_at,
                            &size,
                            plan,
                        );
                        // Never: CubeCL leaves out what makes a matrix that nobody reads, and with it what is kept beside.
                        if size.queries == 0 {
                            give::<N>(products, &mut exchange, &place, plan);
                        }
                        slopes_by_row(of_values.index(strip), &of_strip.deltas, &kept, size.scale);
                    }
                    let slopes = as_left::<E>(&of_values);
                    weigh::<E, N>(&slopes, &tiles, 0usize, block, &result, plan);
                } else {
                    give::<N>(products.index(0), &mut exchange, &place, plan);
                    sync_plane();
                    let mut slopes = own::<N>(&exchange, &place, plan);
                    #[unroll]
                    for i in 0..2usize {
                        let key = key + own_column + comptime!((4 * i) as u32);
                        let four = four::<N>(slopes[i], key, &keys, &size, kind);
                        let p = (four.z - Vector::new(log_sum)).exp();
                        slopes[i] = slope::<N>(p, four.raw, &size, kind);
                    }
                    sync_plane();
                    give::<N>(of_values.index(0), &mut exchange, &place, plan);
                    sync_plane();
                    let of_values = own::<N>(&exchange, &place, plan);
                    #[unroll]
                    for i in 0..2usize {
                        slopes[i] *= of_values[i] - Vector::new(delta);
                    }
                    sync_plane();
                    give_back::<E, N>(&slopes, 0usize, &mut exchange, &place, plan);
                    sync_plane();
                    let slopes = given_back::<E, N>(&exchange, 0usize, &place, plan);
                    weigh::<E, N>(&slopes, &tiles, 0usize, block, &result, plan);
                    sync_plane();
                }
            }
        }
        sync_cube();
    }
    let pieces = comptime!((plan.d / PIECE) as u32);
    #[unroll]
    for strip in 0..comptime!(plan.strips) {
        let query = row_of_strip(first, &place, strip, plan) + place.own_row;
        let exists = query < size.queries;
        let to = ((row * size.queries + query) * size.heads + head) * pieces;
        write::<E, N>(
            &result,
            strip,
            1.0f32,
            &mut exchange,
            dq,
            to,
            exists,
            &place,
            plan,
        );
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn backward_keys<E: Float, N: Size>(
    q: &[Vector<u32, N>],
    k: &[Vector<u32, N>],
    v: &[Vector<u32, N>],
    grad: &[Vector<u32, N>],
    bounds: &[u32],
    log_sums: &[Vector<f32, N>],
    deltas: &[Vector<f32, N>],
    dk: &mut [Vector<u32, N>],
    dv: &mut [Vector<u32, N>],
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

    let mut tiles = Shared::<[Vector<u32, N>]>::new_slice(comptime!(plan.tiles()));
    let mut exchange = Shared::<[Vector<u32, N>]>::new_slice(comptime!(plan.exchange()));
    let mut tile_logs = Shared::<[Vector<f32, N>]>::new_slice(comptime!(COLUMNS / 4));
    let mut tile_deltas = Shared::<[Vector<f32, N>]>::new_slice(comptime!(COLUMNS / 4));
    let mut tile_from = Shared::<[u32]>::new_slice(COLUMNS);
    let mut tile_end = Shared::<[u32]>::new_slice(COLUMNS);

    let k_rows = rows_of(row, kv_head, &size.k, size.keys);
    let v_rows = rows_of(row, kv_head, &size.v, size.keys);
    let keys = own_sides::<E, N>(k, &k_rows, first, &mut tiles, &place, plan);
    let values = own_sides::<E, N>(v, &v_rows, first, &mut tiles, &place, plan);

    // The queries that may see any of the cube's keys, and the first that sees one of the plane's.
    let seen_by = queries_of(key, row, bounds, &size, kind);
    let columns = comptime!(COLUMNS as u32);
    let mut begin = 0u32;
    let mut end = size.queries;
    let mut of_plane = 0u32;
    if comptime!(kind.causal) {
        begin = (first - min(first, size.causal_from)) / columns * columns;
        let first_key = first + place.plane_row;
        of_plane = first_key - min(first_key, size.causal_from);
        if comptime!(kind.windowed) {
            let last = min(first + comptime!(plan.rows() as u32), size.keys) + size.window - 1;
            end = min(end, last - min(last, size.causal_from));
        }
    }

    let own_column = place.part * comptime!(PIECE as u32);
    let of_row = keys_of_row(row, bounds, &size, kind);
    let key_sums = sums(plan);
    let value_sums = sums(plan);
    for group in 0..groups {
        let head = kv_head * groups + group;
        let q_rows = rows_of(row, head, &size.q, size.queries);
        let grad_rows = rows_of(row, head, &size.grad, size.queries);
        let of_head = (row * size.heads + head) * statistics(&size, plan) / 4;
        // A four of both for each of the first units.
        let mine = min(UNIT_POS_X, columns / 4 - 1);
        let mut held_q = hold::<N>(COLUMNS, plan);
        fetch::<N>(q, &q_rows, begin, &mut held_q, COLUMNS, plan);
        let mut held_grad = hold::<N>(COLUMNS, plan);
        fetch::<N>(grad, &grad_rows, begin, &mut held_grad, COLUMNS, plan);
        let mut held_logs = Vector::<f32, N>::new(0.0f32);
        let mut held_deltas = Vector::<f32, N>::new(0.0f32);
        if begin < end {
            held_logs = log_sums[(of_head + begin / 4 + mine) as usize];
            held_deltas = deltas[(of_head + begin / 4 + mine) as usize];
        }
        for at in range_stepped(begin, end, columns) {
            put::<N>(&held_q, &mut tiles, 0usize, COLUMNS, plan);
            put::<N>(
                &held_grad,
                &mut tiles,
                comptime!(plan.tile()),
                COLUMNS,
                plan,
            );
            if UNIT_POS_X < columns / 4 {
                tile_logs[UNIT_POS_X as usize] = held_logs;
                tile_deltas[UNIT_POS_X as usize] = held_deltas;
            }
            if comptime!(kind.ranged) {
                if UNIT_POS_X < columns {
                    let keys = keys_of(at + UNIT_POS_X, row, bounds, &size, kind);
                    tile_from[UNIT_POS_X as usize] = keys.from;
                    tile_end[UNIT_POS_X as usize] = keys.end;
                }
            }
            sync_cube();
            let next = at + columns;
            fetch::<N>(q, &q_rows, next, &mut held_q, COLUMNS, plan);
            fetch::<N>(grad, &grad_rows, next, &mut held_grad, COLUMNS, plan);
            if next < end {
                held_logs = log_sums[(of_head + next / 4 + mine) as usize];
                held_deltas = deltas[(of_head + next / 4 + mine) as usize];
            }
            #[unroll]
            for block in 0..comptime!(plan.blocks()) {
                let query = at + comptime!((block * plan.side()) as u32);
                if query + comptime!(plan.side() as u32) > of_plane {
                    let products = score::<E, N>(&keys, &tiles, 0usize, block, plan);
                    let of_values =
                        score::<E, N>(&values, &tiles, comptime!(plan.tile()), block, plan);
                    let tile = comptime!(plan.tile());
                    if comptime!(plan.direct) {
                        let block_at = Block {
                            query,
                            key: first + place.plane_row,
                            from: of_row.from,
                            end: of_row.end,
                        };
                        let kept = cells();
                        let logs = of_columns::<N>(&tile_logs, block, plan);
                        probabilities_by_column(
                            products.index(0),
                            &logs,
                            &kept,
                            &block_at,
                            &size,
                            plan,
                        );
                        let deltas = of_columns::<N>(&tile_deltas, block, plan);
                        slopes_by_column(of_values.index(0), &deltas, &kept, size.scale);
                        let p = as_left::<E>(&products);
                        weigh::<E, N>(&p, &tiles, tile, block, &value_sums, plan);
                        let slopes = as_left::<E>(&of_values);
                        weigh::<E, N>(&slopes, &tiles, 0usize, block, &key_sums, plan);
                    } else {
                        give::<N>(products.index(0), &mut exchange, &place, plan);
                        sync_plane();
                        let mut p = own::<N>(&exchange, &place, plan);
                        let mut slopes = Array::<Vector<f32, N>>::new(2usize);
                        let column = own_column + comptime!((block * plan.side()) as u32);
                        #[unroll]
                        for i in 0..2usize {
                            let column = column + comptime!((4 * i) as u32);
                            let four = four::<N>(p[i], at + column, &seen_by, &size, kind);
                            let mut z = four.z;
                            if comptime!(kind.ranged) {
                                #[unroll]
                                for lane in 0..4usize {
                                    let query = column as usize + lane;
                                    if key < tile_from[query] || key >= tile_end[query] {
                                        z.insert(lane, comptime!(-INFINITE).runtime());
                                    }
                                }
                            }
                            p[i] = (z - tile_logs[(column / 4) as usize]).exp();
                            slopes[i] = slope::<N>(p[i], four.raw, &size, kind);
                        }
                        sync_plane();
                        give::<N>(of_values.index(0), &mut exchange, &place, plan);
                        sync_plane();
                        let of_values = own::<N>(&exchange, &place, plan);
                        #[unroll]
                        for i in 0..2usize {
                            let column = column + comptime!((4 * i) as u32);
                            slopes[i] *= of_values[i] - tile_deltas[(column / 4) as usize];
                        }
                        sync_plane();
                        give_back::<E, N>(&p, 0usize, &mut exchange, &place, plan);
                        give_back::<E, N>(&slopes, 1usize, &mut exchange, &place, plan);
                        sync_plane();
                        let p = given_back::<E, N>(&exchange, 0usize, &place, plan);
                        weigh::<E, N>(&p, &tiles, tile, block, &value_sums, plan);
                        let slopes = given_back::<E, N>(&exchange, 1usize, &place, plan);
                        weigh::<E, N>(&slopes, &tiles, 0usize, block, &key_sums, plan);
                        sync_plane();
                    }
                }
            }
            sync_cube();
        }
    }
    let exists = key < size.keys;
    let pieces = comptime!((plan.d / PIECE) as u32);
    let to = ((row * size.keys + key) * size.kv_heads + kv_head) * pieces;
    write::<E, N>(
        &key_sums,
        0usize,
        1.0f32,
        &mut exchange,
        dk,
        to,
        exists,
        &place,
        plan,
    );
    write::<E, N>(
        &value_sums,
        0usize,
        1.0f32,
        &mut exchange,
        dv,
        to,
        exists,
        &place,
        plan,
    );
}
