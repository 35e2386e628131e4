//! Large matrix products by the matrices of planes, from shared memory. Sums are `f32`.
//!
//! A cube multiplies 256 x 128 numbers, or 128 x 256, or 128 x 128 where those would be few; 32 of the sum at a time. Meanwhile its
//! units hold the next 32 in registers. They put them into shared memory between the products, and fetch those after them: a plane
//! alone has half the rate of the tensor cores, and waits for each load behind all that were asked for before. Both sides lie in
//! shared memory as in global memory, whichever way round that is: the matrices are loaded in either order.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cmma::{self, Matrix, MatrixIdent, MatrixLayout};
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::matrices::{Distances, PIECE, Side, own_tile};
use super::memory::{buffer, elem};
use super::planes::{PLANES, Planes, zeros};

/// Rows and columns of a tile.
const TILE: usize = 128;

/// Numbers that are summed at a time. Twice as many, or two buffers, take more shared memory than a cube may have.
const DEPTH: usize = 32;

/// Cubes of two tiles that are worth it: an H200 has 132 processors, which take one of them each, or two of one tile.
const ENOUGH: usize = 128;

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
    /// Tiles of a cube, down and across; each has a group of [`PLANES`] planes.
    tiles: [usize; 2],
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
    /// Units of a group.
    units: usize,
    /// Groups that copy a part each.
    parts: usize,
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
        TILE * DEPTH / PIECE / self.units / self.parts
    }

    /// Lines between them.
    fn step(self) -> usize {
        self.units / self.pieces()
    }
}

impl Plan {
    /// Tiles of a cube.
    fn groups(self) -> usize {
        self.tiles[0] * self.tiles[1]
    }

    /// Matrices along a plane's rows or columns.
    fn matrices(self) -> usize {
        OF_PLANE / self.planes.side
    }

    /// Products of matrices for one depth.
    fn products(self) -> usize {
        DEPTH / self.planes.side * self.matrices() * self.matrices()
    }

    /// The pieces of both sides that a unit puts, and those that it fetches, after so many of these products: from one to before
    /// another. In their second half all matrices are loaded, so that the memory is free.
    fn between(self, products: usize) -> [(usize, usize); 2] {
        let pieces = self.left.held() + self.right.held();
        let quarter = self.products() / 4;
        [2, 3].map(|begin| {
            let place = |products: usize| {
                let done = products.saturating_sub(begin * quarter);
                (done * pieces / quarter).min(pieces)
            };
            (place(products), place(products + 1))
        })
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
        let stage = |left: Staged, right: Staged| {
            self.tiles[0] * left.size() + self.tiles[1] * right.size()
        };
        let along = Staged {
            along: true,
            ..self.left
        };
        let more = self.more.map_or(0, |more| stage(along, more));
        let stage = stage(self.left, self.right).max(more);
        stage.max(self.groups() * PLANES * rows * (pieces + 1))
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

/// How [`product_into`] computes it, if it does.
pub(super) struct Chosen {
    left: Side,
    right: Side,
    /// The sides of a second product.
    more: Option<(Side, Side)>,
    planes: Planes,
    /// Tiles of a cube, down and across.
    tiles: [usize; 2],
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
    let hardware = &a.client.properties().hardware;
    let room = hardware.max_units_per_cube as usize >= 2 * PLANES * planes.units
        && hardware.max_shared_memory_size >= 2 * SHARED_BYTES;
    let pair = if m > TILE { [2, 1] } else { [1, 2] };
    let pairs = m.div_ceil(pair[0] * TILE) * n.div_ceil(pair[1] * TILE);
    let many = pairs * left.batch.iter().product::<usize>() >= ENOUGH;
    let tiles = if many && room { pair } else { [1, 1] };
    Some(Chosen {
        left,
        right,
        more,
        planes,
        tiles,
    })
}

/// What the largest plan needs for each tile.
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
    let of_cube = chosen.tiles;
    let units = PLANES * chosen.planes.units;
    // One side has tiles of its own in this direction, and is shared in the other.
    let staged = |along: bool, size: usize, [own, shared]: [usize; 2]| Staged {
        along,
        wide: size.is_multiple_of(own * TILE),
        deep,
        units,
        parts: shared,
    };
    let across = [of_cube[1], of_cube[0]];
    let (short, [more_left, more_right]) = match &chosen.more {
        Some((c, d)) => (c.size[1], [c.pitch, d.pitch]),
        None => (0, [0, 0]),
    };
    let plan = Plan {
        left: staged(!left.transposed, m, of_cube),
        right: staged(right.transposed, n, across),
        more: chosen.more.as_ref().map(|(_, d)| Staged {
            deep: false,
            ..staged(d.transposed, n, across)
        }),
        rounded: out.dtype != DType::F32,
        planes: chosen.planes,
        tiles: of_cube,
    };
    debug_assert!(plan.shared() * 16 <= plan.groups() * SHARED_BYTES);
    let result =
        Side::of(out).unwrap_or_else(|| unreachable!("rows as even as those of the right side"));
    let tiles = [m.div_ceil(of_cube[0] * TILE), n.div_ceil(of_cube[1] * TILE)];
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
            CubeDim::new_1d((plan.groups() * units) as u32),
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
