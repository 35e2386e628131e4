//! Tiles in shared memory, and their products by the matrices of planes.

use cubecl::cmma::{self, Matrix, MatrixIdent, MatrixLayout};
use cubecl::intrinsic;
use cubecl::prelude::*;

pub(super) use super::super::matrices::PIECE;
use super::super::planes::zeros;
pub(super) use super::super::planes::{PLANES, Planes};

/// Rows of the other side that are seen at a time. With more of them, an H200 has room for one cube on a processor only.
pub(super) const COLUMNS: usize = 32;

/// The most strips of a plane: the registers of a unit hold no more.
pub(super) const STRIPS: usize = 2;

/// How a kernel divides its work; every distinct value is one compiled kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Plan {
    /// The width of a head.
    pub(super) d: usize,
    pub(super) planes: Planes,
    pub(super) kind: Kind,
    /// Scores stay in the registers that hold them: the device computes with each number of a plane's matrices where it is.
    pub(super) direct: bool,
    /// Matrices of rows that a plane has, one behind the other: what it loads of the other side is multiplied with all of them.
    pub(super) strips: usize,
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

    /// Rows of a plane.
    pub(super) fn of_plane(self) -> usize {
        self.strips * self.side()
    }

    /// Rows of a cube.
    pub(super) fn rows(self) -> usize {
        PLANES * self.of_plane()
    }

    /// The most rows that a cube of any of the three kernels has.
    pub(super) fn most_rows(self) -> usize {
        STRIPS * self.of_strip()
    }

    /// Rows of a strip of all planes, which go through shared memory at a time.
    fn of_strip(self) -> usize {
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
        (2 * COLUMNS).max(self.of_strip()) * self.pitch()
    }

    /// Matrices side by side in a row of operands.
    pub(super) fn depth(self) -> usize {
        self.d / self.side()
    }

    /// Pieces from one row of a matrix of sums to the next, with one more as above.
    fn sums_pitch(self) -> usize {
        self.side() / 4 + 1
    }

    /// Likewise of a matrix of halves.
    fn halves_pitch(self) -> usize {
        self.side() / PIECE + 1
    }

    /// Pieces by which a plane exchanges its numbers: a matrix of sums, or two of halves.
    fn exchanged(self) -> usize {
        self.side() * self.sums_pitch().max(2 * self.halves_pitch())
    }

    /// Of all planes.
    pub(super) fn exchange(self) -> usize {
        PLANES * self.exchanged()
    }

    /// Whether a unit computes a piece of a row of scores, and a plane can wait for itself alone: not all take the same way. Mesa's
    /// software driver, whose planes have a unit for each row, lets the whole cube wait.
    pub(super) fn fits(self) -> bool {
        self.planes.sharers() > 1 && self.side() == PIECE * self.planes.sharers()
    }

    /// Bytes of shared memory, with what is known of each row of the other side.
    pub(super) fn bytes(self) -> usize {
        16 * (self.tiles() + self.exchange() + COLUMNS)
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
    /// The first piece by which its plane exchanges numbers.
    exchanged: u32,
    /// Its own row, of those of each strip of the plane.
    pub(super) own_row: u32,
    /// Which of the units that share this row.
    pub(super) part: u32,
}

#[cube]
pub(super) fn place(#[comptime] plan: Plan) -> Place {
    let plane = UNIT_POS_X / comptime!(plan.planes.units as u32);
    let lane = UNIT_POS_X % comptime!(plan.planes.units as u32);
    Place {
        plane_row: plane * comptime!(plan.of_plane() as u32),
        exchanged: plane * comptime!(plan.exchanged() as u32),
        own_row: lane % comptime!(plan.side() as u32),
        part: lane / comptime!(plan.side() as u32),
    }
}

