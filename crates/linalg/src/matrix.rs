use std::fmt;
use std::ops::{Add, Mul, Range, Sub};

use faer::Mat;

use crate::error::LinalgError;

/// A dense matrix of f64 numbers on the host.
///
/// Operations panic when shapes do not fit, as indexing does: whoever reads a shape from a file checks it first.
#[derive(Clone, PartialEq)]
pub struct Matrix(pub(crate) Mat<f64>);

impl Matrix {
    /// A matrix whose elements are given by row and column.
    pub fn from_fn(rows: usize, columns: usize, element: impl FnMut(usize, usize) -> f64) -> Self {
        Self(Mat::from_fn(rows, columns, element))
    }

    /// Row-major numbers.
    ///
    /// # Panics
    ///
    /// If there are not `rows * columns` of them.
    pub fn from_f32(values: &[f32], [rows, columns]: [usize; 2]) -> Self {
        assert_eq!(values.len(), rows * columns, "{rows} x {columns} numbers");
        Self::from_fn(rows, columns, |row, column| {
            f64::from(values[row * columns + column])
        })
    }

    /// Zeros.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        Self(Mat::zeros(rows, columns))
    }

    /// Ones on the diagonal.
    pub fn identity(size: usize) -> Self {
        Self(Mat::identity(size, size))
    }

    /// `[rows, columns]`
    pub fn shape(&self) -> [usize; 2] {
        [self.rows(), self.columns()]
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.0.nrows()
    }

    /// The number of columns.
    pub fn columns(&self) -> usize {
        self.0.ncols()
    }

    /// One element.
    pub fn get(&self, row: usize, column: usize) -> f64 {
        self.0[(row, column)]
    }

    /// The numbers row by row, in single precision.
    pub fn to_f32(&self) -> Vec<f32> {
        self.iter().map(|value| value as f32).collect()
    }

    /// The numbers row by row.
    pub fn iter(&self) -> impl Iterator<Item = f64> + '_ {
        let columns = self.columns();
        (0..self.rows()).flat_map(move |row| (0..columns).map(move |column| self.0[(row, column)]))
    }

    /// Rows become columns.
    pub fn transpose(&self) -> Self {
        Self(self.0.transpose().to_owned())
    }

    /// A block of rows.
    pub fn row_range(&self, range: Range<usize>) -> Self {
        Self(self.0.subrows(range.start, range.len()).to_owned())
    }

    /// A block of columns.
    pub fn column_range(&self, range: Range<usize>) -> Self {
        Self(self.0.subcols(range.start, range.len()).to_owned())
    }

    /// The rows of these indices.
    pub fn pick_rows(&self, indices: &[usize]) -> Self {
        Self::from_fn(indices.len(), self.columns(), |row, column| {
            self.get(indices[row], column)
        })
    }

    /// The columns of these indices.
    pub fn pick_columns(&self, indices: &[usize]) -> Self {
        Self::from_fn(self.rows(), indices.len(), |row, column| {
            self.get(row, indices[column])
        })
    }

    /// Matrices of as many rows side by side.
    pub fn beside(&self, right: &Self) -> Self {
        assert_eq!(self.rows(), right.rows(), "rows of matrices side by side");
        let left = self.columns();
        Self::from_fn(
            self.rows(),
            left + right.columns(),
            |row, column| match column.checked_sub(left) {
                Some(column) => right.get(row, column),
                None => self.get(row, column),
            },
        )
    }

    /// Matrices of as many columns one above the other.
    pub fn above(&self, below: &Self) -> Self {
        assert_eq!(
            self.columns(),
            below.columns(),
            "columns of stacked matrices"
        );
        let top = self.rows();
        Self::from_fn(
            top + below.rows(),
            self.columns(),
            |row, column| match row.checked_sub(top) {
                Some(row) => below.get(row, column),
                None => self.get(row, column),
            },
        )
    }

    /// Every element changed by itself.
    pub fn map(&self, mut change: impl FnMut(f64) -> f64) -> Self {
        Self::from_fn(self.rows(), self.columns(), |row, column| {
            change(self.get(row, column))
        })
    }

    /// Every element times a number.
    pub fn scaled(&self, factor: f64) -> Self {
        self.map(|value| value * factor)
    }

    /// Each column times its own number.
    pub fn scaled_columns(&self, factors: &[f64]) -> Self {
        assert_eq!(factors.len(), self.columns(), "a factor for each column");
        Self::from_fn(self.rows(), self.columns(), |row, column| {
            self.get(row, column) * factors[column]
        })
    }

    /// Each row times its own number.
    pub fn scaled_rows(&self, factors: &[f64]) -> Self {
        assert_eq!(factors.len(), self.rows(), "a factor for each row");
        Self::from_fn(self.rows(), self.columns(), |row, column| {
            self.get(row, column) * factors[row]
        })
    }

    /// The Frobenius norm.
    pub fn norm(&self) -> f64 {
        self.iter().map(|value| value * value).sum::<f64>().sqrt()
    }

    /// Whether no element is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        self.iter().all(f64::is_finite)
    }

    pub(crate) fn check(&self) -> Result<(), LinalgError> {
        match self.is_finite() {
            true => Ok(()),
            false => Err(LinalgError::NotFinite),
        }
    }
}

impl Mul for &Matrix {
    type Output = Matrix;

    fn mul(self, right: &Matrix) -> Matrix {
        Matrix(&self.0 * &right.0)
    }
}

impl Add for &Matrix {
    type Output = Matrix;

    fn add(self, right: &Matrix) -> Matrix {
        Matrix(&self.0 + &right.0)
    }
}

impl Sub for &Matrix {
    type Output = Matrix;

    fn sub(self, right: &Matrix) -> Matrix {
        Matrix(&self.0 - &right.0)
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matrix {:?} ", self.shape())?;
        f.debug_list().entries(self.iter().take(16)).finish()
    }
}
