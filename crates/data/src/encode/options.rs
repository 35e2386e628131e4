//! How rows are encoded.

use serde::{Deserialize, Serialize};

use crate::chat::Learn;

/// What happens to a row of more tokens than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Truncation {
    /// The end is cut off, and the row counted. The end-of-sequence token goes with it: the model
    /// must not learn to stop where the limit happens to be.
    #[default]
    End,
    /// It is an error.
    Refuse,
    /// A text becomes several examples, each going on where the one before it ends; other rows are cut.
    Split,
}

/// What happens to a row of which no token is left to learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unlearnable {
    /// It is an error.
    #[default]
    Refuse,
    /// It is left out, and counted. Where that is every row, it is an error still.
    Drop,
}

/// How rows are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodeOptions {
    /// Most tokens of an example, prompt and end-of-sequence token included; at least 2.
    pub max_len: usize,
    /// What happens to longer rows.
    pub truncation: Truncation,
    /// What happens to rows of which no token is left to learn.
    pub unlearnable: Unlearnable,
    /// Which of the assistant's turns in a conversation are learned.
    pub learn: Learn,
}

impl EncodeOptions {
    /// Cuts rows at `max_len` tokens.
    pub fn new(max_len: usize) -> Self {
        Self {
            max_len,
            truncation: Truncation::End,
            unlearnable: Unlearnable::Refuse,
            learn: Learn::EveryTurn,
        }
    }
}
