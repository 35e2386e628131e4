//! Products with a side as short as an adapter's rank, by the matrices of planes. Sums are `f32`.
//!
//! Reading the wide operand once is all the time that they should take, so it goes to shared memory in whole lines of memory,
//! and the sum is shared out: between the planes of a cube where it is along the wide operand, between cubes where it is
//! over its rows.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cmma::{self, Matrix, MatrixIdent, MatrixLayout};
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::matrices::{PIECE, Side};
use super::memory::{buffer, elem, empty};
use super::planes::{PLANES, Planes, zeros};

/// Numbers of a line of memory: what a plane, or a cube, reads of each row at a time, and as many rows.
const LINE: usize = 64;

/// The widest short side.
const WIDEST: usize = 64;

/// Cubes that [`outer`] shares its sum out to, and rows of each at the least.
const CUBES: usize = 512;
const ROWS: usize = 128;

#[cfg(all(test, feature = "flex"))]
mod tests;

#[cfg(test)]
thread_local! {
    /// The products that this thread launched: tests see who computed.
    static LAUNCHED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// What the compiler has to know of a product; every distinct value is one compiled kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Plan {
    planes: Planes,
    /// The size of the short side.
    rank: usize,
    /// In [`multiply`] the sums run along the short side's memory, in [`add_outer`] its columns are the rows of the result.
    turned: bool,
}

impl Plan {
    fn units(self) -> usize {
        PLANES * self.planes.units
    }

    /// Rows of a cube of [`multiply`], or columns of a plane of [`add_outer`].
    fn side(self) -> usize {
        self.planes.side
    }

    /// Matrices along the short side; what the last has beyond it is not written.
    fn short(self) -> usize {
        self.rank.div_ceil(self.side())
    }

    /// The rows that a plane of [`multiply`] reads at a time.
    fn rows(self) -> Lines {
        Lines {
            count: self.side(),
            pieces: LINE / PIECE,
            units: self.planes.units,
        }
    }

    /// And of the short side, which lies either way round.
    fn shorts(self) -> Lines {
        let short = self.short() * self.side();
        let (count, pieces) = match self.turned {
            true => (short, LINE / PIECE),
            false => (LINE, short / PIECE),
        };
        let units = self.planes.units;
        Lines {
            count,
            pieces,
            units,
        }
    }

    /// Pieces of a line of the short side that exist, in [`multiply`].
    fn existing(self) -> usize {
        if self.turned { LINE } else { self.rank }.div_ceil(PIECE)
    }

    /// Pieces of shared memory of a plane of [`multiply`].
    fn of_plane(self) -> usize {
        self.rows().size() + self.shorts().size()
    }

    /// The columns that a cube of [`add_outer`] has.
    fn columns(self) -> usize {
        PLANES * self.side()
    }

    /// What it reads of them at a time.
    fn wide(self) -> Lines {
        Lines {
            count: LINE,
            pieces: self.columns() / PIECE,
            units: self.units(),
        }
    }

    /// And of the short side.
    fn narrow(self) -> Lines {
        Lines {
            count: LINE,
            pieces: self.short() * self.side() / PIECE,
            units: self.units(),
        }
    }

    /// Bytes of shared memory of either kernel.
    fn bytes(self) -> usize {
        let pieces = [
            self,
            Self {
                turned: !self.turned,
                ..self
            },
        ]
        .map(|plan| PLANES * plan.of_plane());
        16 * pieces[0]
            .max(pieces[1])
            .max(self.wide().size() + self.narrow().size())
    }
}

/// Lines of memory that some units copy to shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lines {
    count: usize,
    pieces: usize,
    units: usize,
}

impl Lines {
    /// Pieces that a unit copies.
    fn held(self) -> usize {
        (self.count * self.pieces).div_ceil(self.units)
    }

    /// From one line to the next, with a piece more, so that the rows of a matrix lie in banks of their own.
    fn pitch(self) -> usize {
        self.pieces + 1
    }

    fn size(self) -> usize {
        self.count * self.pitch()
    }
}

/// Where lines are in memory, and how many of them, and of their pieces, exist.
#[derive(CubeType, Clone, Copy)]
struct Source {
    start: u32,
    pitch: u32,
    count: u32,
    pieces: u32,
}

