/// Why a matrix was not decomposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinalgError {
    /// A number of it is NaN or infinite.
    #[error("the matrix holds NaN or infinity")]
    NotFinite,
    /// The iteration did not end.
    #[error("the decomposition did not converge")]
    NoConvergence,
    /// It should be symmetric with positive eigenvalues.
    #[error("the matrix is not positive definite")]
    NotPositive,
}
