//! Dividing examples into training and validation.

use crate::error::DataError;
use crate::shuffle::{SPLIT_STREAM, generator, shuffle};

/// Draws `valid_fraction` of the examples for validation; the result is `(training, validation)`.
///
/// The number is rounded, but neither part is left empty unless the fraction is zero. Which
/// examples are drawn depends on the seed and on how many there are; within each part they keep
/// their order.
///
/// # Errors
///
/// [`DataError::BadOption`] for a fraction outside `0 <= f < 1`; [`DataError::TooFewToSplit`] for
/// fewer than two examples and a fraction above zero.
pub fn split<T>(
    examples: Vec<T>,
    valid_fraction: f64,
    seed: u64,
) -> Result<(Vec<T>, Vec<T>), DataError> {
    if !(0.0..1.0).contains(&valid_fraction) {
        return Err(DataError::BadOption {
            option: "valid_fraction",
            value: valid_fraction.to_string(),
            expected: "at least 0 and below 1",
        });
    }
    if valid_fraction == 0.0 {
        return Ok((examples, Vec::new()));
    }
    let len = examples.len();
    if len < 2 {
        return Err(DataError::TooFewToSplit { examples: len });
    }
    let valid_len = ((len as f64 * valid_fraction).round() as usize).clamp(1, len - 1);

    let mut order: Vec<usize> = (0..len).collect();
    shuffle(&mut order, &mut generator(seed, SPLIT_STREAM));
    let mut is_valid = vec![false; len];
    order[..valid_len]
        .iter()
        .for_each(|&index| is_valid[index] = true);

    let mut train = Vec::with_capacity(len - valid_len);
    let mut valid = Vec::with_capacity(valid_len);
    for (example, is_valid) in examples.into_iter().zip(is_valid) {
        if is_valid {
            valid.push(example)
        } else {
            train.push(example)
        }
    }
    Ok((train, valid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_in_one_part() {
        for (len, fraction, expected) in [(10, 0.2, 2), (10, 0.01, 1), (3, 0.99, 2), (7, 0.0, 0)] {
            let (train, valid) = split((0..len).collect(), fraction, 5).unwrap();
            assert_eq!(valid.len(), expected);
            assert!(train.is_sorted() && valid.is_sorted());
            let mut all: Vec<i32> = train.into_iter().chain(valid).collect();
            all.sort_unstable();
            assert_eq!(all, (0..len).collect::<Vec<_>>());
        }
    }

    #[test]
    fn depends_on_the_seed_alone() {
        let valid = |seed| split((0..100).collect::<Vec<_>>(), 0.2, seed).unwrap().1;
        assert_eq!(valid(1), valid(1));
        assert_ne!(valid(1), valid(2));
    }

    #[test]
    fn refuses_what_cannot_be_divided() {
        for fraction in [-0.1, 1.0, f64::NAN] {
            assert!(matches!(
                split(vec![1, 2, 3], fraction, 0),
                Err(DataError::BadOption { .. })
            ));
        }
        assert!(matches!(
            split(vec![1], 0.5, 0),
            Err(DataError::TooFewToSplit { examples: 1 })
        ));
    }
}
