//! From the sums of a tile to the result.
//!
//! A thread has, of each 8 columns, two neighbours (by its place among four threads) in two rows eight apart.

use cubecl::prelude::*;

use super::extent::Extent;
use super::plan::Plan;
use super::ptx::*;
use super::ring::collected;

/// Adds the sums of all parts to the first one's.
#[cube]
pub(super) fn collect(
    exchange: u32,
    barriers: u32,
    part: u32,
    thread: u32,
    #[comptime] plan: Plan,
) {
    if comptime!(plan.parts > 1) {
        let sums = comptime!(plan.sums());
        let own = exchange + thread * 4;
        if part == 0 {
            cluster_wait(collected(barriers, plan));
            #[unroll]
            for other in 0..comptime!(plan.parts - 1) {
                #[unroll]
                for index in 0..sums {
                    receive_sum(own + comptime!((other * plan.sums() + index) * 512), index);
                }
            }
        } else {
            let to = own + (part - 1) * comptime!(plan.sums() * 512);
            #[unroll]
            for index in 0..sums {
                send_sum(to + comptime!(index * 512), index);
            }
            cluster_arrive(collected(barriers, plan));
        }
    }
}

/// Adds the bias of the tile that begins at `column` to the sums. No pair of columns lies half outside.
#[cube]
pub(super) fn add_bias<E: Float>(
    bias: &[Vector<E, Const<2>>],
    column: u32,
    columns: u32,
    #[comptime] plan: Plan,
) {
    #[unroll]
    for pair in 0..comptime!(plan.columns / 8) {
        let at = column + UNIT_POS % 4 * 2 + comptime!(pair * 8);
        if at < columns {
            let values = Vector::<f32, Const<2>>::cast_from(bias[(at / 2) as usize]);
            #[unroll]
            for side in 0..2usize {
                let value = values.extract(side);
                add_to_sum(value, comptime!(pair * 4 + side as u32));
                add_to_sum(value, comptime!(pair * 4 + side as u32 + 2));
            }
        }
    }
}

/// Rounds the sums and lets the copy engine take them, 64 columns at a time, to (`row`, `column`) of the result.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn leave(
    out: &TensorMap<u16, Tiled>,
    staging: u32,
    group: u32,
    thread: u32,
    row: u32,
    column: u32,
    size: &Extent,
    #[comptime] plan: Plan,
) {
    // Where this lane's row of a 16 x 16 block goes, swizzled as the copy engine expects.
    let lane = thread % 32;
    let line = thread / 32 * 16 + lane / 8 % 2 * 8 + lane % 8;
    let to = staging + line * 128 + ((lane / 16) ^ (lane % 8)) * 16;
    #[unroll]
    for panel in 0..comptime!(plan.columns / 64) {
        let offset = comptime!(panel % 2 * 8192);
        // The panel two before this one has left shared memory.
        if thread == 0 {
            store_wait(1u32);
        }
        group_sync(group);
        #[unroll]
        for block in 0..4u32 {
            write_block(
                to,
                comptime!(panel * 32 + block * 8),
                comptime!(block * 32),
                offset,
                plan,
            );
        }
        store_fence();
        group_sync(group);
        if thread == 0 {
            let at = column + comptime!(panel * 64);
            if row < size.rows && at < size.columns {
                store_box(out, staging + offset, row, at);
            }
            store_commit();
        }
    }
}

/// Writes the sums, scaled, from (`row`, `column`) of the result on.
#[cube]
pub(super) fn write<E: Float>(
    out: &mut [E],
    scale: f32,
    row: u32,
    column: u32,
    thread: u32,
    size: &Extent,
    #[comptime] plan: Plan,
) {
    let lane = thread % 32;
    #[unroll]
    for index in 0..comptime!(plan.sums()) {
        let row = row + thread / 32 * 16 + lane / 4 + comptime!(index / 2 % 2 * 8);
        let column = column + lane % 4 * 2 + comptime!(index / 4 * 8 + index % 2);
        let value = sum(index);
        if row < size.rows && column < size.columns {
            out[(row * size.columns + column) as usize] = E::cast_from(value * scale);
        }
    }
}
