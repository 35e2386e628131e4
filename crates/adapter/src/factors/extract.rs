use burn_lora_linalg::{LinalgError, Matrix, randomized_svd, svd};

use super::{FactorSet, Factors};
use crate::error::AdapterError;

/// How many singular values of a difference are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ExtractRank {
    /// This many for every layer.
    Fixed(usize),
    /// As few as hold this share of the energy, the sum of squares, and no more than `at_most`.
    Energy {
        /// In `(0, 1]`.
        share: f64,
        /// The largest rank of any layer.
        at_most: usize,
    },
    /// This many for every layer, by a random sketch that `iterations` powers sharpen
    /// ([`randomized_svd`]): for layers so large that decomposing them whole takes too long.
    Sketched {
        /// The rank.
        rank: usize,
        /// Of the powers.
        iterations: usize,
    },
}

/// Of the sketches, which are the same every time.
const SEED: u64 = 0;

/// A layer's factors, and what they leave out.
#[derive(Clone, Debug)]
pub struct Extracted {
    /// The best change of this rank.
    pub factors: Factors,
    /// The share of the difference's energy that they hold.
    pub kept: f64,
}

/// A weight before and after it was tuned, `[d_in, d_out]`, under its layer's path.
#[derive(Clone, Debug)]
pub struct NamedPair {
    /// The layer's path.
    pub path: String,
    /// The weight of the base.
    pub base: Matrix,
    /// The weight of the tuned model.
    pub tuned: Matrix,
}

/// The low-rank change that is nearest to `tuned - base` (Eckart and Young, 1936), or `None` where the two are the same.
/// Each factor has the roots of the singular values; the scale is 1.
///
/// # Errors
///
/// [`LinalgError`].
pub fn extract_layer(
    base: &Matrix,
    tuned: &Matrix,
    rank: ExtractRank,
) -> Result<Option<Extracted>, LinalgError> {
    let difference = tuned - base;
    let total = difference.norm().powi(2);
    if total == 0.0 {
        return Ok(None);
    }
    let found = match rank {
        ExtractRank::Sketched { rank, iterations } => {
            randomized_svd(&difference, rank, iterations, SEED)?
        }
        _ => svd(&difference)?,
    };
    let energies: Vec<f64> = found.s.iter().map(|s| s * s).collect();
    let rank = match rank {
        ExtractRank::Fixed(rank) | ExtractRank::Sketched { rank, .. } => rank,
        ExtractRank::Energy { share, at_most } => {
            let mut sum = 0.0_f64;
            let enough = energies.iter().position(|energy| {
                sum += energy;
                // Rounding may leave the sum of all a little short of the total.
                sum >= share * total * (1.0 - 1e-12)
            });
            enough.map_or(energies.len(), |last| last + 1).min(at_most)
        }
    };
    let kept = energies.iter().take(rank).sum::<f64>() / total;
    let found = found.truncated(rank);
    let roots: Vec<f64> = found.s.iter().map(|s| s.sqrt()).collect();
    let factors = Factors {
        a: found.u.scaled_columns(&roots),
        b: found.v.scaled_columns(&roots).transpose(),
        scale: 1.0,
    };
    Ok(Some(Extracted { factors, kept }))
}

/// Extracts a LoRA from two checkpoints of one architecture, a weight at a time: whoever reads the pairs one after the other
/// never holds more than one. Layers that were not tuned are left out.
///
/// `extracted` is told of each layer as it is done: its path, its rank, and the share of the difference that the rank holds.
///
/// # Errors
///
/// [`AdapterError::Factors`] with every layer whose shapes differ or that holds NaN or infinity, and a rank or share that is
/// out of range. An error of the source ends the extraction.
pub fn extract(
    pairs: impl IntoIterator<Item = Result<NamedPair, AdapterError>>,
    rank: ExtractRank,
    mut extracted: impl FnMut(&str, usize, f64),
) -> Result<FactorSet, AdapterError> {
    let mut faults = Vec::new();
    match rank {
        ExtractRank::Fixed(0)
        | ExtractRank::Energy { at_most: 0, .. }
        | ExtractRank::Sketched { rank: 0, .. } => {
            faults.push("the rank is 0".to_string());
        }
        ExtractRank::Energy { share, .. } if !(share > 0.0 && share <= 1.0) => faults.push(
            format!("the share is {share}; it must be greater than 0 and at most 1"),
        ),
        _ => {}
    }
    if !faults.is_empty() {
        return Err(refused(faults));
    }
    let mut set = FactorSet::default();
    for pair in pairs {
        let NamedPair { path, base, tuned } = pair?;
        if base.shape() != tuned.shape() {
            let (base, tuned) = (base.shape(), tuned.shape());
            faults.push(format!(
                "{path} is {base:?} in the base and {tuned:?} in the tuned model"
            ));
            continue;
        }
        match extract_layer(&base, &tuned, rank) {
            Ok(None) => {}
            Ok(Some(layer)) => {
                extracted(&path, layer.factors.rank(), layer.kept);
                set.layers.insert(path, layer.factors);
            }
            Err(error) => faults.push(format!("{path}: {error}")),
        }
    }
    match faults.is_empty() {
        true => Ok(set),
        false => Err(refused(faults)),
    }
}

fn refused(faults: Vec<String>) -> AdapterError {
    AdapterError::Factors {
        action: "the extraction",
        faults,
    }
}
