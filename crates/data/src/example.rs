//! One row as token ids, with the part that is learned.

use std::ops::Range;

use crate::error::DataError;

/// Token ids and the range of them that is learned.
///
/// A token is learned when the loss counts its prediction from the tokens before it; so the first
/// token of an example is never learned, and the learned range reaches to the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    ids: Vec<u32>,
    learned_from: usize,
}

impl Example {
    /// `ids` of which those from `learned_from` on are learned.
    ///
    /// # Errors
    ///
    /// [`DataError::BadExample`] unless `1 <= learned_from < ids.len()`.
    pub fn new(ids: Vec<u32>, learned_from: usize) -> Result<Self, DataError> {
        if (1..ids.len()).contains(&learned_from) {
            Ok(Self { ids, learned_from })
        } else {
            Err(DataError::BadExample {
                len: ids.len(),
                learned_from,
            })
        }
    }

    /// All token ids.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Tokens in all; never zero.
    #[expect(
        clippy::len_without_is_empty,
        reason = "an example has at least two tokens"
    )]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// The positions of the learned tokens.
    pub fn learned(&self) -> Range<usize> {
        self.learned_from..self.ids.len()
    }

    /// The tokens before the learned ones: the prompt of a prompt row, the first token of a text
    /// row.
    pub fn prompt(&self) -> &[u32] {
        &self.ids[..self.learned_from]
    }

    /// The learned tokens: the completion and the end-of-sequence token, unless they were cut.
    pub fn completion(&self) -> &[u32] {
        &self.ids[self.learned_from..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divides_prompt_and_completion() {
        let example = Example::new(vec![1, 2, 3, 4], 2).unwrap();
        assert_eq!(
            (example.prompt(), example.completion()),
            (&[1, 2][..], &[3, 4][..])
        );
        assert_eq!((example.learned(), example.len()), (2..4, 4));
    }

    #[test]
    fn refuses_what_cannot_be_learned() {
        for (ids, learned_from) in [(vec![], 0), (vec![1], 1), (vec![1, 2], 0), (vec![1, 2], 2)] {
            assert!(matches!(
                Example::new(ids, learned_from),
                Err(DataError::BadExample { .. })
            ));
        }
    }
}