/// Brings a unit's pieces to registers; those of lines that do not exist are zeros, beyond a line's end the last is read again.
#[cube]
fn fetch<N: Size>(
    from: &[Vector<u32, N>],
    source: &Source,
    unit: u32,
    #[comptime] lines: Lines,
) -> Array<Vector<u32, N>> {
    let mut held = Array::<Vector<u32, N>>::new(comptime!(lines.held()));
    let pieces = comptime!(lines.pieces as u32);
    #[unroll]
    for j in 0..comptime!(lines.held()) {
        let at = unit + comptime!((j * lines.units) as u32);
        let line = min(at / pieces, source.count - 1);
        let piece = min(at % pieces, source.pieces - 1);
        let exists = u32::cast_from(at / pieces < source.count);
        held[j] = from[(source.start + line * source.pitch + piece) as usize] * Vector::new(exists);
    }
    held
}

#[cube]
fn put<N: Size>(
    held: &Array<Vector<u32, N>>,
    shared: &mut Shared<[Vector<u32, N>]>,
    first: u32,
    unit: u32,
    #[comptime] lines: Lines,
) {
    let pieces = comptime!(lines.pieces as u32);
    #[unroll]
    for j in 0..comptime!(lines.held()) {
        let at = unit + comptime!((j * lines.units) as u32);
        let to = first + at / pieces * comptime!(lines.pitch() as u32) + at % pieces;
        if comptime!((j + 1) * lines.units <= lines.count * lines.pieces) {
            shared[to as usize] = held[j];
        } else if at < comptime!((lines.count * lines.pieces) as u32) {
            shared[to as usize] = held[j];
        }
    }
}

