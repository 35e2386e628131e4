//! Products of matrices in memory, by the crate `gemm`, shared out to threads.

use gemm::Parallelism;
use rayon::prelude::*;

use super::tensor::HostTensor;

/// Fewer multiplications than this are not worth waking a thread for.
const WORK_PER_TASK: usize = 1 << 18;

/// A part that is thinner than this packs more than it multiplies.
const THINNEST: usize = 32;

/// Columns, or rows, that are enough for a thread.
const WIDE: usize = 128;

/// Parts for each thread where they are that wide: more than one evens out threads that the machine slows down.
const PARTS_PER_THREAD: usize = 3;

/// With fewer rows than this, one part for each thread was faster (docs/measurements.md).
const MANY_ROWS: usize = 1024;

/// A matrix in memory, rows and columns at any distance.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    numbers: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// # Panics
    /// If the last element lies outside of the numbers.
    pub(crate) fn new(
        numbers: &'a [f32],
        [rows, cols]: [usize; 2],
        [row_stride, col_stride]: [usize; 2],
    ) -> Self {
        let last = rows.saturating_sub(1) * row_stride + cols.saturating_sub(1) * col_stride;
        assert!(
            rows * cols == 0 || last < numbers.len(),
            "a matrix of fewer numbers"
        );
        Self {
            numbers,
            rows,
            cols,
            row_stride,
            col_stride,
        }
    }

    /// Rows one after the other.
    pub(crate) fn dense(numbers: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::new(numbers, [rows, cols], [cols, 1])
    }

    /// A tensor of two dimensions.
    pub(crate) fn of(tensor: &'a HostTensor) -> Self {
        let strides = [tensor.strides()[0], tensor.strides()[1]];
        Self::new(tensor.view(), tensor.dims(), strides)
    }

    /// Rows and columns exchanged, nothing moved.
    pub(crate) fn transposed(self) -> Self {
        Self {
            numbers: self.numbers,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    /// Whether the elements of a column lie closer together than those of a row.
    pub(crate) fn is_by_columns(self) -> bool {
        self.row_stride < self.col_stride
    }

    /// Some of the rows.
    pub(crate) fn row_range(self, from: usize, rows: usize) -> Self {
        Self::new(
            &self.numbers[self.start(from * self.row_stride)..],
            [rows, self.cols],
            [self.row_stride, self.col_stride],
        )
    }

    /// One row, whose elements lie one after the other.
    pub(crate) fn row(self, row: usize) -> &'a [f32] {
        debug_assert_eq!(self.col_stride, 1);
        &self.numbers[row * self.row_stride..][..self.cols]
    }

    fn col_range(self, from: usize, cols: usize) -> Self {
        self.transposed().row_range(from, cols).transposed()
    }

    /// An empty part may start behind the end.
    fn start(self, at: usize) -> usize {
        at.min(self.numbers.len())
    }
}

/// Where a product goes: row-major, rows at a distance.
pub(crate) struct Target {
    start: *mut f32,
    stride: usize,
}

// SAFETY: whoever makes parts of a target for several threads keeps them apart (see `product`).
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// Rows one after the other.
    pub(crate) fn dense(numbers: &mut [f32], cols: usize) -> Self {
        Self {
            start: numbers.as_mut_ptr(),
            stride: cols,
        }
    }

    /// # Safety
    /// The rows that are written from `start` on, `stride` apart, are not used by anyone else meanwhile.
    pub(crate) unsafe fn strided(start: *mut f32, stride: usize) -> Self {
        Self { start, stride }
    }
}

/// What happens to the numbers that are there before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `out = scale lhs rhs`
    Set,
    /// `out += scale lhs rhs`
    Add,
}

