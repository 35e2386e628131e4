//! CorDA (Yang et al., 2024, "CorDA: Context-Oriented Decomposition Adaptation of Large Language Models").
//!
//! With `C` the covariance of the layer's inputs, damped until it has an inverse, and `C W = P S Q^T`: `A = C^-1 P_r (S_r / s)^1/2`,
//! `B = (S_r / s)^1/2 Q_r^T`; the base becomes `W - s A B`. PEFT: `corda`, with its `corda_method`.

use burn_lora_linalg::{LinalgError, Matrix, inverse, svd};

use super::{Begun, Layer};

/// Which components are trained (`corda_method`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CordaMethod {
    /// `ipm`: the largest, which the inputs use most, to learn what they are about.
    #[default]
    InstructionPreviewed,
    /// `kpm`: the smallest, to keep what the inputs are about.
    KnowledgePreserved,
}

/// How often the damping is doubled before a covariance is given up.
const ATTEMPTS: usize = 40;

pub(super) fn begin(layer: &Layer<'_>, covariance: &Matrix, method: CordaMethod) -> Begun {
    let (damped, inverse) = damped(covariance)?;
    let found = svd(&(&damped * layer.weight))?;
    let count = found.s.len();
    let kept = match method {
        CordaMethod::InstructionPreviewed => 0..layer.rank,
        CordaMethod::KnowledgePreserved => count - layer.rank..count,
    };
    let roots = layer.roots(&found.s[kept.clone()]);
    let p = found.u.column_range(kept.clone());
    let a = (&inverse * &p).scaled_columns(&roots);
    let b = found
        .v
        .column_range(kept)
        .scaled_columns(&roots)
        .transpose();
    Ok(layer.taken_out(a, b))
}

/// The covariance with a share of its mean diagonal added, and its inverse.
fn damped(covariance: &Matrix) -> Result<(Matrix, Matrix), LinalgError> {
    let size = covariance.rows();
    let trace: f64 = (0..size).map(|index| covariance.get(index, index)).sum();
    let mean = trace / size as f64;
    let mut damping = 0.01;
    for _ in 0..ATTEMPTS {
        let damped = covariance + &Matrix::identity(size).scaled(mean * damping);
        if let Ok(inverse) = inverse(&damped) {
            let error = (&(&damped * &inverse) - &Matrix::identity(size)).norm();
            if error < 0.05 {
                return Ok((damped, inverse));
            }
        }
        damping *= 2.0;
    }
    Err(LinalgError::NotPositive)
}
