use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use burn_lora_transformer::{EncoderBatch, MaskedLm};

use super::inputs::{ModelLimits, class_losses, culprits, encoder_batch, row_counts, states_at};
use super::{Counts, Notes, Task, Told};
use crate::config::TrainConfig;
use crate::measures::accuracy;

/// What stood behind masks (BERT, arXiv:1810.04805): a share of the tokens is chosen anew in every batch; of those, 80%
/// become the mask, 10% any token, and 10% stay as they are, as Transformers' `DataCollatorForLanguageModeling` does it.
///
/// What is chosen follows from the seed and the number of the batch; a validation always has the same.
#[derive(Clone, Debug)]
pub struct Masked {
    /// The mask.
    pub mask: u32,
    /// Tokens that are never chosen: those that the tokenizer puts around a text.
    pub special: Vec<u32>,
    /// Tokens that may take the place of another: those below.
    pub vocab_size: usize,
    /// The share of tokens that is chosen.
    pub probability: f64,
}

/// Texts on a device, with what stood at the chosen places.
#[derive(Debug)]
pub struct MaskedBatch {
    pub(super) inputs: EncoderBatch,
    pub(super) places: Vec<u32>,
    pub(super) wanted: Vec<usize>,
}

impl Masked {
    /// The places chosen in rows of a common width, what stood there, and the rows as the model sees them.
    fn hide(&self, rows: &[&Vec<u32>], draw: u64) -> (Vec<u32>, Vec<usize>, Vec<Vec<u32>>) {
        let width = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let mut draws = Draws(draw);
        let mut hidden: Vec<Vec<u32>> = rows.iter().map(|row| row.to_vec()).collect();
        let mut free = Vec::new();
        let mut chosen = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            for (token, id) in row.iter().enumerate() {
                if self.special.contains(id) {
                    continue;
                }
                free.push((at, token));
                if draws.share() < self.probability {
                    chosen.push((at, token));
                }
            }
        }
        if chosen.is_empty() && !free.is_empty() {
            // A batch that learns nothing has no mean loss; this happens to short ones.
            chosen.push(free[draws.below(free.len())]);
        }
        let mut wanted = Vec::with_capacity(chosen.len());
        for (at, token) in &chosen {
            wanted.push(rows[*at][*token] as usize);
            let shown = &mut hidden[*at][*token];
            match draws.share() {
                share if share < 0.8 => *shown = self.mask,
                share if share < 0.9 => *shown = draws.below(self.vocab_size) as u32,
                _ => {}
            }
        }
        let places = chosen.iter().map(|(at, token)| (at * width + token) as u32);
        (places.collect(), wanted, hidden)
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2714064.2660195): the same draws on every platform.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In `[0, 1)`.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Below a bound, which is small against 2^64.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

impl Task<MaskedLm> for Masked {
    type Example = Vec<u32>;
    type Batch = MaskedBatch;

    fn length(&self, example: &Vec<u32>) -> usize {
        example.len()
    }

    fn faults(
        &self,
        model: &MaskedLm,
        _config: &TrainConfig,
        examples: &[&Vec<u32>],
    ) -> Vec<String> {
        let config = model.config();
        let limits = ModelLimits {
            positions: config.max_positions(),
            vocab_size: config.vocab_size(),
            segments: config.segments(),
        };
        let mut faults = limits.faults(examples.iter().map(|ids| &ids[..]));
        if self.mask as usize >= limits.vocab_size || self.vocab_size > limits.vocab_size {
            let (mask, drawn, known) = (self.mask, self.vocab_size, limits.vocab_size);
            faults.push(format!(
                "the mask {mask} and the tokens below {drawn} are not all among the model's {known}"
            ));
        }
        if !(self.probability > 0.0 && self.probability < 1.0) {
            faults.push("the share of masked tokens must be above 0 and below 1".into());
        }
        let numbered = examples.iter().enumerate();
        let nothing = numbered.filter(|(_, ids)| ids.iter().all(|id| self.special.contains(id)));
        let nothing: Vec<usize> = nothing.map(|(at, _)| at).collect();
        faults.extend(culprits("have no token to mask", &nothing));
        faults
    }

