//! The kernel.

use cubecl::cmma::{self, Matrix, MatrixIdent, MatrixLayout};
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::super::matrices::{Distances, PIECE, own_tile};
use super::super::planes::{PLANES, zeros};
use super::plan::{DEPTH, OF_PLANE, Plan, Staged, TILE};

/// The numbers of a product that may change without compiling again. Distances are in pieces.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Extent {
    pub(super) rows: u32,
    pub(super) columns: u32,
    pub(super) depth: u32,
    /// What the second product sums.
    pub(super) more_depth: u32,
    pub(super) row_tiles: u32,
    pub(super) column_tiles: u32,
    /// The inner dimension of the batch.
    pub(super) inner: u32,
    pub(super) left: Distances,
    pub(super) right: Distances,
    pub(super) out: Distances,
    pub(super) more_left: u32,
    pub(super) more_right: u32,
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn multiply<E: Float, N: Size>(
    left: &[Vector<u32, N>],
    right: &[Vector<u32, N>],
    more_left: &[Vector<u32, N>],
    more_right: &[Vector<u32, N>],
    out: &mut [Vector<u32, N>],
    size: Extent,
    #[comptime] plan: Plan,
    #[define(E)] _type: ElemType,
) {
    let own = own_tile(size.row_tiles, size.column_tiles);
    let tile = comptime!(TILE as u32);
    let group = group(plan);
    let row = (own.row * comptime!(plan.tiles[0] as u32) + group.row) * tile;
    let column = (own.column * comptime!(plan.tiles[1] as u32) + group.column) * tile;
    let (outer, inner) = (CUBE_POS_Y / size.inner, CUBE_POS_Y % size.inner);

    let mut shared = Shared::<[Vector<u32, N>]>::new_slice(comptime!(plan.shared()));
    let side = comptime!(plan.planes.side);
    let sums = zeros(comptime!(plan.matrices() * plan.matrices()), side);
    let left_start = outer * size.left.outer + inner * size.left.inner;
    let right_start = outer * size.right.outer + inner * size.right.inner;
    let left_side = from_tile(
        row,
        size.rows,
        left_start,
        size.left.pitch,
        group.column,
        plan.left,
    );
    let right_side = from_tile(
        column,
        size.columns,
        right_start,
        size.right.pitch,
        group.row,
        plan.right,
    );
    add_products::<E, N>(
        left,
        right,
        left_side,
        right_side,
        size.depth,
        &mut shared,
        &sums,
        plan.left,
        plan.right,
        plan,
    );
    if comptime!(plan.more.is_some()) {
        let along = comptime!(Staged {
            along: true,
            deep: false,
            ..plan.left
        });
        let other = comptime!(plan.more.unwrap_or(plan.right));
        let left_side = from_tile(row, size.rows, 0u32, size.more_left, group.column, along);
        let right_side = from_tile(
            column,
            size.columns,
            0u32,
            size.more_right,
            group.row,
            other,
        );
        add_products::<E, N>(
            more_left,
            more_right,
            left_side,
            right_side,
            size.more_depth,
            &mut shared,
            &sums,
            along,
            other,
            plan,
        );
    }
    let start = outer * size.out.outer + inner * size.out.inner;
    write::<E, N>(&sums, &mut shared, out, row, column, start, &size, plan);
}

/// Which of the cube's tiles is that of a unit's group.
#[derive(CubeType, Clone, Copy)]
struct Group {
    row: u32,
    column: u32,
}

#[cube]
fn group(#[comptime] plan: Plan) -> Group {
    let group = UNIT_POS_X / comptime!(plan.left.units as u32);
    let across = comptime!(plan.tiles[1] as u32);
    Group {
        row: group / across,
        column: group % across,
    }
}

/// What a unit copies of a side: pieces of some lines, the first of them where the sum begins.
#[derive(CubeType, Clone, Copy)]
struct Source {
    /// The first line and piece, of those of the tile.
    line: u32,
    piece: u32,
    /// Where the tile begins.
    start: u32,
    pitch: u32,
    /// Rows, or columns, of the tile that exist.
    exist: u32,
}

