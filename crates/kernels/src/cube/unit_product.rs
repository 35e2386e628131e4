//! Products by the units of a cube, from shared memory: what every device compiles in a moment. Sums are `f32`.
//!
//! A cube multiplies 64 x 64 numbers, 16 of the sum at a time; while it does, its units hold the next 16 in registers.

use burn::tensor::DType;
use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::memory::{UNITS, buffer, elem};
use super::product::is_large;

/// Rows and columns of a cube's tile, in fours. Its units are as many squared, and each has a square of four.
const FOURS: usize = 16;

/// Numbers that are summed at a time.
const DEPTH: usize = 16;

/// From one of them to the next in shared memory, in fours, so that units that write at a time use banks of their own.
const PITCH: usize = FOURS + 1;

/// What is summed number after number: of many, the small ones are lost beside a large sum, as those of a vocabulary's
/// probabilities beside the one of the target.
const LONGEST_SUM: usize = 1024;

/// Rows and columns of the tile.
const TILE: usize = 4 * FOURS;

#[cfg(all(test, feature = "flex"))]
mod tests;

#[cfg(test)]
thread_local! {
    /// The products that this thread launched: tests see who computed.
    static LAUNCHED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// From one row, one number of the sum, and one matrix along each dimension of the batch to the next.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Strides {
    line: u32,
    depth: u32,
    outer: u32,
    inner: u32,
}

/// The numbers of a product that may change without compiling again.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Extent {
    rows: u32,
    columns: u32,
    depth: u32,
    /// The inner dimension of the batch.
    inner: u32,
    left: Strides,
    right: Strides,
}

/// What a unit copies of a side: a four of its rows, or columns, at one place of the sum.
#[derive(CubeType, Clone, Copy)]
struct Source {
    four: u32,
    place: u32,
    /// Where the matrix begins.
    start: u32,
    /// The first row or column of the four, and how many there are.
    first: u32,
    lines: u32,
    line: u32,
    depth: u32,
}

#[cube]
fn from_tile(
    tile: u32,
    lines: u32,
    outer: u32,
    inner: u32,
    strides: &Strides,
    #[comptime] along: bool,
) -> Source {
    let fours = comptime!(FOURS as u32);
    // Units beside each other read numbers beside each other.
    let (four, place) = if comptime!(along) {
        (UNIT_POS_X / fours, UNIT_POS_X % fours)
    } else {
        (UNIT_POS_X % fours, UNIT_POS_X / fours)
    };
    Source {
        four,
        place,
        start: outer * strides.outer + inner * strides.inner,
        first: tile * comptime!(TILE as u32) + four * 4,
        lines,
        line: strides.line,
        depth: strides.depth,
    }
}

/// A unit's four, zeros where nothing exists.
#[cube]
fn fetch<E: Float, N: Size>(from: &[E], source: &Source, at: u32, depth: u32) -> Vector<f32, N> {
    let mut numbers = Vector::<f32, N>::new(0.0f32);
    let k = at + source.place;
    let start = source.start + min(k, depth - 1) * source.depth;
    #[unroll]
    for i in 0..4usize {
        let line = source.first + comptime!(i as u32);
        let number =
            f32::cast_from(from[(start + min(line, source.lines - 1) * source.line) as usize]);
        let exists = line < source.lines && k < depth;
        numbers.insert(i, select(exists, number, 0.0f32));
    }
    numbers
}

#[cube(launch_unchecked)]
fn multiply<E: Float, O: Float, N: Size>(
    left: &[E],
    right: &[E],
    out: &mut [O],
    size: Extent,
    #[comptime] along: (bool, bool),
    #[define(E, O)] _types: [ElemType; 2],
) {
    let (outer, inner) = (CUBE_POS_Z / size.inner, CUBE_POS_Z % size.inner);
    let left_side = from_tile(
        CUBE_POS_Y,
        size.rows,
        outer,
        inner,
        &size.left,
        comptime!(along.0),
    );
    let right_side = from_tile(
        CUBE_POS_X,
        size.columns,
        outer,
        inner,
        &size.right,
        comptime!(along.1),
    );
    let pitch = comptime!(PITCH as u32);
    let mut left_tile = Shared::<[Vector<f32, N>]>::new_slice(comptime!(DEPTH * PITCH));
    let mut right_tile = Shared::<[Vector<f32, N>]>::new_slice(comptime!(DEPTH * PITCH));
    let fours = comptime!(FOURS as u32);
    let (own_row, own_column) = (UNIT_POS_X / fours, UNIT_POS_X % fours);

    // What was summed before the last so many numbers, and these.
    let mut totals = Array::<Vector<f32, N>>::new(4usize);
    let mut sums = Array::<Vector<f32, N>>::new(4usize);
    #[unroll]
    for i in 0..4usize {
        totals[i] = Vector::new(0.0f32);
        sums[i] = Vector::new(0.0f32);
    }
    let mut held_left = fetch::<E, N>(left, &left_side, 0u32, size.depth);
    let mut held_right = fetch::<E, N>(right, &right_side, 0u32, size.depth);
    for at in range_stepped(0, size.depth, comptime!(DEPTH as u32)) {
        left_tile[(left_side.place * pitch + left_side.four) as usize] = held_left;
        right_tile[(right_side.place * pitch + right_side.four) as usize] = held_right;
        sync_cube();
        let next = at + comptime!(DEPTH as u32);
        held_left = fetch::<E, N>(left, &left_side, next, size.depth);
        held_right = fetch::<E, N>(right, &right_side, next, size.depth);
        #[unroll]
        for k in 0..DEPTH {
            let line = comptime!((k * PITCH) as u32);
            let a = left_tile[(line + own_row) as usize];
            let b = right_tile[(line + own_column) as usize];
            #[unroll]
            for i in 0..4usize {
                sums[i] = fma(b, Vector::new(a.extract(i)), sums[i]);
            }
        }
        if next % comptime!(LONGEST_SUM as u32) == 0 {
            #[unroll]
            for i in 0..4usize {
                totals[i] += sums[i];
                sums[i] = Vector::new(0.0f32);
            }
        }
        sync_cube();
    }

    let column = CUBE_POS_X * comptime!(TILE as u32) + own_column * 4;
    #[unroll]
    for i in 0..4usize {
        let row = CUBE_POS_Y * comptime!(TILE as u32) + own_row * 4 + comptime!(i as u32);
        let sum = totals[i] + sums[i];
        if row < size.rows {
            let start = (CUBE_POS_Z * size.rows + row) * size.columns;
            #[unroll]
            for lane in 0..4usize {
                let column = column + comptime!(lane as u32);
                if column < size.columns {
                    out[(start + column) as usize] = O::cast_from(sum.extract(lane));
                }
            }
        }
    }
}

