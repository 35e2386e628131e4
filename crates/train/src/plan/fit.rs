//! The largest batch that some memory has room for.

use serde::Serialize;

use super::{PlanOptions, Planner};

/// Where the search ends for a model without a longest sequence, and for batches.
const MOST: usize = 1 << 20;

/// What fits into some memory.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// The memory, in bytes.
    pub budget: u64,
    /// The most rows of the length that was asked for; 0 if not one fits.
    pub batch_size: usize,
    /// The longest rows of the batch that was asked for; 0 if one token is too many.
    pub seq_len: usize,
    /// The most rows of other lengths.
    pub lengths: Vec<FitAtLength>,
}

/// The most rows of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FitAtLength {
    /// Tokens of a row.
    pub seq_len: usize,
    /// Rows, with the recomputation that was asked for.
    pub batch_size: usize,
    /// Rows, with every block computed again.
    pub batch_size_recomputed: usize,
}

impl Planner {
    /// The largest batch and length that fit into so many bytes.
    pub fn fit(&self, options: &PlanOptions, budget: u64) -> Fit {
        let options = &options.bounded();
        let longest = self.anatomy().max_positions.unwrap_or(MOST);
        let needs = |options: &PlanOptions| self.memory(options).total;
        let batch = |options: &PlanOptions| {
            largest(MOST, |batch_size| {
                needs(&PlanOptions {
                    batch_size,
                    ..options.clone()
                }) <= budget
            })
        };
        let seq_len = largest(longest, |seq_len| {
            needs(&PlanOptions {
                seq_len,
                ..options.clone()
            }) <= budget
        });
        let lengths = (7..20).map(|power| 1usize << power);
        let lengths = lengths.take_while(|length| *length <= longest.min(1 << 17));
        let lengths = lengths.map(|seq_len| {
            let options = PlanOptions {
                seq_len,
                ..options.clone()
            };
            FitAtLength {
                seq_len,
                batch_size: batch(&options),
                batch_size_recomputed: batch(&PlanOptions {
                    recompute: usize::MAX,
                    ..options
                }),
            }
        });
        Fit {
            budget,
            batch_size: batch(options),
            seq_len,
            lengths: lengths.collect(),
        }
    }
}

/// The largest number up to `most` that holds, if smaller ones do.
fn largest(most: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, most + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match holds(middle) {
            true => low = middle,
            false => high = middle,
        }
    }
    low
}