#[cube]
fn from_tile(
    first: u32,
    all: u32,
    start: u32,
    pitch: u32,
    part: u32,
    #[comptime] side: Staged,
) -> Source {
    let pieces = comptime!(side.pieces() as u32);
    let unit = UNIT_POS_X % comptime!(side.units as u32);
    let line = unit / pieces;
    // A group's tile may begin beyond the last row: nothing of it is written.
    let first = if comptime!(side.wide) {
        first
    } else {
        min(
            first,
            (all - 1) / comptime!(PIECE as u32) * comptime!(PIECE as u32),
        )
    };
    // Units that write at a time take lines whose pieces lie in different banks.
    let line = if comptime!(side.along) {
        line / 8 * 8 + line % 2 * 4 + line / 2 % 4
    } else {
        line
    };
    let at = if comptime!(side.along) {
        first * pitch
    } else {
        first / comptime!(PIECE as u32)
    };
    let line =
        line + part % comptime!(side.parts as u32) * comptime!((side.lines() / side.parts) as u32);
    Source {
        line,
        piece: unit % pieces,
        start: start + at,
        pitch,
        exist: all - first,
    }
}

/// Brings some of a unit's pieces of the numbers from one place of the sum on to registers. Those that do not exist are zeros, or
/// are not looked at.
#[cube]
#[allow(clippy::too_many_arguments)]
fn fetch<N: Size>(
    from: &[Vector<u32, N>],
    held: &mut Array<Vector<u32, N>>,
    source: &Source,
    at: u32,
    depth: u32,
    #[comptime] pieces: (usize, usize),
    #[comptime] side: Staged,
) {
    #[unroll]
    for j in comptime!(pieces.0)..comptime!(pieces.1) {
        let mut line = source.line + comptime!((j * side.step()) as u32);
        let mut piece = source.piece;
        let size = comptime!(PIECE as u32);
        // Of what is beyond the sum nothing may remain; what is beyond the rows or columns is not written.
        let mut summed = true.runtime();
        if comptime!(side.along) {
            if comptime!(!side.wide) {
                line = min(line, source.exist - 1);
            }
            if comptime!(!side.deep) {
                summed = at + piece * size < depth;
                piece = min(piece, (depth - 1 - at) / size);
            }
        } else {
            if comptime!(!side.wide) {
                piece = min(piece, (source.exist - 1) / size);
            }
            if comptime!(!side.deep) {
                summed = at + line < depth;
                line = min(line, depth - 1 - at);
            }
        }
        let offset = if comptime!(side.along) {
            at / comptime!(PIECE as u32)
        } else {
            at * source.pitch
        };
        let numbers = from[(source.start + offset + line * source.pitch + piece) as usize];
        if comptime!(side.deep) {
            held[j] = numbers;
        } else {
            held[j] = numbers * Vector::new(u32::cast_from(summed));
        }
    }
}

/// Puts some of them into shared memory.
#[cube]
fn put<N: Size>(
    held: &Array<Vector<u32, N>>,
    shared: &mut Shared<[Vector<u32, N>]>,
    source: &Source,
    start: u32,
    #[comptime] pieces: (usize, usize),
    #[comptime] side: Staged,
) {
    let first = source.line * comptime!(side.pitch() as u32) + source.piece + start;
    #[unroll]
    for j in comptime!(pieces.0)..comptime!(pieces.1) {
        shared[(first + comptime!((j * side.step() * side.pitch()) as u32)) as usize] = held[j];
    }
}

