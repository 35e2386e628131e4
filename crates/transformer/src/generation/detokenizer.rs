//! Tokens to text, piece by piece.

use std::fmt;

use super::error::GenerateError;

/// What a decoder writes for bytes that are no character, or not yet.
const REPLACEMENT: char = '\u{FFFD}';

/// Tokens of the prompt that the first piece is decoded with: what a space or a character cut in two needs.
const CONTEXT_TOKENS: usize = 8;

/// Makes text of tokens, and knows the strings at which it stops.
pub struct Detokenizer<'a> {
    decode: Box<Decode<'a>>,
    stop_strings: Vec<String>,
}

type Decode<'a> = dyn Fn(&[u32]) -> Result<String, GenerateError> + Send + 'a;

impl<'a> Detokenizer<'a> {
    /// With what decodes a list of tokens as a whole.
    pub fn new<E: fmt::Display>(decode: impl Fn(&[u32]) -> Result<String, E> + Send + 'a) -> Self {
        let decode = move |tokens: &[u32]| {
            decode(tokens).map_err(|error| GenerateError::Detokenize(error.to_string()))
        };
        Self {
            decode: Box::new(decode),
            stop_strings: Vec::new(),
        }
    }

    /// Ends an answer before the first of these strings in it. They are looked for in the text, wherever the borders of
    /// its tokens are; a string that begins in the prompt is not found.
    pub fn with_stop_strings<T: Into<String>>(
        mut self,
        strings: impl IntoIterator<Item = T>,
    ) -> Self {
        self.stop_strings = strings.into_iter().map(Into::into).collect();
        self
    }

    /// The strings at which an answer stops.
    pub fn stop_strings(&self) -> &[String] {
        &self.stop_strings
    }

    /// The text of an answer as the continuation of `context`, up to a stop string, and that string.
    pub(crate) fn text(&self, context: &[u32], tokens: &[u32]) -> Result<Piece, GenerateError> {
        let mut text = RowText::new(context);
        text.tokens.extend_from_slice(tokens);
        text.finish(self)
    }

    /// Where the first stop string begins, and which it is.
    fn find_stop(&self, text: &str) -> Option<(usize, &str)> {
        let stops = self.stop_strings.iter();
        let found = stops.filter_map(|stop| Some((text.find(stop.as_str())?, stop.as_str())));
        found.min_by_key(|(start, _)| *start)
    }

    /// The length of the end of `text` that a stop string may begin with.
    fn begun_stop(&self, text: &str) -> usize {
        let begun = |stop: &String| {
            let lengths = stop.char_indices().map(|(at, _)| at).rev();
            let mut lengths = lengths.filter(|length| text.ends_with(&stop[..*length]));
            lengths.next().unwrap_or(0)
        };
        self.stop_strings.iter().map(begun).max().unwrap_or(0)
    }
}

impl fmt::Debug for Detokenizer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detokenizer")
            .field("stop_strings", &self.stop_strings)
            .finish_non_exhaustive()
    }
}

/// Text that will not change any more.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    /// The stop string that follows the text.
    pub(crate) stop: Option<String>,
}

/// The text of one answer as it grows.
///
/// The text of a token depends on those around it: bytes of one character may be apart, and a decoder may write or leave
/// out a space at the start. So what is new is what `tokens[context..]` say more than `tokens[context..done]`.
pub(crate) struct RowText {
    tokens: Vec<u32>,
    context: usize,
    done: usize,
    /// What may be the beginning of a stop string.
    held: String,
}

impl RowText {
    /// The continuation of a prompt.
    pub(crate) fn new(prompt: &[u32]) -> Self {
        let tail = &prompt[prompt.len().saturating_sub(CONTEXT_TOKENS)..];
        Self {
            tokens: tail.to_vec(),
            context: 0,
            done: tail.len(),
            held: String::new(),
        }
    }

    /// The text that a token completes.
    pub(crate) fn push(
        &mut self,
        token: u32,
        detokenizer: &Detokenizer<'_>,
    ) -> Result<Piece, GenerateError> {
        self.tokens.push(token);
        let new = self.undone(detokenizer)?;
        if new.is_empty() || new.ends_with(REPLACEMENT) {
            return Ok(Piece::default());
        }
        self.context = self.done;
        self.done = self.tokens.len();
        self.held.push_str(&new);
        let kept = detokenizer.begun_stop(&self.held);
        Ok(self.release(kept, detokenizer))
    }

    /// All text that is left.
    pub(crate) fn finish(&mut self, detokenizer: &Detokenizer<'_>) -> Result<Piece, GenerateError> {
        let new = self.undone(detokenizer)?;
        self.done = self.tokens.len();
        self.held.push_str(&new);
        Ok(self.release(0, detokenizer))
    }

    fn undone(&self, detokenizer: &Detokenizer<'_>) -> Result<String, GenerateError> {
        if self.done == self.tokens.len() {
            return Ok(String::new());
        }
        let before = (detokenizer.decode)(&self.tokens[self.context..self.done])?;
        let after = (detokenizer.decode)(&self.tokens[self.context..])?;
        let both = before.chars().zip(after.chars());
        let same: usize = both
            .take_while(|(before, after)| before == after)
            .map(|(same, _)| same.len_utf8())
            .sum();
        Ok(after[same..].to_owned())
    }

