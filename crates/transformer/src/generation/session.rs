//! Prompts that a [`Decoder`] continues.

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};

use super::model::{DecodingSession, Generative};
use crate::cache::KvCache;
use crate::decoder::Decoder;
use crate::error::TooLong;
use crate::positions::Padding;
use crate::rows::RowNames;

/// Prompts in one batch, with the keys and values of what was read.
///
/// Shorter prompts are padded in front, their positions count from their first real token, and the padding is masked:
/// each row is computed as it would be alone. The model runs without autodiff and without dropout, with adapters as
/// they are attached.
#[derive(Debug)]
pub struct DecoderSession {
    decoder: Decoder,
    cache: KvCache,
    prompts: Vec<Vec<u32>>,
    longest: usize,
    /// The prompt of each row.
    rows: Vec<usize>,
    names: RowNames,
}

impl Generative for Decoder {
    type Session = DecoderSession;

    fn vocab_size(&self) -> usize {
        Decoder::vocab_size(self)
    }

    fn check_room(&self, prompt_len: usize, max_new_tokens: usize) -> Result<(), TooLong> {
        self.check_length(prompt_len.saturating_add(max_new_tokens))
    }

    fn named_rows(&self) -> Vec<usize> {
        RowNames::of(self).lengths()
    }

    fn session(&self, prompts: &[Vec<u32>], max_new_tokens: usize) -> DecoderSession {
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        // The last new token is never fed back.
        let capacity = longest + max_new_tokens.saturating_sub(1);
        DecoderSession {
            decoder: self.valid(),
            cache: self.new_cache(capacity),
            prompts: prompts.to_vec(),
            longest,
            rows: (0..prompts.len()).collect(),
            names: RowNames::of(self),
        }
    }
}

impl DecoderSession {
    /// The logits after the last of `ids`, which hold the same number of tokens for each row.
    fn feed(&mut self, ids: Vec<i32>) -> Tensor<2> {
        let batch = self.rows.len();
        let seq = ids.len() / batch;
        let ids = TensorData::new(ids, [batch, seq]);
        let ids = Tensor::<2, Int>::from_data(ids, &self.decoder.device());
        let prompts = self.rows.iter().map(|row| &self.prompts[*row]);
        let padding = Padding::left(prompts.map(|prompt| self.longest - prompt.len()).collect());
        let hidden = self
            .decoder
            .hidden_cached(ids, Some(&padding), &mut self.cache);
        let d = hidden.dims()[2];
        let last = hidden.slice([0..batch, seq - 1..seq, 0..d]); // [batch, 1, hidden]
        self.decoder.logits_of(last.reshape([batch, d])) // [batch, vocab]
    }
}

impl DecodingSession for DecoderSession {
    fn contexts(&self) -> Vec<Vec<u32>> {
        self.prompts.clone()
    }

    fn start(&mut self) -> Tensor<2> {
        let mut ids = Vec::with_capacity(self.prompts.len() * self.longest);
        for prompt in &self.prompts {
            ids.resize(ids.len() + self.longest - prompt.len(), 0);
            ids.extend(prompt.iter().map(|token| *token as i32));
        }
        self.feed(ids)
    }

    fn advance(&mut self, tokens: &[u32]) -> Tensor<2> {
        self.feed(tokens.iter().map(|token| *token as i32).collect())
    }

    fn select(&mut self, rows: &[usize]) {
        let prompts: Vec<usize> = rows.iter().map(|row| self.rows[*row]).collect();
        // The beams of a prompt have its keys and values in common.
        let shared = match prompts == self.rows {
            true => self.longest,
            false => 0,
        };
        self.cache.select_rows(rows, shared);
        self.rows = prompts;
        self.names
            .give(&mut self.decoder, self.prompts.len(), &self.rows);
    }
}
