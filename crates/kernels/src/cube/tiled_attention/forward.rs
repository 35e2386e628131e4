//! The forward kernel.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::direct::Block;
use super::running::{exponentials, nothing_yet, of_own_row};
use super::seen::*;
use super::tile::*;

/// What exponentials are relative to before a score is seen: far above one that is not, far below any other.
pub(super) const NOTHING: f32 = -1.0e30;

/// By how much scores may exceed what the exponentials are relative to. Their exponentials are halves, of 65,504 at the most.
pub(super) const SLACK: f32 = 8.0;

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

/// The largest of a unit's scores.
#[cube]
fn largest<N: Size>(scores: &Array<Vector<f32, N>>) -> f32 {
    let mut largest = comptime!(NOTHING).runtime();
    #[unroll]
    for i in 0..2usize {
        #[unroll]
        for lane in 0..4usize {
            largest = max(largest, scores[i].extract(lane));
        }
    }
    largest
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn forward<E: Float, N: Size>(
    q: &[Vector<u32, N>],
    k: &[Vector<u32, N>],
    v: &[Vector<u32, N>],
    bounds: &[u32],
    y: &mut [Vector<u32, N>],
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
    let of_row = keys_of_row(row, bounds, &size, kind);

    let mut tiles = Shared::<[Vector<u32, N>]>::new_slice(comptime!(plan.tiles()));
    let mut exchange = Shared::<[Vector<u32, N>]>::new_slice(comptime!(plan.exchange()));

    let q_rows = rows_of(row, head, &size.q, size.queries);
    let queries = own_sides::<E, N>(q, &q_rows, first, &mut tiles, &place, plan);

    let all = keys_of_all(first, row, bounds, &size, plan);
    let of_plane = end_of_plane(first, all.end, &place, &size, plan);
    let columns = comptime!(COLUMNS as u32);
    let begin = all.from / columns * columns;
    let k_rows = rows_of(row, kv_head, &size.k, size.keys);
    let v_rows = rows_of(row, kv_head, &size.v, size.keys);
    let own_column = place.part * comptime!(PIECE as u32);

    // Of the scores so far: what their exponentials are relative to, and the sum of this unit's.
    let mut top = comptime!(NOTHING).runtime();
    let mut sum = 0.0f32;
    let own_keys = keys_of(
        first + place.plane_row + place.own_row,
        row,
        bounds,
        &size,
        kind,
    );
    // The same of the rows whose scores a unit holds.
    let running = nothing_yet(plan);
    let mut result = sums(plan);
    let mut held_k = hold::<N>(COLUMNS, plan);
    fetch::<N>(k, &k_rows, begin, &mut held_k, COLUMNS, plan);
    let mut held_v = hold::<N>(COLUMNS, plan);
    fetch::<N>(v, &v_rows, begin, &mut held_v, COLUMNS, plan);
    for at in range_stepped(begin, all.end, columns) {
        put::<N>(&held_k, &mut tiles, 0usize, COLUMNS, plan);
        put::<N>(&held_v, &mut tiles, comptime!(plan.tile()), COLUMNS, plan);
        sync_cube();
        // The next ones are on their way while these are multiplied.
        fetch::<N>(k, &k_rows, at + columns, &mut held_k, COLUMNS, plan);
        fetch::<N>(v, &v_rows, at + columns, &mut held_v, COLUMNS, plan);
        #[unroll]
        for block in 0..comptime!(plan.blocks()) {
            let key = at + comptime!((block * plan.side()) as u32);
            if key < of_plane {
                let products = score::<E, N>(&queries, &tiles, 0usize, block, plan);
                if comptime!(plan.direct) {
                    #[unroll]
                    for strip in 0..comptime!(plan.strips) {
                        let block_at = Block {
                            query: row_of_strip(first, &place, strip, plan),
                            key,
                            from: of_row.from,
                            end: of_row.end,
                        };
                        exponentials(
                            products.index(strip),
                            running.index(strip),
                            &result,
                            key > begin,
                            &block_at,
                            &size,
                            strip,
                            plan,
                        );
                    }
                    let p = as_left::<E>(&products);
                    weigh::<E, N>(&p, &tiles, comptime!(plan.tile()), block, &result, plan);
                } else {
                    give::<N>(products.index(0), &mut exchange, &place, plan);
                    sync_plane();
                    let mut p = own::<N>(&exchange, &place, plan);
                    #[unroll]
                    for i in 0..2usize {
                        let key = key + own_column + comptime!((4 * i) as u32);
                        p[i] = four::<N>(p[i], key, &own_keys, &size, kind).z;
                    }
                    let largest = largest_of_row(largest::<N>(&p), plan);
                    sync_plane();
                    // Rarely more than once: the sums are the plane's, and cannot be scaled where they are.
                    if plane_any(largest > top + comptime!(SLACK)) {
                        let larger = max(top, largest);
                        let factor = (top - larger).exp();
                        top = larger;
                        if key > begin {
                            sum *= factor;
                            scale_rows::<N>(&mut result, factor, &mut exchange, &place, plan);
                        }
                    }
                    #[unroll]
                    for i in 0..2usize {
                        p[i] = (p[i] - Vector::new(top)).exp();
                        sum += Vector::vector_sum(p[i]);
                    }
                    give_back::<E, N>(&p, 0usize, &mut exchange, &place, plan);
                    sync_plane();
                    let p = given_back::<E, N>(&exchange, 0usize, &place, plan);
                    weigh::<E, N>(&p, &tiles, comptime!(plan.tile()), block, &result, plan);
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
        let keys = keys_of(query, row, bounds, &size, kind);
        if comptime!(plan.direct) {
            let of_row = of_own_row(running.index(strip), &place);
            top = of_row.top;
            sum = of_row.sum;
        } else {
            sum = sum_of_row(sum, plan);
        }
        let mut log_sum = comptime!(INFINITE).runtime();
        let mut share = 0.0f32;
        if keys.from < keys.end {
            log_sum = top + sum.ln();
            share = 1.0f32 / sum;
        }
        if place.part == 0 {
            log_sums[(CUBE_POS_Y * statistics(&size, plan) + query) as usize] = log_sum;
        }
        let exists = query < size.queries;
        let to = ((row * size.queries + query) * size.heads + head) * pieces;
        write::<E, N>(
            &result,
            strip,
            share,
            &mut exchange,
            y,
            to,
            exists,
            &place,
            plan,
        );
    }
}