/// The first row of a plane's strip, where the cube's rows begin at one.
#[cube]
pub(super) fn row_of_strip(
    first: u32,
    place: &Place,
    #[comptime] strip: usize,
    #[comptime] plan: Plan,
) -> u32 {
    first + place.plane_row + comptime!((strip * plan.side()) as u32)
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

/// The rows of the cube that begin at one, as left sides of its planes: those of a plane's first strip, then those of the next.
#[cube]
pub(super) fn own_sides<E: Float, N: Size>(
    from: &[Vector<u32, N>],
    rows: &Rows,
    first: u32,
    tiles: &mut Shared<[Vector<u32, N>]>,
    place: &Place,
    #[comptime] plan: Plan,
) -> Sequence<Matrix<E>> {
    let mut sides = Sequence::<Matrix<E>>::new();
    #[unroll]
    for strip in 0..comptime!(plan.strips) {
        let mut held = hold::<N>(comptime!(plan.of_strip()), plan);
        let first = first + comptime!((strip * plan.side()) as u32);
        fetch_strip::<N>(from, rows, first, &mut held, plan);
        put::<N>(&held, tiles, 0usize, comptime!(plan.of_strip()), plan);
        sync_cube();
        left_sides::<E, N>(&*tiles, place, &mut sides, plan);
        sync_cube();
    }
    sides
}

/// As [`fetch`]: of all planes, the strips that begin here.
#[cube]
fn fetch_strip<N: Size>(
    from: &[Vector<u32, N>],
    rows: &Rows,
    first: u32,
    held: &mut Array<Vector<u32, N>>,
    #[comptime] plan: Plan,
) {
    let pieces = comptime!((plan.d / PIECE) as u32);
    let side = comptime!(plan.side() as u32);
    #[unroll]
    for i in 0..comptime!(copies(plan, plan.of_strip())) {
        let at = UNIT_POS_X + comptime!((i * plan.units()) as u32);
        let row = at / pieces;
        let row = row / side * comptime!(plan.of_plane() as u32) + row % side;
        let row = min(first + row, rows.count - 1);
        held[i] = from[(rows.start + row * rows.position + at % pieces) as usize];
    }
}

/// The rows of this plane, as left sides.
#[cube]
fn left_sides<E: Float, N: Size>(
    tiles: &Shared<[Vector<u32, N>]>,
    place: &Place,
    sides: &mut Sequence<Matrix<E>>,
    #[comptime] plan: Plan,
) {
    let side = comptime!(plan.side());
    // Of a strip, the planes' rows follow each other.
    let row = place.plane_row / comptime!(plan.strips as u32);
    #[unroll]
    for k in 0..comptime!(plan.depth()) {
        // SAFETY: loaded at once.
        let mut matrix = unsafe {
            Matrix::<E>::uninitialized(MatrixIdent::A, side, side, side, MatrixLayout::RowMajor)
        };
        let at = row * comptime!(plan.pitch() as u32) + comptime!((k * plan.side() / PIECE) as u32);
        let at = at as usize;
        let pitch = comptime!((plan.pitch() * 4) as u32).runtime();
        cmma::load(&mut matrix, &tiles[at..at + 1], pitch);
        sides.push(matrix);
    }
}

/// New sums of a plane, as wide as a row of operands, of each strip.
#[cube]
pub(super) fn sums(#[comptime] plan: Plan) -> Sequence<Matrix<f32>> {
    zeros(
        comptime!(plan.strips * plan.depth()),
        comptime!(plan.side()),
    )
}

/// The products of each strip of the plane's rows with a matrix of rows of a tile.
#[cube]
pub(super) fn score<E: Float, N: Size>(
    left: &Sequence<Matrix<E>>,
    tiles: &Shared<[Vector<u32, N>]>,
    #[comptime] from: usize,
    #[comptime] block: usize,
    #[comptime] plan: Plan,
) -> Sequence<Matrix<f32>> {
    let side = comptime!(plan.side());
    let products = zeros(comptime!(plan.strips), side);
    #[unroll]
    for k in 0..comptime!(plan.depth()) {
        // SAFETY: loaded at once.
        let mut right = unsafe {
            Matrix::<E>::uninitialized(MatrixIdent::B, side, side, side, MatrixLayout::ColMajor)
        };
        let at = comptime!(from + block * plan.side() * plan.pitch() + k * plan.side() / PIECE);
        let pitch = comptime!((plan.pitch() * 4) as u32).runtime();
        cmma::load(&mut right, &tiles[at..at + 1], pitch);
        #[unroll]
        for strip in 0..comptime!(plan.strips) {
            let left = left.index(comptime!(strip * plan.depth() + k));
            let sum = products.index(strip);
            cmma::execute(left, &right, sum, sum);
        }
    }
    products
}

/// The plane's matrix of sums to where its units see it.
#[cube]
pub(super) fn give<N: Size>(
    sum: &Matrix<f32>,
    exchange: &mut Shared<[Vector<u32, N>]>,
    place: &Place,
    #[comptime] plan: Plan,
) {
    let at = place.exchanged as usize;
    let pitch = comptime!((plan.sums_pitch() * 4) as u32).runtime();
    cmma::store(
        &mut exchange[at..at + 1],
        sum,
        pitch,
        MatrixLayout::RowMajor,
    );
}

/// The first of the two fours of a unit's row of it.
#[cube]
fn own_sums(place: &Place, #[comptime] plan: Plan) -> u32 {
    place.exchanged + place.own_row * comptime!(plan.sums_pitch() as u32) + place.part * 2
}

/// What a unit has of it: a piece of its row, as two fours.
#[cube]
pub(super) fn own<N: Size>(
    exchange: &Shared<[Vector<u32, N>]>,
    place: &Place,
    #[comptime] plan: Plan,
) -> Array<Vector<f32, N>> {
    let mut own = Array::<Vector<f32, N>>::new(2usize);
    let at = own_sums(place, plan);
    #[unroll]
    for i in 0..2usize {
        own[i] = Vector::reinterpret(exchange[(at + comptime!(i as u32)) as usize]);
    }
    own
}

/// Two fours, rounded, as a piece.
#[cube]
fn piece<E: Float, N: Size>(numbers: &Array<Vector<f32, N>>) -> Vector<u32, N> {
    let mut piece = Vector::<u32, N>::new(0u32);
    #[unroll]
    for i in 0..2usize {
        let pairs = Vector::<u32, Const<2>>::reinterpret(Vector::<E, N>::cast_from(numbers[i]));
        piece.insert(comptime!(2 * i), pairs.extract(0usize));
        piece.insert(comptime!(2 * i + 1), pairs.extract(1usize));
    }
    piece
}

/// Gives a unit's numbers of a matrix back to its plane, rounded: the first or the second of two such matrices.
#[cube]
pub(super) fn give_back<E: Float, N: Size>(
    numbers: &Array<Vector<f32, N>>,
    #[comptime] which: usize,
    exchange: &mut Shared<[Vector<u32, N>]>,
    place: &Place,
    #[comptime] plan: Plan,
) {
    let at = place.exchanged
        + comptime!((which * plan.side() * plan.halves_pitch()) as u32)
        + place.own_row * comptime!(plan.halves_pitch() as u32)
        + place.part;
    exchange[at as usize] = piece::<E, N>(numbers);
}

/// Such a matrix, as the left side of a single strip.
#[cube]
pub(super) fn given_back<E: Float, N: Size>(
    exchange: &Shared<[Vector<u32, N>]>,
    #[comptime] which: usize,
    place: &Place,
    #[comptime] plan: Plan,
) -> Sequence<Matrix<E>> {
    let side = comptime!(plan.side());
    // SAFETY: loaded at once.
    let mut left = unsafe {
        Matrix::<E>::uninitialized(MatrixIdent::A, side, side, side, MatrixLayout::RowMajor)
    };
    let at = place.exchanged + comptime!((which * plan.side() * plan.halves_pitch()) as u32);
    let at = at as usize;
    let pitch = comptime!((plan.halves_pitch() * 4) as u32).runtime();
    cmma::load(&mut left, &exchange[at..at + 1], pitch);
    let mut lefts = Sequence::<Matrix<E>>::new();
    lefts.push(left);
    lefts
}

/// Matrices of numbers for each row of a strip, and each row of a block of a tile, as left sides.
#[cube]
pub(super) fn as_left<E: Float>(numbers: &Sequence<Matrix<f32>>) -> Sequence<Matrix<E>> {
    let mut lefts = Sequence::<Matrix<E>>::new();
    #[unroll]
    for strip in 0..comptime!(numbers.len()) {
        lefts.push(matrix_as_left::<E>(numbers.index(strip)));
    }
    lefts
}

#[cube]
#[allow(unused_variables, reason = "used where it is expanded")]
fn matrix_as_left<E: Float>(numbers: &Matrix<f32>) -> Matrix<E> {
    // CubeCL's own function takes a reference, and its expansion does not.
    intrinsic!(|scope| {
        cmma::cast_with_ident::expand::<f32, E, cmma::Plane>(scope, numbers.clone(), MatrixIdent::A)
    })
}

/// Adds the products of a left side of each strip with a matrix of rows of a tile.
#[cube]
pub(super) fn weigh<E: Float, N: Size>(
    left: &Sequence<Matrix<E>>,
    tiles: &Shared<[Vector<u32, N>]>,
    #[comptime] from: usize,
    #[comptime] block: usize,
    sums: &Sequence<Matrix<f32>>,
    #[comptime] plan: Plan,
) {
    let side = comptime!(plan.side());
    #[unroll]
    for j in 0..comptime!(plan.depth()) {
        // SAFETY: loaded at once.
        let mut right = unsafe {
            Matrix::<E>::uninitialized(MatrixIdent::B, side, side, side, MatrixLayout::RowMajor)
        };
        let at = comptime!(from + block * plan.side() * plan.pitch() + j * plan.side() / PIECE);
        let pitch = comptime!((plan.pitch() * 4) as u32).runtime();
        cmma::load(&mut right, &tiles[at..at + 1], pitch);
        #[unroll]
        for strip in 0..comptime!(plan.strips) {
            let sum = sums.index(comptime!(strip * plan.depth() + j));
            cmma::execute(left.index(strip), &right, sum, sum);
        }
    }
}

/// Multiplies every row of the plane's sums, of a single strip, by a number of its units.
#[cube]
pub(super) fn scale_rows<N: Size>(
    sums: &mut Sequence<Matrix<f32>>,
    factor: f32,
    exchange: &mut Shared<[Vector<u32, N>]>,
    place: &Place,
    #[comptime] plan: Plan,
) {
    let mine = own_sums(place, plan);
    #[unroll]
    for j in 0..comptime!(sums.len()) {
        give::<N>(sums.index(j), exchange, place, plan);
        sync_plane();
        let numbers = own::<N>(&*exchange, place, plan);
        #[unroll]
        for i in 0..2usize {
            exchange[(mine + comptime!(i as u32)) as usize] =
                Vector::reinterpret(numbers[i] * Vector::new(factor));
        }
        sync_plane();
        let at = place.exchanged as usize;
        let pitch = comptime!((plan.sums_pitch() * 4) as u32).runtime();
        cmma::load_with_layout(
            sums.index_mut(j),
            &exchange[at..at + 1],
            pitch,
            MatrixLayout::RowMajor,
        );
        sync_plane();
    }
}

/// Writes the sums of a strip, each row multiplied by a number of its units, to the rows of the result.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn write<E: Float, N: Size>(
    sums: &Sequence<Matrix<f32>>,
    #[comptime] strip: usize,
    factor: f32,
    exchange: &mut Shared<[Vector<u32, N>]>,
    out: &mut [Vector<u32, N>],
    start: u32,
    exists: bool,
    place: &Place,
    #[comptime] plan: Plan,
) {
    #[unroll]
    for j in 0..comptime!(plan.depth()) {
        give::<N>(
            sums.index(comptime!(strip * plan.depth() + j)),
            exchange,
            place,
            plan,
        );
        sync_plane();
        if exists {
            let mut numbers = own::<N>(&*exchange, place, plan);
            #[unroll]
            for i in 0..2usize {
                numbers[i] *= Vector::new(factor);
            }
            let to = start + comptime!((j * plan.side() / PIECE) as u32) + place.part;
            out[to as usize] = piece::<E, N>(&numbers);
        }
        sync_plane();
    }
}
