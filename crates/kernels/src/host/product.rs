//! Products of matrices in memory, by the crate `gemm`, shared out to threads.

use gemm::Parallelism;
use rayon::prelude::*;

use super::tensor::HostTensor;

/// Fewer multiplications than this are not worth waking a thread for.
const WORK_PER_TASK: usize = 1 << 18;

/// A part that is thinner than this packs more than it multiplies.
const THINNEST: usize = 64;

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
        Self::new(tensor.from_start(), tensor.dims(), strides)
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

/// A product on all threads.
///
/// Each thread runs a product of its own on a part of the rows or of the columns, whichever are more. `gemm`'s own
/// threads share one product block by block and wait for each other at every block, which costs half of the rate
/// at the sizes of a training step (docs/measurements.md).
///
/// # Panics
/// If `out` is not `lhs.rows` by `rhs.cols`, or the inner sizes differ.
pub(crate) fn product(out: &mut [f32], lhs: Matrix<'_>, rhs: Matrix<'_>, scale: f32, mode: Mode) {
    let (rows, cols) = (lhs.rows, rhs.cols);
    assert_eq!(out.len(), rows * cols, "the size of a product");
    if out.is_empty() {
        return;
    }
    let parts = parts(rows, cols, lhs.cols);
    let out = Target::dense(out, cols);
    let by_rows = rows >= cols;
    let step = if by_rows { rows } else { cols }.div_ceil(parts);
    let run = |part: usize| {
        // The whole wrapper is captured, not its pointer alone, which threads may not share.
        let out = &out;
        let from = part * step;
        // SAFETY: the parts are disjoint rows or columns of `out`, which is as large as the product.
        unsafe {
            if by_rows {
                let lhs = lhs.row_range(from, step.min(rows - from));
                let part = Target::strided(out.start.add(from * cols), cols);
                product_here(&part, lhs, rhs, scale, mode);
            } else {
                let rhs = rhs.col_range(from, step.min(cols - from));
                let part = Target::strided(out.start.add(from), cols);
                product_here(&part, lhs, rhs, scale, mode);
            }
        }
    };
    match parts {
        1 => run(0),
        _ => (0..parts)
            .into_par_iter()
            .filter(|part| part * step < if by_rows { rows } else { cols })
            .for_each(run),
    }
}

fn parts(rows: usize, cols: usize, inner: usize) -> usize {
    let threads = rayon::current_num_threads();
    let worth = rows * cols * inner / WORK_PER_TASK;
    let thick = rows.max(cols) / THINNEST;
    // One part for each thread: a second would pack the other operand again.
    worth.min(thick).clamp(1, threads)
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
