//! What can go wrong, and every fault of a request in one error.

use thiserror::Error;

use crate::error::{TooLong, bullets};

/// A generation that cannot start, or broke off.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// Prompts or options from which nothing can be generated. Nothing was computed.
    #[error("the request cannot be met:{}", bullets(.faults.iter()))]
    Request {
        /// All that is wrong.
        faults: Vec<RequestFault>,
    },
    /// The model answered with NaN or infinity.
    #[error("the logits of prompt {row} are not finite after {tokens} new tokens")]
    NotFinite {
        /// The index of the prompt.
        row: usize,
        /// The tokens generated before.
        tokens: usize,
    },
    /// `no_repeat_ngram_size` and `min_new_tokens` together forbid every token.
    #[error(
        "no token is allowed for prompt {row} after {tokens} new tokens: no_repeat_ngram_size or min_new_tokens is too strict for the vocabulary"
    )]
    NoTokenLeft {
        /// The index of the prompt.
        row: usize,
        /// The tokens generated before.
        tokens: usize,
    },
    /// Tokens have no text.
    #[error("cannot turn tokens into text: {0}")]
    Detokenize(String),
    /// The logits cannot be read back from the device.
    #[error("cannot read the logits from the device: {0}")]
    Device(String),
}

/// One fault of a request.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum RequestFault {
    /// Prompts without a token: there is nothing to continue.
    #[error("prompts without a token: {rows:?}")]
    EmptyPrompts {
        /// The indices of the prompts.
        rows: Vec<usize>,
    },
    /// Tokens of prompts that the model's vocabulary does not hold.
    #[error("the model knows tokens below {vocab_size}; found {tokens:?} in prompts {rows:?}")]
    UnknownTokens {
        /// The tokens.
        tokens: Vec<u32>,
        /// The indices of the prompts that hold them.
        rows: Vec<usize>,
        /// The size of the vocabulary.
        vocab_size: usize,
    },
    /// Prompts that exceed the model's positions together with `max_new_tokens`.
    #[error("prompts {rows:?} with max_new_tokens {max_new_tokens}: {longest}")]
    TooLong {
        /// The indices of the prompts.
        rows: Vec<usize>,
        /// The new tokens asked for.
        max_new_tokens: usize,
        /// The longest of them.
        longest: TooLong,
    },
    /// Rows have adapters of their own, and the prompts are no multiple of them.
    #[error(
        "{rows} rows have adapters of their own, and there are {prompts} prompts, which is no multiple"
    )]
    Rows {
        /// How many rows have.
        rows: usize,
        /// How many prompts there are.
        prompts: usize,
    },
    /// End tokens that the model's vocabulary does not hold.
    #[error("the model knows tokens below {vocab_size}; found {tokens:?} in eos")]
    UnknownEos {
        /// The tokens.
        tokens: Vec<u32>,
        /// The size of the vocabulary.
        vocab_size: usize,
    },
    /// `min_new_tokens` exceeds `max_new_tokens`.
    #[error("min_new_tokens {min} exceeds max_new_tokens {max}")]
    MinNewTokens {
        /// The fewest.
        min: usize,
        /// The most.
        max: usize,
    },
    /// A number out of its range.
    #[error("{option} {value} is not {range}")]
    OutOfRange {
        /// The name of the option.
        option: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        range: &'static str,
    },
    /// More answers than there can be.
    #[error("num_return_sequences {asked} exceeds {limit}, {reason}")]
    TooManySequences {
        /// The answers asked for.
        asked: usize,
        /// The most there can be.
        limit: usize,
        /// What limits them.
        reason: &'static str,
    },
    /// Stop strings without a character: they would stop every row at once.
    #[error("stop strings {indices:?} are empty")]
    EmptyStopStrings {
        /// Their indices.
        indices: Vec<usize>,
    },
    /// The best beam is known at the end only.
    #[error("beam search cannot be streamed: its answer is known at the end only")]
    BeamStream,
}
