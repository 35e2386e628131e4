//! Answers that a [`T5`] writes to rows, by any way of decoding.

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};

use super::{Encoded, T5, T5Cache};
use crate::encoder::EncoderBatch;
use crate::error::TooLong;
use crate::generation::{DecodingSession, Generative};
use crate::rows::RowNames;

/// Rows that were read, in one batch, and the keys and values of what is written for them.
///
/// The encoder runs once for each row, however many answers or beams it has, and each step of the decoder computes one
/// token of each. The model runs without autodiff and without dropout, with adapters as they are attached.
#[derive(Debug)]
pub struct T5Session {
    model: T5,
    prompts: Vec<Vec<u32>>,
    /// What the decoder looks at, in the order of the rows; nothing before the start.
    encoded: Option<Encoded>,
    cache: T5Cache,
    /// The prompt of each row.
    rows: Vec<usize>,
    names: RowNames,
}

impl Generative for T5 {
    type Session = T5Session;

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    /// Always: its positions are distances.
    fn check_room(&self, _prompt_len: usize, _max_new_tokens: usize) -> Result<(), TooLong> {
        Ok(())
    }

    fn named_rows(&self) -> Vec<usize> {
        RowNames::of(self).lengths()
    }

    fn session(&self, prompts: &[Vec<u32>], max_new_tokens: usize) -> T5Session {
        T5Session {
            // The token that it starts from takes the place of the last new one, which is never fed back.
            cache: self.new_cache(max_new_tokens),
            model: self.valid(),
            prompts: prompts.to_vec(),
            encoded: None,
            rows: (0..prompts.len()).collect(),
            names: RowNames::of(self),
        }
    }
}

impl T5Session {
    /// The logits after one token in each row.
    fn feed(&mut self, tokens: Vec<i32>) -> Tensor<2> {
        let (model, device) = (&self.model, self.model.device());
        let encoded = self.encoded.get_or_insert_with(|| {
            let batch = EncoderBatch::padded(&self.prompts, None, &device);
            model.encode(&batch)
        });
        let rows = tokens.len();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(tokens, [rows, 1]), &device);
        let hidden = model.decode_cached(ids, encoded, &mut self.cache); // [rows, 1, d_model]
        model.logits_of(hidden.squeeze_dim::<2>(1)) // [rows, vocab]
    }
}

impl DecodingSession for T5Session {
    fn contexts(&self) -> Vec<Vec<u32>> {
        vec![vec![self.model.config.decoder_start_token_id]; self.prompts.len()]
    }

    fn start(&mut self) -> Tensor<2> {
        let first = self.model.config.decoder_start_token_id as i32;
        self.feed(vec![first; self.prompts.len()])
    }

    fn advance(&mut self, tokens: &[u32]) -> Tensor<2> {
        self.feed(tokens.iter().map(|token| *token as i32).collect())
    }

    fn select(&mut self, rows: &[usize]) {
        let prompts: Vec<usize> = rows.iter().map(|row| self.rows[*row]).collect();
        // Beams that change places look at the same row of the encoder.
        if prompts != self.rows {
            self.encoded = self.encoded.take().map(|encoded| encoded.select(rows));
        }
        self.cache.select_rows(rows);
        self.rows = prompts;
        self.names
            .give(&mut self.model, self.prompts.len(), &self.rows);
    }
}