/// A product on the calling thread.
///
/// # Safety
/// `out` has room for `lhs.rows` rows of `rhs.cols` numbers, which nobody else uses meanwhile.
pub(crate) unsafe fn product_here(
    out: &Target,
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
    scale: f32,
    mode: Mode,
) {
    assert_eq!(lhs.cols, rhs.rows, "the inner sizes of a product");
    // SAFETY: a `Matrix` holds all its elements; the caller answers for the target.
    unsafe {
        gemm::gemm(
            lhs.rows,
            rhs.cols,
            lhs.cols,
            out.start,
            1,
            out.stride as isize,
            mode == Mode::Add,
            lhs.numbers.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.numbers.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// One of the products that make up a [`sum`].
#[derive(Clone, Copy)]
pub(crate) struct Term<'a> {
    lhs: Matrix<'a>,
    rhs: Matrix<'a>,
    scale: f32,
}

impl<'a> Term<'a> {
    pub(crate) fn new(lhs: Matrix<'a>, rhs: Matrix<'a>, scale: f32) -> Self {
        Self { lhs, rhs, scale }
    }
}

/// A product on all threads, see [`sum`].
pub(crate) fn product(out: &mut [f32], lhs: Matrix<'_>, rhs: Matrix<'_>, scale: f32, mode: Mode) {
    sum(out, &[Term::new(lhs, rhs, scale)], mode);
}

/// A sum of products of the same size, on all threads: a part of the result stays in a core's cache until it is complete.
///
/// Each thread runs products of its own, on a part of the columns if they are many and otherwise of the rows: a part of
/// the columns packs its part of the right side, where a part of the rows would pack all of it. `gemm`'s own threads share one
/// product block by block and wait for each other at every block (docs/measurements.md).
///
/// # Panics
/// If the sizes do not fit together.
pub(crate) fn sum(out: &mut [f32], terms: &[Term<'_>], mode: Mode) {
    let Some(first) = terms.first() else {
        return;
    };
    let (rows, cols) = (first.lhs.rows, first.rhs.cols);
    for term in terms {
        let size = (term.lhs.rows, term.rhs.cols, term.lhs.cols);
        assert_eq!(size, (rows, cols, term.rhs.rows), "the sizes of a product");
    }
    assert_eq!(out.len(), rows * cols, "the size of a product");
    if out.is_empty() {
        return;
    }
    let split = Split::of(rows, cols, terms.iter().map(|term| term.lhs.cols).sum());
    let out = Target::dense(out, cols);
    let run = |part: usize| {
        // The whole wrapper is captured, not its pointer alone, which threads may not share.
        let out = &out;
        let (from, count) = split.range(part);
        let mut mode = mode;
        for Term { lhs, rhs, scale } in terms {
            let (offset, lhs, rhs) = match split.by {
                Side::Rows => (from * cols, lhs.row_range(from, count), *rhs),
                Side::Cols => (from, *lhs, rhs.col_range(from, count)),
            };
            // SAFETY: the parts are disjoint rows or columns of `out`, which is as large as the product.
            unsafe {
                let part = Target::strided(out.start.add(offset), cols);
                product_here(&part, lhs, rhs, *scale, mode);
            }
            mode = Mode::Add;
        }
    };
    match split.parts {
        1 => run(0),
        parts => (0..parts).into_par_iter().for_each(run),
    }
}

#[derive(Clone, Copy)]
enum Side {
    Rows,
    Cols,
}

/// How a product is shared out.
struct Split {
    by: Side,
    parts: usize,
    step: usize,
    size: usize,
}

impl Split {
    fn of(rows: usize, cols: usize, inner: usize) -> Self {
        let threads = rayon::current_num_threads();
        let (by, size) = match cols >= threads * WIDE || cols >= rows {
            true => (Side::Cols, cols),
            false => (Side::Rows, rows),
        };
        let worth = rows * cols * inner / WORK_PER_TASK;
        let parts_per_thread = if rows < MANY_ROWS {
            1
        } else {
            PARTS_PER_THREAD
        };
        let wanted = threads * (size / (threads * WIDE)).clamp(1, parts_per_thread);
        let parts = worth.min(size / THINNEST).clamp(1, wanted);
        // Whole vector registers in all parts but the last.
        let step = size.div_ceil(parts).next_multiple_of(16).min(size);
        Self {
            by,
            parts: size.div_ceil(step),
            step,
            size,
        }
    }

    /// Where a part starts, and how long it is.
    fn range(&self, part: usize) -> (usize, usize) {
        let from = part * self.step;
        (from, self.step.min(self.size - from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0)
            .collect()
    }

    fn reference(lhs: Matrix<'_>, rhs: Matrix<'_>) -> Vec<f32> {
        let at = |m: Matrix<'_>, i: usize, j: usize| m.numbers[i * m.row_stride + j * m.col_stride];
        let mut out = Vec::new();
        for i in 0..lhs.rows {
            for j in 0..rhs.cols {
                out.push((0..lhs.cols).map(|k| at(lhs, i, k) * at(rhs, k, j)).sum());
            }
        }
        out
    }

    #[test]
    fn equals_the_loop_at_odd_sizes_in_all_layouts() {
        for (m, k, n) in [
            (1, 1, 1),
            (1, 7, 300),
            (300, 7, 1),
            (257, 65, 131),
            (64, 8, 515),
            (5, 0, 3),
        ] {
            let (a, b) = (numbers(m * k), numbers(k * n));
            for lhs in [
                Matrix::dense(&a, m, k),
                Matrix::dense(&a, k, m).transposed(),
            ] {
                for rhs in [
                    Matrix::dense(&b, k, n),
                    Matrix::dense(&b, n, k).transposed(),
                ] {
                    let expected = reference(lhs, rhs);
                    let mut out = vec![1.0; m * n];
                    product(&mut out, lhs, rhs, 2.0, Mode::Add);
                    for (out, expected) in out.iter().zip(&expected) {
                        assert!((out - 1.0 - 2.0 * expected).abs() < 1e-3, "{m} {k} {n}");
                    }
                    product(&mut out, lhs, rhs, 1.0, Mode::Set);
                    for (out, expected) in out.iter().zip(&expected) {
                        assert!((out - expected).abs() < 1e-3, "{m} {k} {n}");
                    }
                }
            }
        }
    }
}
