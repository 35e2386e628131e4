use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};

use super::T5;
use crate::generation::GenerateError;

impl T5 {
    /// What the model writes for each row, always the likeliest token, without the token that ends it.
    ///
    /// The encoder runs once, and each step of the decoder computes one token of each row. The model runs without
    /// autodiff, with adapters as they are attached and without dropout.
    ///
    /// # Errors
    ///
    /// Rows that are empty or hold unknown tokens are refused before any work.
    pub fn generate(
        &self,
        rows: &[Vec<u32>],
        max_new_tokens: usize,
        eos: &[u32],
    ) -> Result<Vec<Vec<u32>>, GenerateError> {
        let model = self.valid();
        let mut written = vec![Vec::new(); rows.len()];
        if rows.is_empty() || max_new_tokens == 0 {
            return Ok(written);
        }
        let encoded = model.encode(&model.batch(rows)?);
        let mut cache = model.new_cache(max_new_tokens);
        let mut done = vec![false; rows.len()];
        let mut last = vec![self.config.decoder_start_token_id; rows.len()];
        for step in 0..max_new_tokens {
            let ids: Vec<i32> = last.iter().map(|id| *id as i32).collect();
            let ids = TensorData::new(ids, [rows.len(), 1]);
            let ids = Tensor::<2, Int>::from_data(ids, &model.device());
            let hidden = model.decode_cached(ids, &encoded, &mut cache);
            let logits = model.logits_of(hidden.squeeze_dim::<2>(1)); // [rows, vocab]
            for (row, choice) in best(logits)?.into_iter().enumerate() {
                if done[row] {
                    continue;
                }
                let Some(choice) = choice else {
                    return Err(GenerateError::NotFinite { row, tokens: step });
                };
                last[row] = choice;
                done[row] = eos.contains(&choice);
                if !done[row] {
                    written[row].push(choice);
                }
            }
            if done.iter().all(|done| *done) {
                break;
            }
        }
        Ok(written)
    }
}

/// The likeliest token of each row, the first of equals; none where a logit is not finite.
fn best(logits: Tensor<2>) -> Result<Vec<Option<u32>>, GenerateError> {
    let vocab = logits.dims()[1];
    let logits = logits.into_data().convert_dtype(burn::tensor::DType::F32);
    let logits = logits
        .try_into_vec::<f32>()
        .map_err(|error| GenerateError::Device(format!("{error:?}")))?;
    let best = |row: &[f32]| {
        if row.iter().any(|logit| !logit.is_finite()) {
            return None;
        }
        let first = |best: usize, at: usize| if row[at] > row[best] { at } else { best };
        (0..row.len()).reduce(first).map(|at| at as u32)
    };
    Ok(logits.chunks(vocab.max(1)).map(best).collect())
}