    fn batch(&self, rows: &[Vec<&Vec<u32>>], draw: u64, device: &Device) -> MaskedBatch {
        let ids: Vec<&Vec<u32>> = rows.iter().flatten().copied().collect();
        let (places, wanted, hidden) = self.hide(&ids, draw);
        let hidden: Vec<&[u32]> = hidden.iter().map(|row| &row[..]).collect();
        MaskedBatch {
            inputs: encoder_batch(&hidden, None, device),
            places,
            wanted,
        }
    }

    fn counts(&self, batch: &MaskedBatch) -> Counts {
        row_counts(batch.wanted.len(), &batch.inputs)
    }

    fn loss_sum(&self, model: &MaskedLm, batch: &MaskedBatch) -> Tensor<1> {
        class_losses(logits(model, batch), &batch.wanted)
    }

    fn judge(&self, model: &MaskedLm, batch: &MaskedBatch) -> (Tensor<1>, Option<Notes>) {
        let logits = logits(model, batch);
        // The place of the largest alone: logits of a vocabulary are too many to keep.
        let made = logits.clone().argmax(1).float();
        let notes = Notes::Numbers {
            made,
            wanted: batch.wanted.iter().map(|id| *id as f32).collect(),
        };
        (class_losses(logits, &batch.wanted), Some(notes))
    }

    fn is_language(&self) -> bool {
        true
    }

    fn metrics(&self) -> Vec<&'static str> {
        vec!["accuracy"]
    }

    fn measure(&self, told: &[Arc<Told>]) -> Vec<f64> {
        let ids = |numbers: &[f32]| numbers.iter().map(|id| *id as usize).collect::<Vec<_>>();
        let made: Vec<usize> = told
            .iter()
            .flat_map(|told| told.rows().map(|row| row[0] as usize).collect::<Vec<_>>())
            .collect();
        let wanted: Vec<usize> = told.iter().flat_map(|told| ids(told.wanted())).collect();
        vec![accuracy(&made, &wanted)]
    }
}

/// The logits of the chosen places, `[chosen, vocab]`; those of the others are never made.
fn logits(model: &MaskedLm, batch: &MaskedBatch) -> Tensor<2> {
    model.logits_of(states_at(
        model.encoder.hidden(&batch.inputs),
        &batch.places,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_in_seven_is_chosen_and_most_of_these_hidden() {
        let task = Masked {
            mask: 3,
            special: vec![0, 1],
            vocab_size: 1000,
            probability: 0.15,
        };
        let mut row = vec![500_u32; 20_000];
        row[0] = 0;
        row[19_999] = 1;
        let (places, wanted, hidden) = task.hide(&[&row], 7);
        let share = places.len() as f64 / row.len() as f64;
        assert!((share - 0.15).abs() < 0.01, "{share}");
        assert!(wanted.iter().all(|id| *id == 500));
        let seen = |is: &dyn Fn(u32) -> bool| {
            let seen = places
                .iter()
                .filter(|place| is(hidden[0][**place as usize]));
            seen.count() as f64 / places.len() as f64
        };
        assert!((seen(&|id| id == 3) - 0.8).abs() < 0.03);
        assert!((seen(&|id| id == 500) - 0.1).abs() < 0.03);
        let others = (0..row.len()).filter(|at| !places.contains(&(*at as u32)));
        assert!(others.into_iter().all(|at| hidden[0][at] == row[at]));
        assert_eq!((hidden[0][0], hidden[0][19_999]), (0, 1));

        assert_eq!(task.hide(&[&row], 7).0, places, "the same draw");
        assert_ne!(task.hide(&[&row], 8).0, places, "another");
        let short = vec![0, 9, 1];
        for draw in 0..50 {
            assert_eq!(task.hide(&[&short], draw).0, [1], "never nothing");
        }
    }
}
