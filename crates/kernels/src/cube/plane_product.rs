//! Large matrix products by the matrices of planes, from shared memory. Sums are `f32`.
//!
//! A cube multiplies 128 x 128 numbers, 32 of the sum at a time; while it does, its units hold the next 32 in registers. Both
//! sides lie in shared memory as in global memory, whichever way round that is: the matrices are loaded in either order.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cmma::{self, Matrix, MatrixIdent, MatrixLayout};
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::matrices::{Distances, PIECE, Side, own_tile};
use super::memory::{buffer, elem};
use super::planes::{PLANES, Planes, zeros};

/// Rows and columns of a cube's tile. Larger ones leave a processor room for one cube only, which waits for its memory.
const TILE: usize = 128;

/// Numbers that are summed at a time. Twice as many, or two buffers, leave room for one cube only, too.
const DEPTH: usize = 32;

/// Rows and columns of a plane.
const OF_PLANE: usize = 64;

#[cfg(all(test, feature = "flex"))]
mod tests;

#[cfg(test)]
thread_local! {
    /// The products that this thread launched: tests see who computed.
    pub(super) static LAUNCHED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// What the compiler has to know of a product; every distinct value is one compiled kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Plan {
    left: Staged,
    right: Staged,
    /// How a second product's right side lies; its left side's rows are without gaps.
    more: Option<Staged>,
    /// The result is of the type of the operands, not `f32`.
    rounded: bool,
    planes: Planes,
}

/// How a side of a tile lies in shared memory: as in global memory, in lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Staged {
    /// Sums run along a line.
    along: bool,
    /// No tile reaches beyond the rows or columns.
    wide: bool,
    /// The sum is of whole depths.
    deep: bool,
    units: usize,
}

impl Staged {
    fn lines(self) -> usize {
        if self.along { TILE } else { DEPTH }
    }

    /// Pieces of a line.
    fn pieces(self) -> usize {
        (if self.along { DEPTH } else { TILE }) / PIECE
    }

    /// From one line to the next, with a piece more, so that the rows of a matrix lie in banks of their own.
    fn pitch(self) -> usize {
        self.pieces() + 1
    }

    fn size(self) -> usize {
        self.lines() * self.pitch()
    }

    /// Pieces that a unit copies.
    fn held(self) -> usize {
        TILE * DEPTH / PIECE / self.units
    }

    /// Lines between them.
    fn step(self) -> usize {
        self.units / self.pieces()
    }
}

impl Plan {
    /// Matrices along a plane's rows or columns.
    fn matrices(self) -> usize {
        OF_PLANE / self.planes.side
    }

    /// Pieces of a row of the result that a plane writes by way of shared memory, and how many rows at a time.
    fn written(self) -> (usize, usize) {
        if self.rounded {
            (OF_PLANE / PIECE, 2 * self.planes.side)
        } else {
            (2 * OF_PLANE / PIECE, self.planes.side)
        }
    }

    /// Pieces of shared memory.
    fn shared(self) -> usize {
        let (pieces, rows) = self.written();
        let sides = |right: Staged| self.left.size() + right.size();
        let stage = sides(self.right).max(self.more.map_or(0, |more| {
            Staged {
                along: true,
                ..self.left
            }
            .size()
                + more.size()
        }));
        stage.max(PLANES * rows * (pieces + 1))
    }
}

