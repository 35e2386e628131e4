use faer::Side;
use faer::linalg::solvers::DenseSolveCore;

use crate::error::LinalgError;
use crate::matrix::Matrix;

/// `V diag(values) V^T` of a symmetric matrix, the values rising.
#[derive(Clone, Debug)]
pub struct Eigen {
    /// The eigenvalues.
    pub values: Vec<f64>,
    /// Their orthonormal vectors as columns.
    pub vectors: Matrix,
}

/// The eigenvalues and vectors of a symmetric matrix, of which the lower half is read.
///
/// # Errors
///
/// [`LinalgError::NotFinite`], and [`LinalgError::NoConvergence`].
pub fn eigen(matrix: &Matrix) -> Result<Eigen, LinalgError> {
    matrix.check()?;
    let eigen = matrix.0.self_adjoint_eigen(Side::Lower);
    let eigen = eigen.map_err(|_| LinalgError::NoConvergence)?;
    Ok(Eigen {
        values: eigen.S().column_vector().iter().copied().collect(),
        vectors: Matrix(eigen.U().to_owned()),
    })
}

/// The inverse of a symmetric positive definite matrix, by Cholesky's decomposition.
///
/// # Errors
///
/// [`LinalgError::NotFinite`], and [`LinalgError::NotPositive`].
pub fn inverse(matrix: &Matrix) -> Result<Matrix, LinalgError> {
    matrix.check()?;
    let factor = matrix.0.llt(Side::Lower);
    let factor = factor.map_err(|_| LinalgError::NotPositive)?;
    let inverse = Matrix(factor.inverse());
    match inverse.is_finite() {
        true => Ok(inverse),
        false => Err(LinalgError::NotPositive),
    }
}
