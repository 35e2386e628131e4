//! The ring of stages in shared memory, between the warp that loads and the warpgroups that multiply.
//!
//! A stage has two barriers: the copy engine completes the full one with its last byte, the multipliers the empty one once
//! their products have read it.

use cubecl::prelude::*;

use super::extent::{Extent, place};
use super::plan::Plan;
use super::ptx::*;

/// Prepares the barriers, by one thread before all others go on.
#[cube]
pub(super) fn prepare(barriers: u32, #[comptime] plan: Plan) {
    if UNIT_POS == 0 {
        #[unroll]
        for stage in 0..comptime!(plan.stages) {
            barrier_init(full(barriers, stage), 1);
            barrier_init(empty(barriers, stage), comptime!(plan.groups));
        }
        barrier_init(collected(barriers, plan), comptime!(plan.senders() * 128));
        barrier_fence();
    }
    if comptime!(plan.parts > 1) {
        cluster_sync();
    } else {
        sync_cube();
    }
}

/// The barrier that the other parts' sums complete.
#[cube]
pub(super) fn collected(barriers: u32, #[comptime] plan: Plan) -> u32 {
    barriers + comptime!(plan.stages * 16)
}

#[cube]
fn full(barriers: u32, stage: u32) -> u32 {
    barriers + stage * 16
}

#[cube]
fn empty(barriers: u32, stage: u32) -> u32 {
    barriers + stage * 16 + 8
}

/// What the loading warp does: one of its threads feeds the ring, waiting only for empty stages.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn load_tiles(
    left: &TensorMap<u16, Tiled>,
    right: &TensorMap<u16, Tiled>,
    more_left: &TensorMap<u16, Tiled>,
    more_right: &TensorMap<u16, Tiled>,
    base: u32,
    barriers: u32,
    begin: u32,
    end: u32,
    size: &Extent,
    #[comptime] plan: Plan,
) {
    if UNIT_POS % 32 == 0 {
        let mut stage = 0u32;
        // A fresh barrier counts as having left phase 1, so the first round does not wait.
        let mut round = 1u32;
        let mut tile = CUBE_POS_X / comptime!(plan.parts);
        while tile < size.tiles() {
            let (row, column) = place(tile, size, plan);
            for k in begin..end {
                load_step(
                    left,
                    right,
                    base,
                    barriers,
                    stage,
                    round,
                    row,
                    column,
                    k * 64,
                    plan,
                );
                (stage, round) = next(stage, round, plan);
            }
            if comptime!(plan.second > 0) {
                for k in 0..size.more_steps {
                    load_step(
                        more_left,
                        more_right,
                        base,
                        barriers,
                        stage,
                        round,
                        row,
                        column,
                        k * 64,
                        plan,
                    );
                    (stage, round) = next(stage, round, plan);
                }
            }
            tile += CUBE_COUNT_X / comptime!(plan.parts);
        }
    }
}

/// The ring's next position. Rounds count because barriers tell even ones from odd ones.
#[cube]
fn next(stage: u32, round: u32, #[comptime] plan: Plan) -> (u32, u32) {
    let around = stage + 1 == comptime!(plan.stages);
    (
        select(around, 0u32, stage + 1),
        select(around, round + 1, round),
    )
}

#[cube]
#[allow(clippy::too_many_arguments)]
fn load_step(
    left: &TensorMap<u16, Tiled>,
    right: &TensorMap<u16, Tiled>,
    base: u32,
    barriers: u32,
    stage: u32,
    round: u32,
    row: u32,
    column: u32,
    k: u32,
    #[comptime] plan: Plan,
) {
    barrier_wait(empty(barriers, stage), round % 2);
    let full = full(barriers, stage);
    barrier_expect(full, comptime!(plan.stage_bytes()));

    let to = base + stage * comptime!(plan.stage_bytes());
    if comptime!(plan.left_transposed) {
        #[unroll]
        for panel in 0..comptime!(plan.groups) {
            load_box(left, to + panel * 8192, full, k, row + panel * 64);
        }
    } else {
        load_box(left, to, full, row, k);
    }
    let to = to + comptime!(plan.left_bytes());
    if comptime!(plan.right_transposed) {
        load_box(right, to, full, column, k);
    } else {
        #[unroll]
        for panel in 0..comptime!(plan.right_panels()) {
            load_box(right, to + panel * 8192, full, k, column + panel * 64);
        }
    }
}

/// Multiplies one tile, steps `begin` to `end` and then `more` of the second term; `first` stages went before it. The sums
/// are complete on return.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn multiply_tile(
    base: u32,
    barriers: u32,
    group: u32,
    thread: u32,
    first: u32,
    begin: u32,
    end: u32,
    more: u32,
    #[comptime] plan: Plan,
) {
    let left = base + group * 8192;
    let right = base + comptime!(plan.left_bytes());
    let mut stage = first % comptime!(plan.stages);
    let mut round = first / comptime!(plan.stages);
    let mut previous = stage;
    for k in begin..end {
        multiply_step(
            left,
            right,
            barriers,
            stage,
            round,
            u32::cast_from(k > begin),
            4u32,
            plan,
        );
        // The products of the step before are done: its stage may be filled again.
        if thread == 0 && k > begin {
            barrier_arrive(empty(barriers, previous));
        }
        previous = stage;
        (stage, round) = next(stage, round, plan);
    }
    if comptime!(plan.second > 0) {
        for _ in 0..more {
            multiply_step(
                left,
                right,
                barriers,
                stage,
                round,
                1u32,
                comptime!(plan.second),
                plan,
            );
            if thread == 0 {
                barrier_arrive(empty(barriers, previous));
            }
            previous = stage;
            (stage, round) = next(stage, round, plan);
        }
    }
    multiply_wait(0u32);
    if thread == 0 {
        barrier_arrive(empty(barriers, previous));
    }
}

/// Waits for a stage and begins `parts` products of 16 elements each; those of the step before are done on return.
#[cube]
#[allow(clippy::too_many_arguments)]
fn multiply_step(
    left: u32,
    right: u32,
    barriers: u32,
    stage: u32,
    round: u32,
    keep: u32,
    #[comptime] parts: u32,
    #[comptime] plan: Plan,
) {
    barrier_wait(full(barriers, stage), round % 2);
    multiply_fence();
    let offset = stage * comptime!(plan.stage_bytes());
    let left = start(left + offset) + comptime!(Plan::descriptor(plan.left_transposed));
    let right = start(right + offset) + comptime!(Plan::descriptor(!plan.right_transposed));
    multiply(left, right, keep, 0u32, plan);
    #[unroll]
    for part in 1..parts {
        multiply(left, right, 1, part, plan);
    }
    multiply_commit();
    multiply_wait(1u32);
}

/// The start of a matrix as its descriptor holds it. An address in a cluster also has the number of the cube, which would run
/// into the field beside it, the distance between panels.
#[cube]
fn start(address: u32) -> u64 {
    u64::cast_from((address & 0x3ffffu32) / 16)
}
