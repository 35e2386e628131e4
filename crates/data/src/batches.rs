//! An endless stream of batches whose position can be saved.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::error::DataError;
use crate::example::Example;
use crate::pack::pack;
use crate::plan::BatchPlan;

/// Where a [`Batches`] stands: with the same examples it determines every batch to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchState {
    /// The seed of every epoch's order.
    pub seed: u64,
    /// The epoch of the next batch, from zero.
    pub epoch: u64,
    /// The next batch within its epoch, from zero.
    pub position: usize,
    /// Rows per batch; a position counts batches of this size.
    pub batch_size: usize,
    /// Examples in the set.
    pub examples: usize,
}

/// Batches of [`Example`]s, epoch after epoch, each epoch in an order of its own
/// ([`BatchPlan::new`]).
#[derive(Debug, Clone)]
pub struct Batches {
    examples: Arc<[Example]>,
    /// The examples of each row.
    rows: Arc<[Vec<usize>]>,
    /// The tokens of each row.
    lengths: Vec<usize>,
    pad: u32,
    plan: BatchPlan,
    state: BatchState,
}

impl Batches {
    /// Starts at the first batch of epoch 0.
    ///
    /// # Errors
    ///
    /// [`DataError::BadOption`] for a batch size of zero or no examples.
    pub fn new(
        examples: impl Into<Arc<[Example]>>,
        batch_size: usize,
        pad: u32,
        seed: u64,
    ) -> Result<Self, DataError> {
        let examples = examples.into();
        let rows = (0..examples.len()).map(|index| vec![index]).collect();
        Self::of_rows(examples, rows, batch_size, pad, seed)
    }

    /// Batches of rows of up to `capacity` tokens, each of several examples ([`pack`]). Which examples share a row is the
    /// same in every epoch; which rows share a batch is not.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); for an example longer than `capacity`, too.
    pub fn packed(
        examples: impl Into<Arc<[Example]>>,
        capacity: usize,
        batch_size: usize,
        pad: u32,
        seed: u64,
    ) -> Result<Self, DataError> {
        let examples = examples.into();
        let lengths: Vec<usize> = examples.iter().map(Example::len).collect();
        let rows = pack(&lengths, capacity)?;
        Self::of_rows(examples, rows, batch_size, pad, seed)
    }

    fn of_rows(
        examples: Arc<[Example]>,
        rows: Vec<Vec<usize>>,
        batch_size: usize,
        pad: u32,
        seed: u64,
    ) -> Result<Self, DataError> {
        if examples.is_empty() {
            return Err(DataError::BadOption {
                option: "the number of training examples",
                value: "0".to_string(),
                expected: "at least 1",
            });
        }
        let tokens = |row: &Vec<usize>| row.iter().map(|&index| examples[index].len()).sum();
        let lengths: Vec<usize> = rows.iter().map(tokens).collect();
        let plan = BatchPlan::new(&lengths, batch_size, seed, 0)?;
        let state = BatchState {
            seed,
            epoch: 0,
            position: 0,
            batch_size,
            examples: examples.len(),
        };
        Ok(Self {
            examples,
            rows: rows.into(),
            lengths,
            pad,
            plan,
            state,
        })
    }

    /// The next batch; after the last of an epoch, the first of the next.
    pub fn next_batch(&mut self) -> Batch {
        let chosen = self.plan.get(self.state.position).unwrap_or_default();
        let row = |&row: &usize| -> Vec<&Example> {
            self.rows[row]
                .iter()
                .map(|&index| &self.examples[index])
                .collect()
        };
        let batch = Batch::packed(chosen.iter().map(row), self.pad);
        self.state.position += 1;
        if self.state.position == self.plan.len() {
            self.state.position = 0;
            self.state.epoch += 1;
            self.plan = self.plan_of(self.state);
        }
        batch
    }

    /// How many batches an epoch has.
    pub fn batches_per_epoch(&self) -> usize {
        self.plan.len()
    }

    /// The examples that the batches are made of.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// Where the stream stands.
    pub fn state(&self) -> BatchState {
        self.state
    }