    /// The text before a stop string, or all but the last `kept` bytes.
    fn release(&mut self, kept: usize, detokenizer: &Detokenizer<'_>) -> Piece {
        let (end, stop) = match detokenizer.find_stop(&self.held) {
            Some((start, stop)) => (start, Some(stop.to_owned())),
            None => (self.held.len() - kept, None),
        };
        let rest = self.held.split_off(end);
        let text = std::mem::replace(&mut self.held, rest);
        if stop.is_some() {
            self.held.clear();
        }
        Piece { text, stop }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Tokens are bytes; 256 is a special token without text.
    fn bytes(stop: &[&str]) -> Detokenizer<'static> {
        let decode = |tokens: &[u32]| -> Result<String, String> {
            let bytes: Vec<u8> = tokens
                .iter()
                .filter_map(|token| u8::try_from(*token).ok())
                .collect();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Detokenizer::new(decode).with_stop_strings(stop.iter().copied())
    }

    fn tokens(text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    /// The pieces that come of each token and of the end, until a stop string.
    fn pieces(prompt: &str, answer: &[u32], stop: &[&str]) -> (Vec<String>, Option<String>) {
        let detokenizer = bytes(stop);
        let mut row = RowText::new(&tokens(prompt));
        let mut pieces = Vec::new();
        for token in answer {
            let piece = row.push(*token, &detokenizer).expect("decodes");
            pieces.push(piece.text);
            if piece.stop.is_some() {
                return (pieces, piece.stop);
            }
        }
        let piece = row.finish(&detokenizer).expect("decodes");
        pieces.push(piece.text);
        (pieces, piece.stop)
    }

    #[test]
    fn a_character_comes_when_its_last_byte_is_there() {
        let (pieces, _) = pieces("é", &tokens("aé€"), &[]);
        assert_eq!(pieces, ["a", "", "é", "", "", "€", ""]);
    }

    #[test]
    fn a_character_that_the_prompt_began_is_completed() {
        let mut row = RowText::new(&[b'x'.into(), 0xC3]);
        let piece = row.push(0xA9, &bytes(&[])).expect("decodes");
        assert_eq!(piece.text, "é");
    }

    #[test]
    fn bytes_that_are_no_character_are_replaced_at_the_end() {
        let (pieces, _) = pieces("", &[b'a'.into(), 0xE2, 0x82], &[]);
        assert_eq!(pieces, ["a", "", "", "\u{FFFD}"]);
        let (pieces, _) = super::tests::pieces("", &[0xE2, b'a'.into()], &[]);
        assert_eq!(pieces.concat(), "\u{FFFD}a");
    }

    #[test]
    fn tokens_without_text_write_nothing() {
        let (pieces, _) = pieces("", &[256, b'a'.into(), 256], &[]);
        assert_eq!(pieces, ["", "a", "", ""]);
    }

    #[test]
    fn no_part_of_a_stop_string_is_written() {
        let (pieces, stop) = pieces("", &tokens("ab\n\nUser: hi"), &["\n\nUser:"]);
        assert_eq!(pieces.concat(), "ab");
        assert_eq!(stop.as_deref(), Some("\n\nUser:"));
    }

    #[test]
    fn what_only_began_as_a_stop_string_is_written_after_all() {
        let (pieces, stop) = pieces("", &tokens("a\n\nUs\n"), &["\n\nUser:"]);
        assert_eq!(pieces, ["a", "", "", "", "", "\n\nUs", "\n"]);
        assert_eq!(stop, None);
    }

    #[test]
    fn a_stop_string_may_begin_inside_another() {
        let (pieces, stop) = pieces("", &tokens("xab!"), &["xabc", "ab"]);
        assert_eq!(
            (pieces.concat().as_str(), stop.as_deref()),
            ("x", Some("ab"))
        );
        let (pieces, stop) = super::tests::pieces("", &tokens("aab"), &["ab"]);
        assert_eq!(
            (pieces.concat().as_str(), stop.as_deref()),
            ("a", Some("ab"))
        );
    }

    #[test]
    fn a_stop_string_that_begins_in_the_prompt_is_none() {
        let (pieces, stop) = pieces("sto", &tokens("p it"), &["stop"]);
        assert_eq!((pieces.concat().as_str(), stop), ("p it", None));
    }

    #[test]
    fn a_failing_decoder_is_an_error() {
        let detokenizer = Detokenizer::new(|_: &[u32]| Err("no such token"));
        let error = RowText::new(&[]).push(1, &detokenizer).expect_err("fails");
        assert!(error.to_string().contains("no such token"));
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_text_up_to_the_first_stop_string(
            prompt in "[abé€]{0,12}",
            answer in "[abé€]{0,30}",
            stop in prop::collection::vec("[abé€]{1,3}", 0..3),
        ) {
            let stop: Vec<&str> = stop.iter().map(String::as_str).collect();
            let (pieces, found) = pieces(&prompt, &tokens(&answer), &stop);
            prop_assert!(pieces.iter().all(|piece| !piece.contains(REPLACEMENT)));
            // Text comes byte by byte: the stop string that is complete first counts.
            let ends = |stop: &&str| answer.find(*stop).map(|start| (start + stop.len(), start));
            let expected = match stop.iter().filter_map(ends).min_by_key(|(end, _)| *end) {
                Some((end, _)) => {
                    let starts = stop.iter().filter_map(|stop| answer[..end].find(*stop));
                    &answer[..starts.min().unwrap_or(end)]
                }
                None => answer.as_str(),
            };
            prop_assert_eq!(pieces.concat(), expected);
            prop_assert_eq!(found.is_some(), expected.len() < answer.len());
        }

        #[test]
        fn any_bytes_become_what_they_are_as_a_whole(answer in prop::collection::vec(0_u32..=256, 0..30)) {
            let (pieces, _) = pieces("", &answer, &[]);
            let whole = (bytes(&[]).decode)(&answer).expect("decodes");
            prop_assert_eq!(pieces.concat(), whole);
        }
    }
}
