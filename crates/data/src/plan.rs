//! Which examples go into which batch.

use crate::error::DataError;
use crate::shuffle::{generator, shuffle};

/// Batches per window in which examples are sorted by length.
///
/// A wide window wastes fewer positions on padding, a narrow one mixes better; 50 batches of 8 rows
/// keep padding to a few percent and still put any two rows together in some epoch.
const WINDOW_BATCHES: usize = 50;

/// The batches of one epoch, as indices of examples: each example exactly once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPlan {
    batches: Vec<Vec<usize>>,
}

impl BatchPlan {
    /// Shuffled batches of examples of similar length.
    ///
    /// All examples are shuffled, then sorted by length within windows of 50 batches, cut into
    /// batches, and the batches shuffled, so that lengths follow no trend through the epoch. The
    /// one smaller batch, if the count does not divide, is anywhere. `lengths[i]` is the number of
    /// tokens in example `i`. The plan is a function of the arguments alone.
    ///
    /// # Errors
    ///
    /// [`DataError::BadOption`] for a batch size of zero.
    pub fn new(
        lengths: &[usize],
        batch_size: usize,
        seed: u64,
        epoch: u64,
    ) -> Result<Self, DataError> {
        check_batch_size(batch_size)?;
        let mut rng = generator(seed, epoch);
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        shuffle(&mut order, &mut rng);
        let mut batches = Vec::with_capacity(lengths.len().div_ceil(batch_size));
        for window in order.chunks_mut(batch_size.saturating_mul(WINDOW_BATCHES)) {
            window.sort_by_key(|&index| lengths[index]);
            batches.extend(window.chunks(batch_size).map(<[usize]>::to_vec));
        }
        shuffle(&mut batches, &mut rng);
        Ok(Self { batches })
    }

    /// Batches in order of length, for evaluation: least padding, nothing drawn.
    ///
    /// # Errors
    ///
    /// [`DataError::BadOption`] for a batch size of zero.
    pub fn by_length(lengths: &[usize], batch_size: usize) -> Result<Self, DataError> {
        check_batch_size(batch_size)?;
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&index| lengths[index]);
        Ok(Self {
            batches: order.chunks(batch_size).map(<[usize]>::to_vec).collect(),
        })
    }

    /// How many batches there are.
    pub fn len(&self) -> usize {
        self.batches.len()
    }

    /// Whether there is none, which is so without examples only.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The examples of one batch, or nothing past the end.
    pub fn get(&self, batch: usize) -> Option<&[usize]> {
        self.batches.get(batch).map(Vec::as_slice)
    }

    /// The batches in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[usize]> {
        self.batches.iter().map(Vec::as_slice)
    }

    /// The batches as plain lists.
    pub fn into_batches(self) -> Vec<Vec<usize>> {
        self.batches
    }
}

fn check_batch_size(batch_size: usize) -> Result<(), DataError> {
    if batch_size > 0 {
        return Ok(());
    }
    Err(DataError::BadOption {
        option: "batch_size",
        value: "0".to_string(),
        expected: "at least 1",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lengths;

    #[test]
    fn every_example_once_per_epoch() {
        for (count, batch_size) in [
            (0, 3),
            (1, 3),
            (3, 3),
            (10, 1),
            (1_000, 8),
            (1_003, 8),
            (5, usize::MAX),
        ] {
            let lengths = lengths(count, 9);
            for plan in [
                BatchPlan::new(&lengths, batch_size, 1, 4),
                BatchPlan::by_length(&lengths, batch_size),
            ] {
                let plan = plan.unwrap();
                assert_eq!(plan.len(), count.div_ceil(batch_size));
                assert!(
                    plan.iter()
                        .all(|batch| (1..=batch_size).contains(&batch.len()))
                );
                assert!(plan.iter().filter(|batch| batch.len() < batch_size).count() <= 1);
                let mut seen: Vec<usize> = plan.iter().flatten().copied().collect();
                seen.sort_unstable();
                assert_eq!(seen, (0..count).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn depends_on_seed_and_epoch_alone() {
        let lengths = lengths(200, 3);
        let plan = |seed, epoch| BatchPlan::new(&lengths, 4, seed, epoch).unwrap();
        assert_eq!(plan(1, 0), plan(1, 0));
        assert_ne!(plan(1, 0), plan(1, 1));
        assert_ne!(plan(1, 0), plan(2, 0));
    }

    #[test]
    fn is_the_same_on_every_platform() {
        let plan = BatchPlan::new(&[5, 3, 9, 3, 7], 2, 42, 0).unwrap();
        assert_eq!(plan.into_batches(), [vec![2], vec![0, 4], vec![1, 3]]);
    }

    #[test]
    fn groups_lengths() {
        let lengths = lengths(4_000, 100);
        let padded = |batches: Vec<Vec<usize>>| -> usize {
            batches
                .iter()
                .map(|batch| batch.len() * batch.iter().map(|&i| lengths[i]).max().unwrap_or(0))
                .sum()
        };
        let tokens: usize = lengths.iter().sum();
        let grouped = padded(BatchPlan::new(&lengths, 8, 0, 0).unwrap().into_batches());
        let plain = padded(
            (0..4_000)
                .collect::<Vec<_>>()
                .chunks(8)
                .map(<[usize]>::to_vec)
                .collect(),
        );
        assert!(
            grouped as f64 <= 1.05 * tokens as f64,
            "{grouped} for {tokens}"
        );
        assert!(plain as f64 >= 1.5 * tokens as f64, "{plain} for {tokens}");
    }

    #[test]
    fn lengths_follow_no_trend() {
        let lengths = lengths(4_000, 100);
        let plan = BatchPlan::new(&lengths, 8, 0, 0).unwrap();
        let mean = |batches: &[Vec<usize>]| {
            let all: Vec<usize> = batches.iter().flatten().map(|&i| lengths[i]).collect();
            all.iter().sum::<usize>() as f64 / all.len() as f64
        };
        let batches = plan.into_batches();
        let (first, second) = batches.split_at(batches.len() / 2);
        assert!(
            (mean(first) - mean(second)).abs() < 10.0,
            "{} {}",
            mean(first),
            mean(second)
        );
    }

    #[test]
    fn refuses_empty_batches() {
        assert!(matches!(
            BatchPlan::new(&[1], 0, 0, 0),
            Err(DataError::BadOption { .. })
        ));
        assert!(matches!(
            BatchPlan::by_length(&[1], 0),
            Err(DataError::BadOption { .. })
        ));
    }
}
