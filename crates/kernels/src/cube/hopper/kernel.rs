//! The kernel: one warp loads, one or two warpgroups multiply, tile after tile.

use cubecl::prelude::*;

use super::plan::Plan;
use super::ptx::*;

/// Tile rows that are walked together, so that the tiles in flight share their rows and columns in the L2 cache.
const BAND: u32 = 8;

/// `out = left right [+ more_left more_right] [+ bias]`, results through the copy engine.
///
/// Shared memory holds a ring of stages, each 64 elements of the summed dimension of both sides; the copy engine fills
/// a stage and completes its `full` barrier, the multipliers read it and complete its `empty` one. The second term is
/// one or more stages of the same ring, filled with zeros past its rank.
#[cube(launch_unchecked)]
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
        let lane = UNIT_POS % 32;
        let staging = base + comptime!(plan.exchange()) + group * 16384;
        // Where this lane's rows of a 16 x 16 block go, swizzled as the copy engine expects.
        let row = thread / 32 * 16 + lane / 8 % 2 * 8 + lane % 8;
        let to = staging + row * 128 + ((lane / 16) ^ (lane % 8)) * 16;

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
                add_bias(bias, first_column + lane % 4 * 2, size.columns, plan);
            }
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
                    let column = first_column + comptime!(panel * 64);
                    let row = first_row + group * 64;
                    if row < size.rows && column < size.columns {
                        store_box(out, staging + offset, row, column);
                    }
                    store_commit();
                }
            }
            tile += CUBE_COUNT_X;
        }
        if thread == 0 {
            store_wait(0u32);
        }
    }
}

/// `out = scale * left right`, results by plain stores: for few columns or rows, of any number.
///
/// The cubes of a cluster divide the summed dimension among themselves and send their sums to the first; a cluster of more
/// than one has one tile.
#[cube(launch_unchecked, cluster_dim = CubeDim::new_1d(plan.parts))]
pub(super) fn thin<E: Float>(
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
        let lane = UNIT_POS % 32;
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
                #[unroll]
                for index in 0..comptime!(plan.sums()) {
                    let row = first_row
                        + group * 64
                        + thread / 32 * 16
                        + lane / 4
                        + comptime!(index / 2 % 2 * 8);
                    let column = first_column + lane % 4 * 2 + comptime!(index / 4 * 8 + index % 2);
                    let value = sum(index);
                    if row < size.rows && column < size.columns {
                        out[(row * size.columns + column) as usize] = E::cast_from(value * scale);
                    }
                }
            }
            tile += CUBE_COUNT_X / parts;
        }
    }
}

/// The numbers of a product that may change without compiling again.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Extent {
    /// Rows of the result.
    pub rows: u32,
    /// Columns of the result.
    pub columns: u32,
    /// Tiles along the rows.
    pub row_tiles: u32,
    /// Tiles along the columns.
    pub column_tiles: u32,
    /// Stages of the first term.
    pub steps: u32,
    /// Stages of the second term.
    pub more_steps: u32,
}

#[cube]
impl Extent {
    fn tiles(&self) -> u32 {
        self.row_tiles * self.column_tiles
    }
}

/// First row and column of a tile: bands of [`BAND`] tile rows, column after column.
#[cube]
fn place(tile: u32, size: &Extent, #[comptime] plan: Plan) -> (u32, u32) {
    let in_band = size.column_tiles * BAND;
    let band = tile / in_band;
    let within = tile % in_band;
    let height = min(size.row_tiles - band * BAND, BAND);
    let row = band * BAND + within % height;
    (
        row * comptime!(plan.rows()),
        within / height * comptime!(plan.columns),
    )
}

#[cube]
fn prepare(barriers: u32, #[comptime] plan: Plan) {
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
fn collected(barriers: u32, #[comptime] plan: Plan) -> u32 {
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
fn load_tiles(
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
fn multiply_tile(
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
    let left =
        u64::cast_from((left + offset) / 16) + comptime!(Plan::descriptor(plan.left_transposed));
    let right =
        u64::cast_from((right + offset) / 16) + comptime!(Plan::descriptor(!plan.right_transposed));
    multiply(left, right, keep, 0u32, plan);
    #[unroll]
    for part in 1..parts {
        multiply(left, right, 1, part, plan);
    }
    multiply_commit();
    multiply_wait(1u32);
}

/// Adds the sums of all parts to the first one's.
#[cube]
fn collect(exchange: u32, barriers: u32, part: u32, thread: u32, #[comptime] plan: Plan) {
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
            let to = in_first_cube(own + (part - 1) * comptime!(plan.sums() * 512));
            #[unroll]
            for index in 0..sums {
                send_sum(to + comptime!(index * 512), index);
            }
            cluster_arrive(in_first_cube(collected(barriers, plan)));
        }
    }
}

/// Adds the bias to the sums; `column` is the first of this lane's pairs, of which none lies half outside.
#[cube]
fn add_bias<E: Float>(
    bias: &[Vector<E, Const<2>>],
    column: u32,
    columns: u32,
    #[comptime] plan: Plan,
) {
    #[unroll]
    for pair in 0..comptime!(plan.columns / 8) {
        let at = column + comptime!(pair * 8);
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
