use crate::error::LinalgError;
use crate::matrix::Matrix;

/// `Q R`, `Q` with orthonormal columns and `R` upper triangular; thin: `k` is the smaller side.
#[derive(Clone, Debug)]
pub struct Qr {
    /// `[rows, k]`
    pub q: Matrix,
    /// `[k, columns]`
    pub r: Matrix,
}

/// Decomposes by Householder reflections, as LAPACK does. Signs are not part of the contract; the product is.
///
/// # Errors
///
/// [`LinalgError::NotFinite`].
pub fn qr(matrix: &Matrix) -> Result<Qr, LinalgError> {
    matrix.check()?;
    let qr = matrix.0.qr();
    Ok(Qr {
        q: Matrix(qr.compute_thin_Q()),
        r: Matrix(qr.thin_R().to_owned()),
    })
}
