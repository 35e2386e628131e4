use burn::tensor::{DType, Int, Tensor, TensorData};

use super::T5;
use crate::encoder::loss::mean_cross_entropy;
use crate::encoder::{EncoderBatch, LabelError};
use crate::weigh::cast;

impl T5 {
    /// The mean cross-entropy of the tokens that are to be written for each row of a batch, their end included.
    ///
    /// # Shapes
    ///
    /// - output: `[1]`, f32
    ///
    /// # Errors
    ///
    /// Every row of which nothing or an unknown token is to be written, and targets for more or fewer rows.
    pub fn loss(
        &self,
        batch: &EncoderBatch,
        targets: &[Vec<u32>],
    ) -> Result<Tensor<1>, LabelError> {
        LabelError::check(self.problems(batch, targets))?;
        let (seq, rows) = (
            targets.iter().map(Vec::len).max().unwrap_or(0),
            targets.len(),
        );
        let (start, pad) = (self.config.decoder_start_token_id, self.config.pad_token_id);
        let before = targets.iter().flat_map(|row| {
            let padding = std::iter::repeat_n(pad, seq - row.len());
            let known = row[..row.len() - 1].iter().copied();
            std::iter::once(start).chain(known).chain(padding)
        });
        let ids: Vec<i32> = before.map(|id| id as i32).collect();
        let device = batch.ids.device();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [rows, seq]), &device);
        let hidden = self.decode(ids, &self.encode(batch)).flatten::<2>(0, 1); // [rows * seq, d_model]

        let places = targets.iter().enumerate();
        let places = places.flat_map(|(at, row)| at * seq..at * seq + row.len());
        let places: Vec<i32> = places.map(|place| place as i32).collect();
        let places = Tensor::<1, Int>::from_ints(places.as_slice(), &device);
        let logits = self.logits_of(hidden.select(0, places)); // [learned, vocab]
        let classes: Vec<usize> = targets.iter().flatten().map(|id| *id as usize).collect();
        Ok(mean_cross_entropy(cast(logits, DType::F32), &classes))
    }

    fn problems(&self, batch: &EncoderBatch, targets: &[Vec<u32>]) -> Vec<String> {
        let mut problems = Vec::new();
        let (found, expected) = (targets.len(), batch.lengths.len());
        if found != expected {
            problems.push(format!("{found} rows of targets for {expected} rows"));
        }
        let known = self.config.vocab_size;
        for (at, row) in targets.iter().enumerate() {
            if row.is_empty() {
                problems.push(format!("row {at} has no target"));
            }
            if let Some(id) = row.iter().find(|id| **id as usize >= known) {
                problems.push(format!(
                    "row {at} has the target {id}; the model knows those below {known}"
                ));
            }
        }
        problems
    }
}
