//! Tiles in shared memory, and their products by the matrices of planes.

use cubecl::cmma::{self, Matrix, MatrixIdent, MatrixLayout};
use cubecl::prelude::*;

pub(super) use super::super::matrices::PIECE;
pub(super) use super::super::planes::{PLANES, Planes};

/// Rows of the other side that are seen at a time. With more of them, an H200 has room for one cube on a processor only.
pub(super) const COLUMNS: usize = 32;

/// How a kernel divides its work; every distinct value is one compiled kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Plan {
    /// The width of a head.
    pub(super) d: usize,
    pub(super) planes: Planes,
    pub(super) kind: Kind,
}

/// What is known of the keys that a query sees, and of the scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) causal: bool,
    pub(super) windowed: bool,
    /// Every row of the batch has bounds of its own.
    pub(super) padded: bool,
    /// Every query has bounds of its own, which are all there is to know.
    pub(super) ranged: bool,
    pub(super) capped: bool,
}

impl Plan {
    pub(super) fn units(self) -> usize {
        PLANES * self.planes.units
    }

    /// The side of a matrix.
    pub(super) fn side(self) -> usize {
        self.planes.side
    }

    /// Rows of a cube: a side of a matrix for each plane.
    pub(super) fn rows(self) -> usize {
        PLANES * self.side()
    }

    /// Matrices along the rows of the other side.
    pub(super) fn blocks(self) -> usize {
        COLUMNS / self.side()
    }

    /// Of one row of operands, with one more that keeps the rows of a column in banks of their own.
    pub(super) fn pitch(self) -> usize {
        self.d / PIECE + 1
    }

    /// Pieces of a tile of the other side.
    pub(super) fn tile(self) -> usize {
        COLUMNS * self.pitch()
    }

    /// Pieces for two such tiles, or the rows of the cube.
    pub(super) fn tiles(self) -> usize {
        (2 * COLUMNS).max(self.rows()) * self.pitch()
    }

    /// Fours of a row of scores that a unit computes.
    pub(super) fn own(self) -> usize {
        self.side() / 4 / self.planes.sharers()
    }

    /// Matrices side by side in a row of operands.
    pub(super) fn depth(self) -> usize {
        self.d / self.side()
    }

    /// Fours of numbers from one row of scores to the next: a matrix of them for each plane at a time, and a four that keeps the
    /// rows in banks of their own.
    pub(super) fn scores_pitch(self) -> usize {
        self.side() / 4 + 1
    }

    /// Fours of scores.
    pub(super) fn scores(self) -> usize {
        self.rows() * self.scores_pitch()
    }

    /// Fours of halves from one row of weights to the next, likewise.
    pub(super) fn weights_pitch(self) -> usize {
        self.side() / 4 + 2
    }

    /// Fours of weights.
    pub(super) fn weights(self) -> usize {
        self.rows() * self.weights_pitch()
    }

    /// Bytes of shared memory, with what is known of each row of the other side.
    pub(super) fn bytes(self) -> usize {
        16 * (self.tiles() + self.scores()) + 8 * self.weights() + 16 * COLUMNS
    }
}

/// From one row of the batch, one head and one position to the next, in pieces.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Distances {
    pub(super) row: u32,
    pub(super) head: u32,
    pub(super) position: u32,
}

/// Where a unit works.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Place {
    /// The first row of its plane, of those of the cube.
    pub(super) plane_row: u32,
    /// Its own row, of those of the plane.
    pub(super) own_row: u32,
    /// Which of the units that share this row.
    pub(super) part: u32,
}

#[cube]
pub(super) fn place(#[comptime] plan: Plan) -> Place {
    let lane = UNIT_POS_X % comptime!(plan.planes.units as u32);
    Place {
        plane_row: UNIT_POS_X / comptime!(plan.planes.units as u32) * comptime!(plan.side() as u32),
        own_row: lane % comptime!(plan.side() as u32),
        part: lane / comptime!(plan.side() as u32),
    }
}

/// The pieces of some rows that a unit copies: so many.
fn copies(plan: Plan, rows: usize) -> usize {
    (rows * plan.d / PIECE).div_ceil(plan.units())
}

/// Where the rows of a tile are in memory.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Rows {
    /// The row at position 0.
    pub(super) start: u32,
    pub(super) position: u32,
    /// How many there are.
    pub(super) count: u32,
}

#[cube]
pub(super) fn rows_of(row: u32, head: u32, distances: &Distances, count: u32) -> Rows {
    Rows {
        start: row * distances.row + head * distances.head,
        position: distances.position,
        count,
    }
}