/// Adds a product to the sums of the plane.
#[cube]
#[allow(clippy::too_many_arguments)]
fn add_products<E: Float, N: Size>(
    left: &[Vector<u32, N>],
    right: &[Vector<u32, N>],
    left_side: Source,
    right_side: Source,
    depth: u32,
    shared: &mut Shared<[Vector<u32, N>]>,
    sums: &Sequence<Matrix<f32>>,
    #[comptime] ls: Staged,
    #[comptime] rs: Staged,
    #[comptime] plan: Plan,
) {
    let (left_layout, right_layout) = comptime!((
        if ls.along {
            MatrixLayout::RowMajor
        } else {
            MatrixLayout::ColMajor
        },
        if rs.along {
            MatrixLayout::ColMajor
        } else {
            MatrixLayout::RowMajor
        },
    ));
    let (side, matrices) = comptime!((plan.planes.side, plan.matrices()));
    let mut a = Sequence::<Matrix<E>>::new();
    let mut b = Sequence::<Matrix<E>>::new();
    #[unroll]
    for _ in 0..comptime!(DEPTH / side * matrices) {
        // SAFETY: loaded before they are multiplied.
        a.push(unsafe {
            Matrix::<E>::uninitialized(MatrixIdent::A, side, side, side, left_layout)
        });
        // SAFETY: as above.
        b.push(unsafe {
            Matrix::<E>::uninitialized(MatrixIdent::B, side, side, side, right_layout)
        });
    }
    let across = comptime!((TILE / OF_PLANE) as u32);
    let plane = UNIT_POS_X / comptime!(plan.planes.units as u32);
    let plane = plane % comptime!(PLANES as u32);
    let plane_row = plane / across * comptime!(OF_PLANE as u32);
    let plane_column = plane % across * comptime!(OF_PLANE as u32);
    let group = group(plan);
    let left_start = group.row * comptime!(ls.size() as u32);
    let right_start =
        comptime!((plan.tiles[0] * ls.size()) as u32) + group.column * comptime!(rs.size() as u32);

    let mut first_left = Array::<Vector<u32, N>>::new(comptime!(ls.held()));
    let mut first_right = Array::<Vector<u32, N>>::new(comptime!(rs.held()));
    let mut held_left = Array::<Vector<u32, N>>::new(comptime!(ls.held()));
    let mut held_right = Array::<Vector<u32, N>>::new(comptime!(rs.held()));
    let (all_left, all_right) = comptime!(((0, ls.held()), (0, rs.held())));
    fetch::<N>(left, &mut first_left, &left_side, 0u32, depth, all_left, ls);
    fetch::<N>(
        right,
        &mut first_right,
        &right_side,
        0u32,
        depth,
        all_right,
        rs,
    );
    let step = comptime!(DEPTH as u32);
    if step < depth {
        fetch::<N>(left, &mut held_left, &left_side, step, depth, all_left, ls);
        fetch::<N>(
            right,
            &mut held_right,
            &right_side,
            step,
            depth,
            all_right,
            rs,
        );
    }
    put::<N>(&first_left, shared, &left_side, left_start, all_left, ls);
    put::<N>(
        &first_right,
        shared,
        &right_side,
        right_start,
        all_right,
        rs,
    );
    sync_cube();
    for at in range_stepped(0, depth, step) {
        let (next, after) = (at + step, at + 2 * step);
        #[unroll]
        for k in 0..comptime!(DEPTH / side) {
            #[unroll]
            for i in 0..matrices {
                let a = a.index_mut(comptime!(k * matrices + i));
                load::<E, N>(a, &*shared, plane_row, left_start, i, k, side, ls);
            }
            #[unroll]
            for i in 0..matrices {
                let b = b.index_mut(comptime!(k * matrices + i));
                load::<E, N>(b, &*shared, plane_column, right_start, i, k, side, rs);
            }
        }
        #[unroll]
        for product in 0..comptime!(plan.products()) {
            let [puts, fetches] = comptime!(plan.between(product));
            if comptime!(product == plan.products() / 2) {
                // No plane loads any more.
                sync_cube();
            }
            if comptime!(puts.0 < puts.1) {
                if next < depth {
                    let (of_left, of_right) = comptime!(of_sides(puts, ls.held()));
                    put::<N>(&held_left, shared, &left_side, left_start, of_left, ls);
                    put::<N>(&held_right, shared, &right_side, right_start, of_right, rs);
                }
            }
            if comptime!(fetches.0 < fetches.1) {
                if after < depth {
                    let (of_left, of_right) = comptime!(of_sides(fetches, ls.held()));
                    fetch::<N>(left, &mut held_left, &left_side, after, depth, of_left, ls);
                    fetch::<N>(
                        right,
                        &mut held_right,
                        &right_side,
                        after,
                        depth,
                        of_right,
                        rs,
                    );
                }
            }
            let (k, sum) = comptime!((
                product / (matrices * matrices),
                product % (matrices * matrices)
            ));
            let (i, j) = comptime!((sum / matrices, sum % matrices));
            let sum = sums.index(sum);
            cmma::execute(
                a.index(comptime!(k * matrices + i)),
                b.index(comptime!(k * matrices + j)),
                sum,
                sum,
            );
        }
        sync_cube();
    }
}

