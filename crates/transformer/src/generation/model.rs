//! Models as decoding sees them.

use burn::tensor::{DType, Tensor};

use super::error::GenerateError;
use crate::error::TooLong;

/// A model that continues prompts.
pub trait Generative {
    /// What decodes a batch of prompts.
    type Session: DecodingSession;

    /// The number of tokens that it knows.
    fn vocab_size(&self) -> usize;

    /// Whether a prompt of this length can be continued by this many tokens.
    ///
    /// # Errors
    ///
    /// The length that exceeds the model's positions.
    fn check_room(&self, prompt_len: usize, max_new_tokens: usize) -> Result<(), TooLong>;

    /// Numbers of rows that have adapters of their own ([`WithRows`](crate::WithRows)): there must be a multiple of each as prompts.
    fn named_rows(&self) -> Vec<usize> {
        Vec::new()
    }

    /// A batch of prompts, with room for `max_new_tokens` after each. Nothing is computed yet.
    fn session(&self, prompts: &[Vec<u32>], max_new_tokens: usize) -> Self::Session;
}

/// Rows that grow by a token at a time: all that decoding knows of a model. It begins with one row for each prompt.
pub trait DecodingSession {
    /// The tokens that the first new token of each prompt follows: of a decoder the prompt, of a model with an encoder
    /// its start token. Repetitions are judged by them.
    fn contexts(&self) -> Vec<Vec<u32>>;

    /// The logits of the first new token of each prompt. Called once, before the two below.
    ///
    /// # Shapes
    ///
    /// - output: `[prompts, vocab]`
    fn start(&mut self) -> Tensor<2>;

    /// The logits after one more token in each row.
    ///
    /// # Shapes
    ///
    /// - tokens: `[rows]`
    /// - output: `[rows, vocab]`
    fn advance(&mut self, tokens: &[u32]) -> Tensor<2>;

    /// Row `i` goes on from what row `rows[i]` has seen. Rows may be repeated, moved and left out.
    fn select(&mut self, rows: &[usize]);
}

/// Scores of all rows, on the host and in f32.
pub(crate) struct Scores {
    values: Vec<f32>,
    vocab_size: usize,
}

impl Scores {
    /// The one read of a step.
    ///
    /// # Shapes
    ///
    /// - scores: `[rows, vocab]`
    pub(crate) fn read(scores: Tensor<2>) -> Result<Self, GenerateError> {
        let vocab_size = scores.dims()[1];
        let values = scores
            .cast(DType::F32)
            .try_into_vec_as::<f32>()
            .map_err(|error| GenerateError::Device(error.to_string()))?;
        Ok(Self { values, vocab_size })
    }

    pub(crate) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The scores of one row.
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        &mut self.values[row * self.vocab_size..][..self.vocab_size]
    }

    /// Each row `copies` times.
    pub(crate) fn repeated(self, copies: usize) -> Self {
        let rows = self.values.chunks_exact(self.vocab_size);
        let values = rows.flat_map(|row| std::iter::repeat_n(row, copies));
        Self {
            values: values.flatten().copied().collect(),
            vocab_size: self.vocab_size,
        }
    }
}