/// Brings a unit's pieces of some rows to registers; rows behind the last are this one again.
#[cube]
pub(super) fn fetch<N: Size>(
    from: &[Vector<u32, N>],
    rows: &Rows,
    first: u32,
    held: &mut Array<Vector<u32, N>>,
    #[comptime] count: usize,
    #[comptime] plan: Plan,
) {
    let pieces = comptime!((plan.d / PIECE) as u32);
    #[unroll]
    for i in 0..comptime!(copies(plan, count)) {
        let at = UNIT_POS_X + comptime!((i * plan.units()) as u32);
        let row = min(first + at / pieces, rows.count - 1);
        held[i] = from[(rows.start + row * rows.position + at % pieces) as usize];
    }
}

/// Registers for the pieces of some rows.
#[cube]
pub(super) fn hold<N: Size>(
    #[comptime] count: usize,
    #[comptime] plan: Plan,
) -> Array<Vector<u32, N>> {
    Array::<Vector<u32, N>>::new(comptime!(copies(plan, count)))
}

/// Writes these pieces to shared memory.
#[cube]
pub(super) fn put<N: Size>(
    held: &Array<Vector<u32, N>>,
    tiles: &mut Shared<[Vector<u32, N>]>,
    #[comptime] to: usize,
    #[comptime] count: usize,
    #[comptime] plan: Plan,
) {
    let pieces = comptime!((plan.d / PIECE) as u32);
    let units = comptime!(plan.units());
    let all = comptime!(count * plan.d / PIECE);
    #[unroll]
    for i in 0..comptime!(copies(plan, count)) {
        let at = UNIT_POS_X + comptime!((i * units) as u32);
        let target =
            at / pieces * comptime!(plan.pitch() as u32) + at % pieces + comptime!(to as u32);
        if comptime!((i + 1) * units <= all) {
            tiles[target as usize] = held[i];
        } else if at < comptime!(all as u32) {
            tiles[target as usize] = held[i];
        }
    }
}

/// The rows of the cube that begin at one, as left sides of its planes.
#[cube]
pub(super) fn own_sides<E: Float, N: Size>(
    from: &[Vector<u32, N>],
    rows: &Rows,
    first: u32,
    tiles: &mut Shared<[Vector<u32, N>]>,
    place: &Place,
    #[comptime] plan: Plan,
) -> Sequence<Matrix<E>> {
    let mut held = hold::<N>(comptime!(plan.rows()), plan);
    fetch::<N>(from, rows, first, &mut held, comptime!(plan.rows()), plan);
    put::<N>(&held, tiles, 0usize, comptime!(plan.rows()), plan);
    sync_cube();
    let sides = left_sides::<E, N>(&*tiles, place, plan);
    sync_cube();
    sides
}

/// The rows of this plane, as left sides.
#[cube]
fn left_sides<E: Float, N: Size>(
    tiles: &Shared<[Vector<u32, N>]>,
    place: &Place,
    #[comptime] plan: Plan,
) -> Sequence<Matrix<E>> {
    let side = comptime!(plan.side());
    let mut sides = Sequence::<Matrix<E>>::new();
    #[unroll]
    for k in 0..comptime!(plan.depth()) {
        // SAFETY: loaded at once.
        let mut matrix = unsafe {
            Matrix::<E>::uninitialized(MatrixIdent::A, side, side, side, MatrixLayout::RowMajor)
        };
        let at = place.plane_row * comptime!(plan.pitch() as u32)
            + comptime!((k * plan.side() / PIECE) as u32);
        let at = at as usize;
        let pitch = comptime!((plan.pitch() * 4) as u32).runtime();
        cmma::load(&mut matrix, &tiles[at..at + 1], pitch);
        sides.push(matrix);
    }
    sides
}

/// New sums of a plane, as wide as a row of operands.
#[cube]
pub(super) fn sums(#[comptime] plan: Plan) -> Sequence<Matrix<f32>> {
    let mut sums = Sequence::<Matrix<f32>>::new();
    #[unroll]
    for _ in 0..comptime!(plan.depth()) {
        sums.push(zeros(plan));
    }
    sums
}

#[cube]
fn zeros(#[comptime] plan: Plan) -> Matrix<f32> {
    let side = comptime!(plan.side());
    Matrix::<f32>::from_value(
        MatrixIdent::Accumulator,
        side,
        side,
        side,
        MatrixLayout::Undefined,
        0.0f32,
    )
}

