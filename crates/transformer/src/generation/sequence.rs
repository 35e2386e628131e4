//! An answer.

/// One answer to a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequence {
    /// The new tokens, without the prompt and without the token that ended them.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub finish: FinishReason,
    /// Of a beam search: the sum of the processed log-probabilities, the end token's among them, over
    /// `length ^ length_penalty`.
    pub score: Option<f32>,
}

/// One answer to a prompt, as text.
#[derive(Debug, Clone, PartialEq)]
pub struct TextSequence {
    /// What follows the prompt, up to a stop string.
    pub text: String,
    /// Its tokens, those of the stop string among them.
    pub sequence: Sequence,
}

/// Why a row ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// This end token was chosen.
    Eos(u32),
    /// This stop string was written.
    StopString(String),
    /// There are `max_new_tokens` of them.
    Length,
    /// The caller ended it.
    Stopped,
}