/// One matrix of some lines, which are its columns if it is turned.
#[cube]
fn matrix<E: Float, N: Size>(
    shared: &Shared<[Vector<u32, N>]>,
    first: u32,
    #[comptime] ident: MatrixIdent,
    #[comptime] turned: bool,
    #[comptime] lines: Lines,
    #[comptime] side: usize,
) -> Matrix<E> {
    let layout = comptime!(if turned {
        MatrixLayout::ColMajor
    } else {
        MatrixLayout::RowMajor
    });
    // SAFETY: loaded at once.
    let mut matrix = unsafe { Matrix::<E>::uninitialized(ident, side, side, side, layout) };
    let at = first as usize;
    // In numbers of 32 bits.
    let pitch = comptime!((lines.pitch() * 4) as u32).runtime();
    cmma::load(&mut matrix, &shared[at..at + 1], pitch);
    matrix
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn multiply<E: Float, O: Float, N: Size>(
    left: &[Vector<u32, N>],
    right: &[Vector<u32, N>],
    out: &mut [Vector<O, N>],
    rows: u32,
    depth: u32,
    left_pitch: u32,
    right_pitch: u32,
    scale: f32,
    #[comptime] plan: Plan,
    #[define(E, O)] _types: [ElemType; 2],
) {
    let side = comptime!(plan.side());
    let plane = UNIT_POS_X / comptime!(plan.planes.units as u32);
    let lane = UNIT_POS_X % comptime!(plan.planes.units as u32);
    let row = CUBE_POS_X * comptime!(side as u32);
    let mut shared = Shared::<[Vector<u32, N>]>::new_slice(comptime!(PLANES * plan.of_plane()));
    let own = plane * comptime!(plan.of_plane() as u32);
    let own_right = own + comptime!(plan.rows().size() as u32);

    // Planes read lines of memory beside each other.
    let line = comptime!((LINE / PIECE) as u32);
    let right_step = if comptime!(plan.turned) {
        line.runtime()
    } else {
        comptime!(LINE as u32) * right_pitch
    };
    let count = depth / comptime!(LINE as u32);
    let first = min(plane, count - 1);
    let mut left_side = Source {
        start: row * left_pitch + first * line,
        pitch: left_pitch,
        count: rows - row,
        pieces: line,
    };
    let mut right_side = Source {
        start: first * right_step,
        pitch: right_pitch,
        count: comptime!(
            plan.shorts()
                .count
                .min(if plan.turned { plan.rank } else { LINE }) as u32
        )
        .runtime(),
        pieces: comptime!(plan.existing() as u32).runtime(),
    };
    let sums = zeros(comptime!(plan.short()), side);
    // All planes take as many steps, since a driver may let a whole cube wait where a plane should; those behind the end add zeros.
    let planes = comptime!(PLANES as u32);
    let mut held_left = fetch::<N>(left, &left_side, lane, comptime!(plan.rows()));
    let mut held_right = fetch::<N>(right, &right_side, lane, comptime!(plan.shorts()));
    for at in range_stepped(0, count, planes) {
        let exists = u32::cast_from(at + plane < count);
        #[unroll]
        for j in 0..comptime!(plan.rows().held()) {
            held_left[j] *= Vector::new(exists);
        }
        put::<N>(&held_left, &mut shared, own, lane, comptime!(plan.rows()));
        put::<N>(
            &held_right,
            &mut shared,
            own_right,
            lane,
            comptime!(plan.shorts()),
        );
        sync_plane();
        if at + planes + plane < count {
            left_side.start += planes * line;
            right_side.start += planes * right_step;
            held_left = fetch::<N>(left, &left_side, lane, comptime!(plan.rows()));
            held_right = fetch::<N>(right, &right_side, lane, comptime!(plan.shorts()));
        }
        #[unroll]
        for k in 0..comptime!(LINE / side) {
            let a = matrix::<E, N>(
                &shared,
                own + comptime!((k * side / PIECE) as u32),
                MatrixIdent::A,
                false,
                comptime!(plan.rows()),
                side,
            );
            #[unroll]
            for j in 0..comptime!(plan.short()) {
                let lines = comptime!(plan.shorts());
                let (along, across) = comptime!(match plan.turned {
                    true => (k * side / PIECE, j * side * lines.pitch()),
                    false => (k * side * lines.pitch(), j * side / PIECE),
                });
                let b = matrix::<E, N>(
                    &shared,
                    own_right + comptime!((along + across) as u32),
                    MatrixIdent::B,
                    comptime!(plan.turned),
                    lines,
                    side,
                );
                let sum = sums.index(j);
                cmma::execute(&a, &b, sum, sum);
            }
        }
        sync_plane();
    }

    // The planes' sums, added up in order.
    sync_cube();
    let fours = comptime!(plan.short() * side / 4);
    let of_plane = comptime!(side * fours);
    #[unroll]
    for j in 0..comptime!(plan.short()) {
        let at = plane * comptime!(of_plane as u32) + comptime!((j * side / 4) as u32);
        let at = at as usize;
        let pitch = comptime!((fours * 4) as u32).runtime();
        cmma::store(
            &mut shared[at..at + 1],
            sums.index(j),
            pitch,
            MatrixLayout::RowMajor,
        );
    }
    sync_cube();
    for at in range_stepped(
        UNIT_POS_X,
        comptime!(of_plane as u32),
        comptime!(plan.units() as u32),
    ) {
        let mut sum = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for plane in 0..PLANES {
            let at = at + comptime!((plane * of_plane) as u32);
            sum += Vector::<f32, N>::reinterpret(shared[at as usize]);
        }
        let (line, four) = (at / comptime!(fours as u32), at % comptime!(fours as u32));
        let width = comptime!((plan.rank / 4) as u32);
        if row + line < rows && four < width {
            out[((row + line) * width + four) as usize] =
                Vector::cast_from(sum * Vector::new(scale));
        }
    }
}

/// `scale * a b` in this dtype, scaled before it is rounded; `None` where the matrices do not fit.
///
/// # Shapes
/// - a: `[m, k]`, b: `[k, n]`, or a view; output: `[m, n]` without gaps
pub(super) fn product(
    a: &CubeTensor,
    b: &CubeTensor,
    scale: f32,
    dtype: DType,
) -> Option<CubeTensor> {
    if ![a.dtype, DType::F32].contains(&dtype) {
        return None;
    }
    let (left, right, mut plan) = fitting(a, b)?;
    let ([m, k], [_, n]) = (left.size, right.size);
    let cubes = m.div_ceil(plan.side());
    if left.transposed || k == 0 || !k.is_multiple_of(LINE) || cubes > most_cubes(a) {
        return None;
    }
    plan.turned = right.transposed;
    let out = empty(a, &[m, n], dtype);
    #[cfg(test)]
    LAUNCHED.set(LAUNCHED.get() + 1);
    // SAFETY: rows that do not exist are neither read nor written.
    unsafe {
        multiply::launch_unchecked(
            &a.client,
            CubeCount::Static(cubes as u32, 1, 1),
            CubeDim::new_1d(plan.units() as u32),
            4,
            buffer(a),
            buffer(b),
            buffer(&out),
            m as u32,
            k as u32,
            pieces(left.pitch),
            pieces(right.pitch),
            scale,
            plan,
            [elem(a), elem(&out)],
        );
    }
    Some(out)
}

/// Two single matrices of halves, the second of which is narrow, and what multiplies them.
fn fitting(a: &CubeTensor, b: &CubeTensor) -> Option<(Side, Side, Plan)> {
    let half = matches!(a.dtype, DType::F16 | DType::BF16);
    if !half || a.dtype != b.dtype {
        return None;
    }
    let (left, right) = (Side::of(a)?, Side::of(b)?);
    let short = right.size[1];
    if left.batch != [1, 1] || right.batch != [1, 1] || short > WIDEST {
        return None;
    }
    let plan = |planes: Planes| Plan {
        planes,
        rank: short,
        turned: false,
    };
    let planes = Planes::of(a, |planes| plan(planes).bytes())?;
    let whole = short.is_multiple_of(PIECE);
    whole.then(|| (left, right, plan(planes)))
}

fn most_cubes(a: &CubeTensor) -> usize {
    a.client.properties().hardware.max_cube_count.0 as usize
}

fn pieces(pitch: usize) -> u32 {
    (pitch / PIECE) as u32
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn add_outer<E: Float, N: Size>(
    x: &[Vector<u32, N>],
    d: &[Vector<u32, N>],
    out: &mut [Vector<u32, N>],
    rows: u32,
    rows_of_part: u32,
    columns: u32,
    x_pitch: u32,
    d_pitch: u32,
    #[comptime] plan: Plan,
    #[define(E)] _type: ElemType,
) {
    let side = comptime!(plan.side());
    let plane = UNIT_POS_X / comptime!(plan.planes.units as u32);
    let first = CUBE_POS_X * comptime!(plan.columns() as u32);
    let begin = CUBE_POS_Y * rows_of_part;
    let end = min(begin + rows_of_part, rows);
    let mut shared =
        Shared::<[Vector<u32, N>]>::new_slice(comptime!(plan.wide().size() + plan.narrow().size()));
    let narrow = comptime!(plan.wide().size() as u32);
    let own = plane * comptime!((side / PIECE) as u32);

    let piece = comptime!(PIECE as u32);
    let mut wide_side = Source {
        start: begin * x_pitch + first / piece,
        pitch: x_pitch,
        count: end - begin,
        pieces: (columns - first) / piece,
    };
    let mut narrow_side = Source {
        start: begin * d_pitch,
        pitch: d_pitch,
        count: end - begin,
        pieces: comptime!((plan.rank / PIECE) as u32).runtime(),
    };
    let sums = zeros(comptime!(plan.short()), side);
    let mut held_wide = fetch::<N>(x, &wide_side, UNIT_POS_X, comptime!(plan.wide()));
    let mut held_narrow = fetch::<N>(d, &narrow_side, UNIT_POS_X, comptime!(plan.narrow()));
    let line = comptime!(LINE as u32);
    for at in range_stepped(begin, end, line) {
        put::<N>(
            &held_wide,
            &mut shared,
            0u32,
            UNIT_POS_X,
            comptime!(plan.wide()),
        );
        put::<N>(
            &held_narrow,
            &mut shared,
            narrow,
            UNIT_POS_X,
            comptime!(plan.narrow()),
        );
        sync_cube();
        if at + line < end {
            wide_side.start += line * x_pitch;
            wide_side.count -= line;
            narrow_side.start += line * d_pitch;
            narrow_side.count -= line;
            held_wide = fetch::<N>(x, &wide_side, UNIT_POS_X, comptime!(plan.wide()));
            held_narrow = fetch::<N>(d, &narrow_side, UNIT_POS_X, comptime!(plan.narrow()));
        }
        #[unroll]
        for k in 0..comptime!(LINE / side) {
            let at = own + comptime!((k * side * plan.wide().pitch()) as u32);
            let (left, right) = comptime!((MatrixIdent::A, MatrixIdent::B));
            let x = matrix::<E, N>(
                &shared,
                at,
                comptime!(if plan.turned { right } else { left }),
                comptime!(!plan.turned),
                comptime!(plan.wide()),
                side,
            );
            #[unroll]
            for j in 0..comptime!(plan.short()) {
                let at = narrow
                    + comptime!((k * side * plan.narrow().pitch() + j * side / PIECE) as u32);
                let d = matrix::<E, N>(
                    &shared,
                    at,
                    comptime!(if plan.turned { left } else { right }),
                    comptime!(plan.turned),
                    comptime!(plan.narrow()),
                    side,
                );
                let sum = sums.index(j);
                if comptime!(plan.turned) {
                    cmma::execute(&d, &x, sum, sum);
                } else {
                    cmma::execute(&x, &d, sum, sum);
                }
            }
        }
        sync_cube();
    }

    // By way of shared memory, since the matrices may have more rows and columns than the result.
    let fours = comptime!((side / 4) as u32);
    let own = plane * comptime!((side * side / 4) as u32);
    let lane = UNIT_POS_X % comptime!(plan.planes.units as u32);
    let column = first + plane * comptime!(side as u32);
    #[unroll]
    for j in 0..comptime!(plan.short()) {
        let at = own as usize;
        cmma::store(
            &mut shared[at..at + 1],
            sums.index(j),
            comptime!(side as u32).runtime(),
            MatrixLayout::RowMajor,
        );
        sync_plane();
        for at in range_stepped(
            lane,
            comptime!((side * side / 4) as u32),
            comptime!(plan.planes.units as u32),
        ) {
            let (line, four) = (at / fours, at % fours);
            let numbers = shared[(own + at) as usize];
            let own_rank = comptime!((j * side) as u32);
            let rank = comptime!(plan.rank as u32);
            let (row, place, rows, width) = if comptime!(plan.turned) {
                (own_rank + line, column + four * 4, rank.runtime(), columns)
            } else {
                (column + line, own_rank + four * 4, columns, rank.runtime())
            };
            if row < rows && place < width {
                let start = CUBE_POS_Y * columns * rank;
                out[((start + row * width + place) / 4) as usize] = numbers;
            }
        }
        sync_plane();
    }
}

/// The parts whose sum is `x^T d`, or its transpose, in `f32`; `None` where the matrices do not fit.
///
/// # Shapes
/// - x: `[m, c]`, d: `[m, rank]`
/// - output: `[parts, c * rank]`
pub(super) fn outer_parts(x: &CubeTensor, d: &CubeTensor, transpose: bool) -> Option<CubeTensor> {
    let (wide, narrow, mut plan) = fitting(x, d)?;
    let ([m, c], [_, rank]) = (wide.size, narrow.size);
    if wide.transposed || narrow.transposed || !c.is_multiple_of(PIECE) {
        return None;
    }
    plan.turned = transpose;
    let tiles = c.div_ceil(plan.columns());
    let parts = (CUBES / tiles).clamp(1, m.div_ceil(ROWS));
    let rows = m.div_ceil(parts).next_multiple_of(LINE);
    let parts = m.div_ceil(rows);
    let sums = empty(x, &[parts, c * rank], DType::F32);
    #[cfg(test)]
    LAUNCHED.set(LAUNCHED.get() + 1);
    // SAFETY: rows and columns that do not exist are neither read nor written.
    unsafe {
        add_outer::launch_unchecked(
            &x.client,
            CubeCount::Static(tiles as u32, parts as u32, 1),
            CubeDim::new_1d(plan.units() as u32),
            4,
            buffer(x),
            buffer(d),
            buffer(&sums),
            m as u32,
            rows as u32,
            c as u32,
            pieces(wide.pitch),
            pieces(narrow.pitch),
            plan,
            elem(x),
        );
    }
    Some(sums)
}