/// The numbers of a product that may change without compiling again. Distances are in pieces.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Extent {
    rows: u32,
    columns: u32,
    depth: u32,
    /// What the second product sums.
    more_depth: u32,
    row_tiles: u32,
    column_tiles: u32,
    /// The inner dimension of the batch.
    inner: u32,
    left: Distances,
    right: Distances,
    out: Distances,
    more_left: u32,
    more_right: u32,
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn multiply<E: Float, N: Size>(
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
    let (row, column) = (own.row * tile, own.column * tile);
    let (outer, inner) = (CUBE_POS_Y / size.inner, CUBE_POS_Y % size.inner);

    let mut shared = Shared::<[Vector<u32, N>]>::new_slice(comptime!(plan.shared()));
    let side = comptime!(plan.planes.side);
    let sums = zeros(comptime!(plan.matrices() * plan.matrices()), side);
    let left_start = outer * size.left.outer + inner * size.left.inner;
    let right_start = outer * size.right.outer + inner * size.right.inner;
    let left_side = from_tile(row, size.rows, left_start, size.left.pitch, plan.left);
    let right_side = from_tile(
        column,
        size.columns,
        right_start,
        size.right.pitch,
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
        let left_side = from_tile(row, size.rows, 0u32, size.more_left, along);
        let right_side = from_tile(column, size.columns, 0u32, size.more_right, other);
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
fn from_tile(first: u32, all: u32, start: u32, pitch: u32, #[comptime] side: Staged) -> Source {
    let pieces = comptime!(side.pieces() as u32);
    let line = UNIT_POS_X / pieces;
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
    Source {
        line,
        piece: UNIT_POS_X % pieces,
        start: start + at,
        pitch,
        exist: all - first,
    }
}

/// Brings a unit's pieces of the numbers from one place of the sum on to registers. Those that do not exist are zeros, or are not
/// looked at.
#[cube]
fn fetch<N: Size>(
    from: &[Vector<u32, N>],
    held: &mut Array<Vector<u32, N>>,
    source: &Source,
    at: u32,
    depth: u32,
    #[comptime] side: Staged,
) {
    #[unroll]
    for j in 0..comptime!(side.held()) {
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

#[cube]
fn put<N: Size>(
    held: &Array<Vector<u32, N>>,
    shared: &mut Shared<[Vector<u32, N>]>,
    source: &Source,
    #[comptime] start: usize,
    #[comptime] side: Staged,
) {
    let first =
        source.line * comptime!(side.pitch() as u32) + source.piece + comptime!(start as u32);
    #[unroll]
    for j in 0..comptime!(side.held()) {
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
    for _ in 0..matrices {
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
    let plane_row = plane / across * comptime!(OF_PLANE as u32);
    let plane_column = plane % across * comptime!(OF_PLANE as u32);
    let right_start = comptime!(ls.size());

    let mut held_left = Array::<Vector<u32, N>>::new(comptime!(ls.held()));
    let mut held_right = Array::<Vector<u32, N>>::new(comptime!(rs.held()));
    fetch::<N>(left, &mut held_left, &left_side, 0u32, depth, ls);
    fetch::<N>(right, &mut held_right, &right_side, 0u32, depth, rs);
    put::<N>(&held_left, shared, &left_side, 0usize, ls);
    put::<N>(&held_right, shared, &right_side, right_start, rs);
    sync_cube();
    let step = comptime!(DEPTH as u32);
    for at in range_stepped(0, depth, step) {
        let next = at + step;
        if next < depth {
            fetch::<N>(left, &mut held_left, &left_side, next, depth, ls);
            fetch::<N>(right, &mut held_right, &right_side, next, depth, rs);
        }
        #[unroll]
        for k in 0..comptime!(DEPTH / side) {
            #[unroll]
            for i in 0..matrices {
                load::<E, N>(a.index_mut(i), &*shared, plane_row, 0usize, i, k, side, ls);
            }
            #[unroll]
            for i in 0..matrices {
                load::<E, N>(
                    b.index_mut(i),
                    &*shared,
                    plane_column,
                    right_start,
                    i,
                    k,
                    side,
                    rs,
                );
            }
            #[unroll]
            for i in 0..matrices {
                #[unroll]
                for j in 0..matrices {
                    let sum = sums.index(comptime!(i * matrices + j));
                    cmma::execute(a.index(i), b.index(j), sum, sum);
                }
            }
        }
        sync_cube();
        if next < depth {
            put::<N>(&held_left, shared, &left_side, 0usize, ls);
            put::<N>(&held_right, shared, &right_side, right_start, rs);
            sync_cube();
        }
    }
}

/// One matrix of a side: the i-th of the plane's rows or columns, the k-th of the sum.
#[cube]
fn load<E: Float, N: Size>(
    matrix: &mut Matrix<E>,
    shared: &Shared<[Vector<u32, N>]>,
    first: u32,
    #[comptime] start: usize,
    #[comptime] i: usize,
    #[comptime] k: usize,
    #[comptime] square: usize,
    #[comptime] side: Staged,
) {
    let (across, along) = comptime!((i * square, k * square));
    let at = if comptime!(side.along) {
        (first + comptime!(across as u32)) * comptime!(side.pitch() as u32)
            + comptime!((start + along / PIECE) as u32)
    } else {
        first / comptime!(PIECE as u32)
            + comptime!((start + along * side.pitch() + across / PIECE) as u32)
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

/// How [`product_into`] computes it, if it does.
pub(super) struct Chosen {
    left: Side,
    right: Side,
    /// The sides of a second product.
    more: Option<(Side, Side)>,
    planes: Planes,
}

/// How `a b`, or `a b + c d` with a short side between them, is computed here, if it is.
pub(super) fn chosen(
    a: &CubeTensor,
    b: &CubeTensor,
    more: Option<(&CubeTensor, &CubeTensor)>,
) -> Option<Chosen> {
    let half = matches!(a.dtype, DType::F16 | DType::BF16);
    let same = more.is_none_or(|(c, d)| c.dtype == a.dtype && d.dtype == a.dtype);
    if !half || !same || a.dtype != b.dtype {
        return None;
    }
    let (left, right) = (Side::of(a)?, Side::of(b)?);
    let more = match more {
        Some((c, d)) => {
            let (c, d) = (Side::of(c)?, Side::of(d)?);
            let fits = !c.transposed && c.batch == [1, 1] && left.batch == [1, 1];
            Some(fits.then_some((c, d))?)
        }
        None => None,
    };
    let ([m, k], [_, n]) = (left.size, right.size);
    // Whole pieces along the lines, of both sides and of the result.
    let even = |size: usize| size.is_multiple_of(PIECE);
    let short = more.as_ref().map_or(0, |(c, _)| c.size[1]);
    let tiles = m.div_ceil(TILE) * n.div_ceil(TILE);
    let most = a.client.properties().hardware.max_cube_count;
    let fits = m > OF_PLANE
        && n > OF_PLANE
        && [k, n, short].into_iter().all(even)
        && (!left.transposed || even(m))
        && left.batch == right.batch
        && tiles <= most.0 as usize
        && left.batch.iter().product::<usize>() <= most.1 as usize;
    let planes = fits.then(|| Planes::of(a, |_| SHARED_BYTES)).flatten()?;
    Some(Chosen {
        left,
        right,
        more,
        planes,
    })
}

/// What the largest plan needs.
const SHARED_BYTES: usize = 16 * 2 * TILE * (DEPTH / PIECE + 1);

/// `a b`, and `c d` if it was chosen with them, written to memory without gaps, of their type or `f32`.
///
/// # Shapes
/// - a: `[..., m, k]`, b: `[..., k, n]`, or views; c: `[m, rank]`, d: `[rank, n]`; out: `[..., m, n]`
pub(super) fn product_into(
    chosen: &Chosen,
    a: &CubeTensor,
    b: &CubeTensor,
    more: Option<(&CubeTensor, &CubeTensor)>,
    out: &CubeTensor,
) {
    let Chosen { left, right, .. } = chosen;
    let ([m, k], [_, n]) = (left.size, right.size);
    let deep = k.is_multiple_of(DEPTH);
    let units = PLANES * chosen.planes.units;
    let staged = |along: bool, size: usize| Staged {
        along,
        wide: size.is_multiple_of(TILE),
        deep,
        units,
    };
    let (short, [more_left, more_right]) = match &chosen.more {
        Some((c, d)) => (c.size[1], [c.pitch, d.pitch]),
        None => (0, [0, 0]),
    };
    let plan = Plan {
        left: staged(!left.transposed, m),
        right: staged(right.transposed, n),
        more: chosen.more.as_ref().map(|(_, d)| Staged {
            deep: false,
            ..staged(d.transposed, n)
        }),
        rounded: out.dtype != DType::F32,
        planes: chosen.planes,
    };
    debug_assert!(plan.shared() * 16 <= SHARED_BYTES);
    let result =
        Side::of(out).unwrap_or_else(|| unreachable!("rows as even as those of the right side"));
    let tiles = [m.div_ceil(TILE), n.div_ceil(TILE)];
    let [outer, inner] = left.batch;
    let pieces = |distance: usize| (distance / PIECE) as u32;
    #[cfg(test)]
    LAUNCHED.set(LAUNCHED.get() + 1);
    let (c, d) = more.unwrap_or((a, b));
    // SAFETY: what lies beyond the matrices is neither read nor written.
    unsafe {
        multiply::launch_unchecked(
            &a.client,
            CubeCount::Static((tiles[0] * tiles[1]) as u32, (outer * inner) as u32, 1),
            CubeDim::new_1d(units as u32),
            4,
            buffer(a),
            buffer(b),
            buffer(c),
            buffer(d),
            buffer(out),
            ExtentLaunch::new(
                m as u32,
                n as u32,
                k as u32,
                short as u32,
                tiles[0] as u32,
                tiles[1] as u32,
                inner as u32,
                left.distances(),
                right.distances(),
                result.distances(),
                pieces(more_left),
                pieces(more_right),
            ),
            plan,
            elem(a),
        );
    }
}
