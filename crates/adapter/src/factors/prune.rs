//! What becomes of several tensors that are merged into one, element by element.

use burn_lora_linalg::Matrix;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How the sign is elected that the elements of several adapters have in common (`majority_sign_method`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MajoritySign {
    /// The sign of their sum (`total`).
    #[default]
    Total,
    /// The sign that most of them have (`frequency`).
    Frequency,
}

/// What is dropped of each tensor before they are summed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pruning {
    Nothing,
    /// All but the share of the largest magnitudes.
    Magnitude(f64),
    /// All but a share drawn at random; the rest is divided by it (Yu et al., 2023, "Language Models are Super Mario").
    Random {
        density: f64,
        seed: u64,
        stream: u64,
    },
}

impl Pruning {
    fn apply(self, tensor: &Matrix, index: u64) -> Matrix {
        match self {
            Self::Magnitude(density) if density < 1.0 => keep_largest(tensor, density),
            Self::Random {
                density,
                seed,
                stream,
            } if density < 1.0 => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(stream.wrapping_mul(1 << 16).wrapping_add(index));
                tensor.map(|value| match rng.random::<f64>() < density {
                    true => value / density,
                    false => 0.0,
                })
            }
            _ => tensor.clone(),
        }
    }
}

/// Exactly `density` of the elements, rounded down; among equals those that come first.
fn keep_largest(tensor: &Matrix, density: f64) -> Matrix {
    let magnitudes: Vec<f64> = tensor.iter().map(f64::abs).collect();
    let kept = (density * magnitudes.len() as f64) as usize;
    let mut order: Vec<usize> = (0..magnitudes.len()).collect();
    order.sort_by(|x, y| magnitudes[*y].total_cmp(&magnitudes[*x]));
    let mut mask = vec![false; magnitudes.len()];
    for index in &order[..kept] {
        mask[*index] = true;
    }
    let columns = tensor.columns();
    Matrix::from_fn(tensor.rows(), columns, |row, column| {
        match mask[row * columns + column] {
            true => tensor.get(row, column),
            false => 0.0,
        }
    })
}

/// Prunes tensors of one shape and sums them by weight; with a sign to elect, only what has it counts, and is averaged
/// (Yadav et al., 2023, "TIES-Merging").
pub(super) fn merge(
    tensors: &[Matrix],
    weights: &[f64],
    pruning: &[Pruning],
    elect: Option<MajoritySign>,
) -> Matrix {
    let pruned: Vec<Matrix> = tensors
        .iter()
        .zip(pruning)
        .zip(0..)
        .map(|((tensor, pruning), index)| pruning.apply(tensor, index))
        .collect();
    let [rows, columns] = tensors[0].shape();
    Matrix::from_fn(rows, columns, |row, column| {
        let values = pruned.iter().map(|tensor| tensor.get(row, column));
        let weighted = values.clone().zip(weights);
        let Some(elect) = elect else {
            return weighted.map(|(value, weight)| value * weight).sum();
        };
        let votes: f64 = match elect {
            MajoritySign::Total => values.sum(),
            MajoritySign::Frequency => values.map(sign).sum(),
        };
        let elected = if votes >= 0.0 { 1.0 } else { -1.0 };
        let (sum, count) = weighted
            .filter(|(value, _)| sign(*value) == elected)
            .fold((0.0, 0.0), |(sum, count), (value, weight)| {
                (sum + value * weight, count + 1.0)
            });
        sum / f64::max(count, 1.0)
    })
}

/// 0 for 0, other than `f64::signum`.
fn sign(value: f64) -> f64 {
    if value == 0.0 { 0.0 } else { value.signum() }
}
