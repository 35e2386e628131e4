use crate::error::LinalgError;
use crate::matrix::Matrix;
use crate::qr::qr;
use crate::random::Normal;

/// `U diag(s) V^T` with orthonormal columns in `U` and `V`, and `s` falling.
#[derive(Clone, Debug)]
pub struct Svd {
    /// Left singular vectors, `[rows, k]`.
    pub u: Matrix,
    /// Singular values, `k` of them.
    pub s: Vec<f64>,
    /// Right singular vectors, `[columns, k]`.
    pub v: Matrix,
}

impl Svd {
    /// The part of the `rank` largest singular values; all where there are fewer.
    pub fn truncated(&self, rank: usize) -> Self {
        let rank = rank.min(self.s.len());
        Self {
            u: self.u.column_range(0..rank),
            s: self.s[..rank].to_vec(),
            v: self.v.column_range(0..rank),
        }
    }

    /// `U diag(s) V^T`
    pub fn product(&self) -> Matrix {
        &self.u.scaled_columns(&self.s) * &self.v.transpose()
    }
}

/// All singular values and vectors; `k` is the smaller side.
///
/// # Errors
///
/// [`LinalgError::NotFinite`], and [`LinalgError::NoConvergence`], which no finite matrix is known for.
pub fn svd(matrix: &Matrix) -> Result<Svd, LinalgError> {
    matrix.check()?;
    let svd = matrix.0.thin_svd();
    let svd = svd.map_err(|_| LinalgError::NoConvergence)?;
    Ok(Svd {
        u: Matrix(svd.U().to_owned()),
        s: svd.S().column_vector().iter().copied().collect(),
        v: Matrix(svd.V().to_owned()),
    })
}

/// By how many columns the sketch is wider than what is wanted of it.
const OVERSAMPLING: usize = 8;

/// About the `rank` largest singular values and their vectors, by a random sketch that `iterations` powers sharpen (Halko,
/// Martinsson and Tropp, 2009, "Finding structure with randomness"). The same seed gives the same numbers.
///
/// It costs `iterations` products with a matrix of `rank` columns where [`svd`] costs as many as the matrix has.
///
/// # Errors
///
/// As [`svd`].
pub fn randomized_svd(
    matrix: &Matrix,
    rank: usize,
    iterations: usize,
    seed: u64,
) -> Result<Svd, LinalgError> {
    matrix.check()?;
    let [rows, columns] = matrix.shape();
    let width = (rank + OVERSAMPLING).min(rows.min(columns));
    let sketch = Normal::new(seed, 0).matrix(columns, width);
    let mut q = qr(&(matrix * &sketch))?.q; // [rows, width]
    let transposed = matrix.transpose();
    for _ in 0..iterations {
        // Without the decompositions in between, the powers would leave nothing but the largest value.
        let back = qr(&(&transposed * &q))?.q; // [columns, width]
        q = qr(&(matrix * &back))?.q;
    }
    let small = svd(&(&q.transpose() * matrix))?; // [width, columns]
    let u = &q * &small.u;
    Ok(Svd { u, ..small }.truncated(rank))
}