/// In `f32`, where CubeK's kernels take 2 to 17 s to compile through Vulkan, and are half as fast; in halves where tensor cores, if there
/// are any, would hardly be used, and compiling takes as long.
fn is_worth_it(a: &CubeTensor, b: &CubeTensor) -> bool {
    match a.dtype {
        DType::F32 => true,
        DType::F16 | DType::BF16 => matches!(a.device, CubeDevice::Wgpu(_)) && !is_large(a, b),
        _ => false,
    }
}

/// `a b`, written to memory without gaps; says whether it does.
///
/// # Shapes
/// - a: `[..., m, k]`, b: `[..., k, n]`, or views, of up to four dimensions; out: `[..., m, n]`
pub(super) fn product_into(a: &CubeTensor, b: &CubeTensor, out: &CubeTensor) -> bool {
    let rank = a.meta.rank();
    let shapes = [a, b].map(|x| x.meta.shape());
    let fits = [a, b].iter().all(|x| {
        x.dtype == a.dtype
            && !x.meta.is_tiled()
            // Offsets are of 32 bits.
            && (x.handle.size() as usize) < u32::MAX as usize
    });
    let alike = (2..=4).contains(&rank)
        && b.meta.rank() == rank
        && shapes[0][..rank - 2] == shapes[1][..rank - 2];
    if !fits || !alike || !out.is_contiguous() || !is_worth_it(a, b) {
        return false;
    }
    let batch = |place: usize| {
        if rank > place {
            shapes[0][rank - 1 - place]
        } else {
            1
        }
    };
    let (outer, inner) = (batch(3), batch(2));
    let (m, k, n) = (
        shapes[0][rank - 2],
        shapes[0][rank - 1],
        shapes[1][rank - 1],
    );
    let cubes = [n.div_ceil(TILE), m.div_ceil(TILE), outer * inner];
    let hardware = &a.client.properties().hardware;
    let most = hardware.max_cube_count;
    let there = cubes[0] <= most.0 as usize
        && cubes[1] <= most.1 as usize
        && cubes[2] <= most.2 as usize
        && hardware.max_units_per_cube >= UNITS
        && outer * inner * m * n < u32::MAX as usize;
    if !there || k == 0 || cubes.contains(&0) {
        return false;
    }
    let strides = |x: &CubeTensor, line: usize, depth: usize| {
        let of = |dim: usize| x.meta.strides()[dim] as u32;
        let of_batch = |place: usize| {
            if rank > place {
                of(rank - 1 - place)
            } else {
                0
            }
        };
        StridesLaunch::new(of(line), of(depth), of_batch(3), of_batch(2))
    };
    let along = (
        a.meta.strides()[rank - 1] == 1,
        b.meta.strides()[rank - 2] == 1,
    );
    #[cfg(test)]
    LAUNCHED.set(LAUNCHED.get() + 1);
    // SAFETY: what lies beyond the matrices is neither read nor written.
    unsafe {
        multiply::launch_unchecked(
            &a.client,
            CubeCount::Static(cubes[0] as u32, cubes[1] as u32, cubes[2] as u32),
            CubeDim::new_1d(UNITS),
            4,
            buffer(a),
            buffer(b),
            buffer(out),
            ExtentLaunch::new(
                m as u32,
                n as u32,
                k as u32,
                inner as u32,
                strides(a, rank - 2, rank - 1),
                strides(b, rank - 1, rank - 2),
            ),
            along,
            [elem(a), elem(out)],
        );
    }
    true
}