/// Of the pieces of both sides, those of the left, which come first, and those of the right.
fn of_sides(pieces: (usize, usize), left: usize) -> ((usize, usize), (usize, usize)) {
    (
        (pieces.0.min(left), pieces.1.min(left)),
        (pieces.0.max(left) - left, pieces.1.max(left) - left),
    )
}

/// One matrix of a side: the i-th of the plane's rows or columns, the k-th of the sum.
#[cube]
fn load<E: Float, N: Size>(
    matrix: &mut Matrix<E>,
    shared: &Shared<[Vector<u32, N>]>,
    first: u32,
    start: u32,
    #[comptime] i: usize,
    #[comptime] k: usize,
    #[comptime] square: usize,
    #[comptime] side: Staged,
) {
    let (across, along) = comptime!((i * square, k * square));
    let at = if comptime!(side.along) {
        (first + comptime!(across as u32)) * comptime!(side.pitch() as u32)
            + start
            + comptime!((along / PIECE) as u32)
    } else {
        first / comptime!(PIECE as u32)
            + start
            + comptime!((along * side.pitch() + across / PIECE) as u32)
    };
    let at = at as usize;
    // In numbers of 32 bits.
    let pitch = comptime!((side.pitch() * 4) as u32).runtime();
    cmma::load(matrix, &shared[at..at + 1], pitch);
}

/// Writes the sums by way of shared memory: whole pieces, of rows and columns that exist.
#[cube]
#[allow(clippy::too_many_arguments)]
fn write<E: Float, N: Size>(
    sums: &Sequence<Matrix<f32>>,
    shared: &mut Shared<[Vector<u32, N>]>,
    out: &mut [Vector<u32, N>],
    row: u32,
    column: u32,
    start: u32,
    size: &Extent,
    #[comptime] plan: Plan,
) {
    let (pieces, rows) = comptime!(plan.written());
    let pitch = comptime!(pieces + 1);
    // Pieces of the result in one piece of distances.
    let wide = comptime!(if plan.rounded { 1u32 } else { 2u32 });
    let across = comptime!((TILE / OF_PLANE) as u32);
    let plane = UNIT_POS_X / comptime!(plan.planes.units as u32);
    let lane = UNIT_POS_X % comptime!(plan.planes.units as u32);
    let own = plane * comptime!((rows * pitch) as u32);
    let plane = plane % comptime!(PLANES as u32);
    let first_row = row + plane / across * comptime!(OF_PLANE as u32);
    let first =
        (column + plane % across * comptime!(OF_PLANE as u32)) / comptime!(PIECE as u32) * wide;
    let limit = size.columns / comptime!(PIECE as u32) * wide;
    #[unroll]
    for part in 0..comptime!(OF_PLANE / rows) {
        #[unroll]
        for i in 0..comptime!(rows / plan.planes.side) {
            #[unroll]
            for j in 0..comptime!(plan.matrices()) {
                let sum = sums.index(comptime!(
                    (part * rows / plan.planes.side + i) * plan.matrices() + j
                ));
                let at = own
                    + comptime!(
                        (i * plan.planes.side * pitch + j * pieces / plan.matrices()) as u32
                    );
                let at = at as usize;
                let stride = comptime!((pitch * 4) as u32).runtime();
                if comptime!(plan.rounded) {
                    let rounded = cmma::cast::<f32, E, cmma::Plane>(sum);
                    cmma::store(
                        &mut shared[at..at + 1],
                        &rounded,
                        stride,
                        MatrixLayout::RowMajor,
                    );
                } else {
                    cmma::store(&mut shared[at..at + 1], sum, stride, MatrixLayout::RowMajor);
                }
            }
        }
        sync_plane();
        #[unroll]
        for i in 0..comptime!(rows * pieces / plan.planes.units) {
            let at = lane + comptime!((i * plan.planes.units) as u32);
            let (line, piece) = (at / comptime!(pieces as u32), at % comptime!(pieces as u32));
            let to_row = first_row + line + comptime!((part * rows) as u32);
            let to = first + piece;
            if to_row < size.rows && to < limit {
                let from = own + line * comptime!(pitch as u32) + piece;
                out[(start * wide + to_row * size.out.pitch * wide + to) as usize] =
                    shared[from as usize];
            }
        }
        sync_plane();
    }
}
