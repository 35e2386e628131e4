//! Prompts that a [`Decoder`] continues.

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use burn_lora_adapter::{rows_of, with_rows};

use super::model::{DecodingSession, Generative};
use crate::cache::KvCache;
use crate::decoder::Decoder;
use crate::error::TooLong;
use crate::positions::Padding;

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
    adapters: PromptAdapters,
}

/// The adapter of each prompt, where prompts have adapters of their own.
#[derive(Debug)]
pub(crate) struct PromptAdapters {
    names: Option<Vec<Option<String>>>,
    /// How many prompts have one name, where each is there several times.
    copies: usize,
}

impl PromptAdapters {
    pub(crate) fn of<M: Module>(model: &M, prompts: usize) -> Self {
        let names = rows_of(model).filter(|names| !names.is_empty());
        let copies = names.as_ref().map_or(1, |names| prompts / names.len());
        Self {
            names,
            copies: copies.max(1),
        }
    }

    /// Gives each row the adapter of its prompt again, once rows have moved.
    pub(crate) fn give<M: Module>(&self, model: &mut M, rows: &[usize]) {
        let Some(names) = &self.names else {
            return;
        };
        let names = rows.iter().map(|prompt| names.get(prompt / self.copies));
        let names: Vec<Option<&str>> = names.map(|name| name?.as_deref()).collect();
        // The names are those that the model had before; they cannot be refused now.
        if let Ok(given) = with_rows(model.clone(), Some(&names)) {
            *model = given;
        }
    }
}

impl Generative for Decoder {
    type Session = DecoderSession;

    fn vocab_size(&self) -> usize {
        Decoder::vocab_size(self)
    }

    fn check_room(&self, prompt_len: usize, max_new_tokens: usize) -> Result<(), TooLong> {
        self.check_length(prompt_len.saturating_add(max_new_tokens))
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
            adapters: PromptAdapters::of(self, prompts.len()),
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
        self.adapters.give(&mut self.decoder, &self.rows);
    }
}
