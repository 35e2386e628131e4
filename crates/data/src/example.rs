//! One row as token ids, with the parts that are learned.

use std::ops::Range;

use crate::error::DataError;

/// Token ids and the parts of them that are learned.
///
/// A token is learned when the loss counts its prediction from the tokens before it; so the first token of an example
/// is never learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    ids: Vec<u32>,
    spans: Vec<Range<usize>>,
}

impl Example {
    /// `ids` of which those from `learned_from` on are learned.
    ///
    /// # Errors
    ///
    /// [`DataError::BadExample`] unless `1 <= learned_from < ids.len()`.
    pub fn new(ids: Vec<u32>, learned_from: usize) -> Result<Self, DataError> {
        let whole = learned_from..ids.len();
        Self::with_spans(ids, vec![whole])
    }

    /// `ids` of which those in `spans` are learned, as the assistant's turns of a conversation are.
    ///
    /// # Errors
    ///
    /// [`DataError::BadExample`] unless there are spans, in order and apart, none of them empty, the first after the
    /// first token and the last within the ids.
    pub fn with_spans(ids: Vec<u32>, spans: Vec<Range<usize>>) -> Result<Self, DataError> {
        let mut end = 1;
        for span in &spans {
            if span.start < end || span.is_empty() || span.end > ids.len() {
                return Err(DataError::BadExample {
                    len: ids.len(),
                    learned_from: span.start,
                });
            }
            end = span.end;
        }
        match spans.is_empty() {
            false => Ok(Self { ids, spans }),
            true => Err(DataError::BadExample {
                len: ids.len(),
                learned_from: ids.len(),
            }),
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

    /// The ranges of learned tokens, in order.
    pub fn spans(&self) -> &[Range<usize>] {
        &self.spans
    }

    /// The positions of the learned tokens, in order.
    pub fn learned(&self) -> impl Iterator<Item = usize> {
        self.spans.iter().cloned().flatten()
    }

    /// How many tokens are learned; never zero.
    pub fn learned_len(&self) -> usize {
        self.spans.iter().map(Range::len).sum()
    }

    /// The tokens before the last learned span: the prompt of a prompt row, the first token of a text row, and all
    /// before the last answer of a conversation.
    pub fn prompt(&self) -> &[u32] {
        &self.ids[..self.last().start]
    }

    /// The tokens of the last learned span: the completion and the end-of-sequence token, unless they were cut.
    pub fn completion(&self) -> &[u32] {
        &self.ids[self.last()]
    }

    fn last(&self) -> Range<usize> {
        // There is one, as the constructors check.
        self.spans[self.spans.len() - 1].clone()
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
        assert_eq!(example.learned().collect::<Vec<_>>(), [2, 3]);
        assert_eq!((example.learned_len(), example.len()), (2, 4));
    }

    #[test]
    fn the_last_of_several_spans_is_the_completion() {
        let example = Example::with_spans(vec![1, 2, 3, 4, 5, 6], vec![1..2, 4..5]).unwrap();
        assert_eq!(example.learned().collect::<Vec<_>>(), [1, 4]);
        assert_eq!(
            (example.prompt(), example.completion()),
            (&[1, 2, 3, 4][..], &[5][..])
        );
    }

    #[test]
    fn refuses_what_cannot_be_learned() {
        for (ids, learned_from) in [(vec![], 0), (vec![1], 1), (vec![1, 2], 0), (vec![1, 2], 2)] {
            assert!(matches!(
                Example::new(ids, learned_from),
                Err(DataError::BadExample { .. })
            ));
        }
        let cases = [
            vec![],
            vec![0..1],
            vec![2..2],
            vec![1..3, 2..4],
            vec![3..4, 1..2],
            vec![1..5],
        ];
        for spans in cases {
            assert!(Example::with_spans(vec![1, 2, 3, 4], spans).is_err());
        }
    }
}
