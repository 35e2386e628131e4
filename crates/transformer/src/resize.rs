//! Rows for tokens that a tokenizer gained after the model was saved.

use rand_chacha::ChaCha8Rng;
use safetensors::Dtype;

use crate::convert::{Stored, with_stored};
use crate::weights::normal;

/// What the rows of new tokens hold, in the embedding and in a head of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NewRows {
    /// The mean of the rows that are there, so that a new token is at first like any other.
    #[default]
    Mean,
    /// Normally distributed with the configuration's `initializer_range`, from this seed.
    Normal {
        /// The seed.
        seed: u64,
    },
}

/// How the new rows of one tensor are made.
pub(crate) enum Filling<'a> {
    Mean,
    Normal { std: f64, rng: &'a mut ChaCha8Rng },
}

/// Appends rows to the bytes of a tensor of `rows` rows, which may be a vector with one number for each.
pub(crate) fn grow(
    bytes: &mut Vec<u8>,
    dtype: Dtype,
    rows: usize,
    new_rows: usize,
    filling: Filling<'_>,
) {
    with_stored!(dtype, S => grow_as::<S>(bytes, rows, new_rows, filling));
}

fn grow_as<S: Stored>(bytes: &mut Vec<u8>, rows: usize, new_rows: usize, filling: Filling<'_>) {
    let width = bytes.len() / S::BYTES / rows.max(1);
    let values = match filling {
        Filling::Mean => mean::<S>(bytes, rows, width).repeat(new_rows),
        Filling::Normal { std, rng } => normal(std as f32, new_rows * width, rng),
    };
    bytes.reserve_exact(values.len() * S::BYTES);
    for value in values {
        S::from_f32(value).put_le(bytes);
    }
}

/// The mean row, `[width]`.
fn mean<S: Stored>(bytes: &[u8], rows: usize, width: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; width];
    for row in bytes.chunks_exact((width * S::BYTES).max(1)) {
        for (sum, number) in sums.iter_mut().zip(row.chunks_exact(S::BYTES)) {
            *sum += f64::from(S::from_le(number).to_f32());
        }
    }
    sums.iter().map(|sum| (sum / rows as f64) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use rand::SeedableRng;

    #[test]
    fn a_mean_row_is_the_mean_of_each_column() {
        let row = |values: [f32; 2]| values.map(|x| bf16::from_f32(x).to_le_bytes()).concat();
        let mut bytes = [row([1.0, -2.0]), row([3.0, 6.0])].concat();
        grow(&mut bytes, Dtype::BF16, 2, 2, Filling::Mean);
        let all = [[1.0, -2.0], [3.0, 6.0], [2.0, 2.0], [2.0, 2.0]];
        assert_eq!(bytes, all.map(row).concat());
    }

    #[test]
    fn drawn_rows_follow_from_the_seed() {
        let grown = || {
            let mut bytes = vec![0; 4 * 3];
            let mut rng = ChaCha8Rng::seed_from_u64(5);
            let filling = Filling::Normal {
                std: 0.1,
                rng: &mut rng,
            };
            grow(&mut bytes, Dtype::F32, 1, 4, filling);
            bytes
        };
        assert_eq!(grown().len(), 4 * 3 * 5);
        assert_eq!(grown(), grown());
        assert!(grown()[12..].iter().any(|byte| *byte != 0));
    }
}