/// The products of the plane's rows with some of a tile, to its scores.
#[cube]
pub(super) fn score<E: Float, N: Size>(
    left: &Sequence<Matrix<E>>,
    tiles: &Shared<[Vector<u32, N>]>,
    #[comptime] from: usize,
    #[comptime] block: usize,
    scores: &mut Shared<[Vector<f32, N>]>,
    place: &Place,
    #[comptime] plan: Plan,
) {
    let side = comptime!(plan.side());
    let sum = zeros(plan);
    #[unroll]
    for k in 0..comptime!(plan.depth()) {
        // SAFETY: loaded at once.
        let mut right = unsafe {
            Matrix::<E>::uninitialized(MatrixIdent::B, side, side, side, MatrixLayout::ColMajor)
        };
        let at = comptime!(from + block * plan.side() * plan.pitch() + k * plan.side() / PIECE);
        let pitch = comptime!((plan.pitch() * 4) as u32).runtime();
        cmma::load(&mut right, &tiles[at..at + 1], pitch);
        cmma::execute(left.index(k), &right, &sum, &sum);
    }
    store_scores::<N>(&sum, scores, place, plan);
}

#[cube]
fn store_scores<N: Size>(
    sum: &Matrix<f32>,
    scores: &mut Shared<[Vector<f32, N>]>,
    place: &Place,
    #[comptime] plan: Plan,
) {
    let at = (place.plane_row * comptime!(plan.scores_pitch() as u32)) as usize;
    let pitch = comptime!((plan.scores_pitch() * 4) as u32).runtime();
    cmma::store(&mut scores[at..at + 1], sum, pitch, MatrixLayout::RowMajor);
}

/// Adds the product of the plane's weights with some rows of a tile.
#[cube]
pub(super) fn weigh<E: Float, N: Size>(
    weights: &Shared<[Vector<E, N>]>,
    tiles: &Shared<[Vector<u32, N>]>,
    #[comptime] from: usize,
    #[comptime] block: usize,
    sums: &Sequence<Matrix<f32>>,
    place: &Place,
    #[comptime] plan: Plan,
) {
    let side = comptime!(plan.side());
    // SAFETY: loaded at once.
    let mut left = unsafe {
        Matrix::<E>::uninitialized(MatrixIdent::A, side, side, side, MatrixLayout::RowMajor)
    };
    let at = (place.plane_row * comptime!(plan.weights_pitch() as u32)) as usize;
    let pitch = comptime!((plan.weights_pitch() * 4) as u32).runtime();
    cmma::load(&mut left, &weights[at..at + 1], pitch);
    #[unroll]
    for j in 0..comptime!(plan.depth()) {
        // SAFETY: loaded at once.
        let mut right = unsafe {
            Matrix::<E>::uninitialized(MatrixIdent::B, side, side, side, MatrixLayout::RowMajor)
        };
        let at = comptime!(from + block * plan.side() * plan.pitch() + j * plan.side() / PIECE);
        let pitch = comptime!((plan.pitch() * 4) as u32).runtime();
        cmma::load(&mut right, &tiles[at..at + 1], pitch);
        let sum = sums.index(j);
        cmma::execute(&left, &right, sum, sum);
    }
}

/// Writes the plane's sums to its rows of the result, by way of its rows of scores.
#[cube]
pub(super) fn write<E: Float, N: Size>(
    sums: &Sequence<Matrix<f32>>,
    scores: &mut Shared<[Vector<f32, N>]>,
    out: &mut [Vector<E, N>],
    start: u32,
    exists: bool,
    place: &Place,
    #[comptime] plan: Plan,
) {
    let mine = own_scores(place, plan);
    #[unroll]
    for j in 0..comptime!(plan.depth()) {
        store_scores::<N>(sums.index(j), scores, place, plan);
        sync_plane();
        if exists {
            let to = start
                + comptime!((j * plan.side() / 4) as u32)
                + place.part * comptime!(plan.own() as u32);
            #[unroll]
            for i in 0..comptime!(plan.own()) {
                let i = comptime!(i as u32);
                out[(to + i) as usize] = Vector::cast_from(scores[(mine + i) as usize]);
            }
        }
        sync_plane();
    }
}

/// The first four of a unit's scores.
#[cube]
pub(super) fn own_scores(place: &Place, #[comptime] plan: Plan) -> u32 {
    (place.plane_row + place.own_row) * comptime!(plan.scores_pitch() as u32)
        + place.part * comptime!(plan.own() as u32)
}

/// The first four of its weights.
#[cube]
pub(super) fn own_weights(place: &Place, #[comptime] plan: Plan) -> u32 {
    (place.plane_row + place.own_row) * comptime!(plan.weights_pitch() as u32)
        + place.part * comptime!(plan.own() as u32)
}
