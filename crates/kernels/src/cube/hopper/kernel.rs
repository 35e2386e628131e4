//! The kernel: one warp loads, one or two warpgroups multiply, tile after tile.

use cubecl::prelude::*;

use super::extent::{Extent, place};
use super::plan::Plan;
use super::ptx::{declare_sums, shared_address, store_wait};
use super::results::{add_bias, collect, leave, write};
use super::ring::{load_tiles, multiply_tile, prepare};

/// `out = left right [+ more_left more_right] [+ bias]`, results through the copy engine.
///
/// Shared memory holds a ring of stages, each 64 elements of the summed dimension of both sides; the copy engine fills
/// a stage and completes its `full` barrier, the multipliers read it and complete its `empty` one. The second term is
/// one or more stages of the same ring, filled with zeros past its rank.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn wide<E: Float>(
    left: &TensorMap<u16, Tiled>,
    right: &TensorMap<u16, Tiled>,
    more_left: &TensorMap<u16, Tiled>,
    more_right: &TensorMap<u16, Tiled>,
    out: &TensorMap<u16, Tiled>,
    bias: &[Vector<E, Const<2>>],
    size: Extent,
    #[comptime] plan: Plan,
) {
    declare_sums(comptime!(plan.sums()));
    let memory = Shared::<[u32]>::new_aligned_slice(
        comptime!((plan.shared_bytes(true) / 4) as usize),
        1024usize,
    );
    let base = shared_address(&memory);
    let barriers = base + comptime!(plan.barriers(true));
    prepare(barriers, plan);

    let group = UNIT_POS / 128;
    if group == comptime!(plan.groups) {
        load_tiles(
            left, right, more_left, more_right, base, barriers, 0, size.steps, &size, plan,
        );
    } else {
        let thread = UNIT_POS % 128;
        let staging = base + comptime!(plan.exchange()) + group * 16384;
        let mut step = 0u32;
        let mut tile = CUBE_POS_X;
        while tile < size.tiles() {
            let (first_row, first_column) = place(tile, &size, plan);
            multiply_tile(
                base,
                barriers,
                group,
                thread,
                step,
                0,
                size.steps,
                size.more_steps,
                plan,
            );
            step += size.steps + size.more_steps;

            if comptime!(plan.bias) {
                add_bias(bias, first_column, size.columns, plan);
            }
            leave(
                out,
                staging,
                group,
                thread,
                first_row + group * 64,
                first_column,
                &size,
                plan,
            );
            tile += CUBE_COUNT_X;
        }
        if thread == 0 {
            store_wait(0u32);
        }
    }
}

/// `out = scale * left right`, results by plain stores: of any number of columns, and of any type.
///
/// The cubes of a cluster divide the summed dimension among themselves and send their sums to the first; a cluster of more
/// than one has one tile.
#[cube(launch_unchecked, cluster_dim = CubeDim::new_1d(plan.parts))]
#[allow(clippy::too_many_arguments)]
pub(super) fn stored<E: Float>(
    left: &TensorMap<u16, Tiled>,
    right: &TensorMap<u16, Tiled>,
    out: &mut [E],
    scale: f32,
    size: Extent,
    #[comptime] plan: Plan,
) {
    declare_sums(comptime!(plan.sums()));
    let memory = Shared::<[u32]>::new_aligned_slice(
        comptime!((plan.shared_bytes(false) / 4) as usize),
        1024usize,
    );
    let base = shared_address(&memory);
    let barriers = base + comptime!(plan.barriers(false));
    prepare(barriers, plan);

    let parts = comptime!(plan.parts);
    let part = CUBE_POS_X % parts;
    let begin = part * size.steps / parts;
    let end = (part + 1) * size.steps / parts;
    let group = UNIT_POS / 128;
    if group == comptime!(plan.groups) {
        load_tiles(
            left, right, left, right, base, barriers, begin, end, &size, plan,
        );
    } else {
        let thread = UNIT_POS % 128;
        let mut step = 0u32;
        let mut tile = CUBE_POS_X / parts;
        while tile < size.tiles() {
            let (first_row, first_column) = place(tile, &size, plan);
            multiply_tile(base, barriers, group, thread, step, begin, end, 0, plan);
            step += end - begin;

            collect(
                base + comptime!(plan.exchange()),
                barriers,
                part,
                thread,
                plan,
            );
            if part == 0 {
                write(
                    out,
                    scale,
                    first_row + group * 64,
                    first_column,
                    thread,
                    &size,
                    plan,
                );
            }
            tile += CUBE_COUNT_X / parts;
        }
    }
}
