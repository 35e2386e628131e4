//! Matrices put into the memory of another one, several in one launch.

use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::many::{self, batches, buffers, rows_of_cubes, stride};
use super::memory::{UNITS, buffer, elem, rows, width};

/// Where a matrix goes.
pub(super) struct Placed<'a> {
    /// `[rows, columns]`, without gaps
    pub(super) matrix: &'a CubeTensor,
    /// Its first row, as numbers from the target's beginning.
    pub(super) start: usize,
    /// From one row to the next.
    pub(super) pitch: usize,
    /// Rows and columns that are written, zeros where the matrix has none.
    pub(super) written: [usize; 2],
    /// The first of these columns that is the matrix's.
    pub(super) from: usize,
}

impl Placed<'_> {
    /// What is counted in columns.
    fn numbers(&self) -> [usize; 5] {
        let own = width(self.matrix);
        [self.start, self.pitch, self.written[1], self.from, own]
    }
}

/// Writes matrices of one dtype to a target without gaps, in its dtype.
pub(super) fn place(all: &[Placed], target: &CubeTensor) {
    let matrices: Vec<&CubeTensor> = all.iter().map(|placed| placed.matrix).collect();
    let mut size = many::vector_size(&matrices).min(many::vector_size(&[target]));
    let even = |size: usize| {
        let mut numbers = all.iter().flat_map(Placed::numbers);
        numbers.all(|number| number.is_multiple_of(size))
    };
    while !even(size) {
        size /= 2;
    }
    let step = batches(&target.client, 1);
    for all in all.chunks(step) {
        let count = |placed: &Placed| placed.written[0] * placed.written[1] / size;
        let matrices: Vec<&CubeTensor> = all.iter().map(|placed| placed.matrix).collect();
        let column = |of: &dyn Fn(&Placed) -> usize| {
            let mut numbers = SequenceArg::new();
            all.iter().for_each(|placed| numbers.push(of(placed)));
            numbers
        };
        let number = |index: usize| column(&|placed: &Placed| placed.numbers()[index] / size);
        let longest = all.iter().map(count).max().unwrap_or(1);
        // SAFETY: every unit looks first whether its place exists.
        unsafe {
            place_all::launch_unchecked(
                &target.client,
                rows_of_cubes(&target.client, longest, all.len()),
                CubeDim::new_1d(UNITS),
                size,
                buffers(&matrices),
                buffer(target),
                column(&count),
                number(0),
                number(1),
                number(2),
                number(3),
                number(4),
                column(&|placed| rows(placed.matrix)),
                all.len(),
                [elem(matrices[0]), elem(target)],
            );
        }
    }
}

/// All but rows is counted in vectors.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn place_all<X: Float, Y: Float, N: Size>(
    matrices: &Sequence<Box<[Vector<X, N>]>>,
    target: &mut [Vector<Y, N>],
    counts: &Sequence<usize>,
    starts: &Sequence<usize>,
    pitches: &Sequence<usize>,
    written: &Sequence<usize>,
    from: &Sequence<usize>,
    widths: &Sequence<usize>,
    rows: &Sequence<usize>,
    #[comptime] tensors: usize,
    #[define(X, Y)] _types: [ElemType; 2],
) {
    let which = CUBE_POS_Y as usize;
    #[unroll]
    for t in 0..tensors {
        if which == t {
            let (matrix, first, width) = (matrices.index(t), from[t], widths[t]);
            for at in range_stepped(ABSOLUTE_POS_X as usize, counts[t], stride()) {
                let (row, column) = (at / written[t], at % written[t]);
                let mut numbers = Vector::<Y, N>::new(Y::new(0.0));
                if row < rows[t] && column >= first && column < first + width {
                    numbers = Vector::cast_from(matrix[row * width + column - first]);
                }
                target[starts[t] + row * pitches[t] + column] = numbers;
            }
        }
    }
}