    /// Goes on from `state`: the next batch is the one that would have followed when it was saved.
    ///
    /// # Errors
    ///
    /// [`DataError::BadState`], with all that differs, for a state of another number of examples,
    /// another batch size, or past the epoch's end; the stream is left where it is.
    pub fn restore(&mut self, state: BatchState) -> Result<(), DataError> {
        let mut faults = Vec::new();
        if state.examples != self.state.examples {
            faults.push(format!(
                "it counts {} examples, here are {}",
                state.examples, self.state.examples
            ));
        }
        if state.batch_size != self.state.batch_size {
            faults.push(format!(
                "its batch size is {}, here it is {}",
                state.batch_size, self.state.batch_size
            ));
        }
        if state.position >= self.plan.len() {
            faults.push(format!(
                "batch {} of an epoch of {}",
                state.position,
                self.plan.len()
            ));
        }
        if !faults.is_empty() {
            return Err(DataError::BadState(faults.join("; ")));
        }
        self.plan = self.plan_of(state);
        self.state = state;
        Ok(())
    }

    fn plan_of(&self, state: BatchState) -> BatchPlan {
        BatchPlan::new(&self.lengths, state.batch_size, state.seed, state.epoch)
            .expect("the batch size was checked when the stream was made")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random_examples;

    fn batches(count: usize, batch_size: usize, seed: u64) -> Batches {
        Batches::new(random_examples(count, 9, 1), batch_size, 0, seed).unwrap()
    }

    #[test]
    fn epochs_differ_and_are_complete() {
        let mut stream = batches(25, 4, 3);
        assert_eq!(stream.batches_per_epoch(), 7);
        let mut epoch =
            || -> Vec<Vec<u32>> { (0..7).map(|_| stream.next_batch().targets).collect() };
        let (mut first, mut second) = (epoch(), epoch());
        assert_ne!(first, second);
        assert_eq!(stream.state().epoch, 2);
        for epoch in [&mut first, &mut second] {
            epoch.sort_unstable();
        }
        let sorted = |epoch: Vec<Vec<u32>>| {
            let mut tokens: Vec<u32> = epoch.into_iter().flatten().collect();
            tokens.sort_unstable();
            tokens
        };
        assert_eq!(sorted(first), sorted(second));
    }

    #[test]
    fn packed_batches_hold_every_token_in_each_epoch() {
        let examples = random_examples(40, 9, 1);
        let tokens: usize = examples.iter().map(Example::len).sum();
        let learned: usize = examples.iter().map(Example::learned_len).sum();
        let mut stream = Batches::packed(examples, 32, 2, 0, 3).unwrap();
        let mut orders = Vec::new();
        for _ in 0..2 {
            let epoch: Vec<Batch> = (0..stream.batches_per_epoch())
                .map(|_| stream.next_batch())
                .collect();
            assert_eq!(epoch.iter().map(Batch::tokens).sum::<usize>(), tokens);
            assert_eq!(epoch.iter().map(Batch::learned).sum::<usize>(), learned);
            assert!(
                epoch
                    .iter()
                    .all(|batch| batch.seq_len <= 32 && batch.is_packed())
            );
            orders.push(epoch);
        }
        assert_ne!(orders[0], orders[1]);
        assert!(Batches::packed(random_examples(4, 9, 1), 1, 2, 0, 3).is_err());
    }

    #[test]
    fn a_restored_stream_goes_on_exactly() {
        for steps in 0..20 {
            let mut stream = batches(25, 4, 3);
            for _ in 0..steps {
                stream.next_batch();
            }
            let saved = serde_json::to_string(&stream.state()).unwrap();
            // The seed comes from the state, whatever the new stream was made with.
            let mut resumed = batches(25, 4, 77);
            resumed
                .restore(serde_json::from_str(&saved).unwrap())
                .unwrap();
            for _ in 0..20 {
                assert_eq!(resumed.next_batch(), stream.next_batch());
            }
            assert_eq!(resumed.state(), stream.state());
        }
    }

    #[test]
    fn refuses_a_state_of_other_data() {
        let mut stream = batches(25, 4, 3);
        stream.next_batch();
        let before = stream.state();
        let state = BatchState {
            seed: 3,
            epoch: 0,
            position: 9,
            batch_size: 8,
            examples: 24,
        };
        let message = stream.restore(state).unwrap_err().to_string();
        for part in [
            "24 examples, here are 25",
            "batch size is 8, here it is 4",
            "batch 9 of an epoch of 7",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(stream.state(), before);
    }

    #[test]
    fn refuses_to_start_from_nothing() {
        assert!(matches!(
            Batches::new(Vec::new(), 4, 0, 0),
            Err(DataError::BadOption { .. })
        ));
        assert!(matches!(
            Batches::new(random_examples(3, 9, 1), 0, 0, 0),
            Err(DataError::BadOption { .. })
        ));
    }
}
