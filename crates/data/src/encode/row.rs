//! One row to token ids.

use std::ops::Range;

use super::options::{EncodeOptions, Truncation};
use crate::chat::ChatTemplate;
use crate::error::DataError;
use crate::example::Example;
use crate::fault::RowFault;
use crate::message::Chat;
use crate::rows::Row;
use crate::tokenizer::Tokenizer;

/// Encodes rows one by one: what [`encode`](crate::encode) does with each, for rows that come as a stream.
#[derive(Debug)]
pub struct RowEncoder<'a> {
    tokenizer: &'a Tokenizer,
    options: EncodeOptions,
    /// For conversations without and with tools.
    templates: Option<[ChatTemplate; 2]>,
    /// The tokens that end a turn, as text.
    ends: Vec<String>,
}

/// What a row came to.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedRow {
    /// One, but for texts that are divided.
    pub examples: Vec<Example>,
    /// Tokens before the cut.
    pub tokens: usize,
    /// Whether it was cut.
    pub was_cut: bool,
}

/// All ids of a row, and those of them that are learned.
struct Ids {
    ids: Vec<u32>,
    spans: Vec<Range<usize>>,
}

impl<'a> RowEncoder<'a> {
    /// Makes an encoder for rows like `rows`, whose chat template is parsed here if one of them needs it.
    ///
    /// # Errors
    ///
    /// [`DataError::BadOption`], [`DataError::WrongFormat`], [`DataError::NoChatTemplate`], [`DataError::BadTemplate`].
    pub fn new<'r>(
        tokenizer: &'a Tokenizer,
        options: &EncodeOptions,
        rows: impl IntoIterator<Item = &'r Row>,
    ) -> Result<Self, DataError> {
        if options.max_len < 2 {
            return Err(DataError::BadOption {
                option: "max_len",
                value: options.max_len.to_string(),
                expected: "at least 2",
            });
        }
        let mut has_chats = false;
        for row in rows {
            match row {
                Row::Text { .. } | Row::PromptCompletion { .. } => (),
                Row::Chat(_) => has_chats = true,
                other => {
                    return Err(DataError::WrongFormat {
                        format: other.format(),
                        wanted: "learned as text",
                    });
                }
            }
        }
        let templates = match has_chats {
            true => Some([
                tokenizer.chat_template(false)?,
                tokenizer.chat_template(true)?,
            ]),
            false => None,
        };
        let ends = tokenizer.stop_ids().iter();
        Ok(Self {
            options: *options,
            templates,
            ends: ends.filter_map(|id| tokenizer.id_to_token(*id)).collect(),
            tokenizer,
        })
    }

    /// Encodes a row.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn encode(&self, row: &Row) -> Result<EncodedRow, RowFault> {
        let ids = match row {
            Row::PromptCompletion { prompt, completion } => self.completion(prompt, completion)?,
            Row::Text { text } => self.text(text)?,
            Row::Chat(chat) => self.chat(chat)?,
            other => {
                return Err(RowFault::Value {
                    at: other.format().name().into(),
                    found: "cannot be learned as text".into(),
                    expected: "a text, a prompt with its completion, or a conversation".into(),
                });
            }
        };
        self.fit(ids, matches!(row, Row::Text { .. }))
    }

    /// A conversation as its template writes it, with the bytes that are learned.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn chat_text(&self, chat: &Chat) -> Result<(String, Vec<Range<usize>>), RowFault> {
        let Some(templates) = &self.templates else {
            return Err(RowFault::Template(DataError::NoChatTemplate.to_string()));
        };
        let template = &templates[usize::from(chat.tools.is_some())];
        template.learned(chat, self.options.learn, &self.ends)
    }

    fn completion(&self, prompt: &str, completion: &str) -> Result<Ids, RowFault> {
        let prefix = self.tokenizer.prefix().len();
        let mut ids = some_ids("prompt", self.tokenizer.encode_prompt(prompt), prefix)?;
        let learned_from = ids.len();
        let completion = self.tokenizer.encode_completion(completion);
        ids.extend(some_ids("completion", completion, 0)?);
        Ok(self.with_end(ids, learned_from))
    }

    fn text(&self, text: &str) -> Result<Ids, RowFault> {
        let prefix = self.tokenizer.prefix().len();
        let ids = some_ids("text", self.tokenizer.encode_prompt(text), prefix)?;
        Ok(self.with_end(ids, 1))
    }

    fn with_end(&self, mut ids: Vec<u32>, learned_from: usize) -> Ids {
        if ids.len() == learned_from || ids.last() != Some(&self.tokenizer.eos()) {
            ids.push(self.tokenizer.eos());
        }
        let whole = learned_from..ids.len();
        Ids {
            ids,
            spans: vec![whole],
        }
    }

    /// The template writes every special token, so none is added.
    fn chat(&self, chat: &Chat) -> Result<Ids, RowFault> {
        let (text, bytes) = self.chat_text(chat)?;
        let (ids, offsets) =
            self.tokenizer
                .encode_with_offsets(&text)
                .map_err(|error| RowFault::Tokenize {
                    key: "messages",
                    message: error.to_string(),
                })?;
        let spans = spans_of(&offsets, &bytes);
        match ids.is_empty() || spans.is_empty() {
            true => Err(RowFault::NoToken("messages")),
            false => Ok(Ids { ids, spans }),
        }
    }

    fn fit(&self, ids: Ids, is_text: bool) -> Result<EncodedRow, RowFault> {
        let max_len = self.options.max_len;
        let tokens = ids.ids.len();
        let was_cut = tokens > max_len;
        let too_long = was_cut && self.options.truncation == Truncation::Refuse;
        if too_long {
            return Err(RowFault::TooLong { tokens, max_len });
        }
        let nothing = RowFault::NothingToLearn {
            prompt: ids.spans.first().map_or(tokens, |span| span.start),
            max_len,
        };
        let parts = match was_cut && is_text && self.options.truncation == Truncation::Split {
            true => divided(ids, max_len),
            false => vec![cut(ids, max_len)],
        };
        let example = |part: Ids| Example::with_spans(part.ids, part.spans).ok();
        let examples: Vec<Example> = parts.into_iter().filter_map(example).collect();
        match examples.is_empty() {
            true => Err(nothing),
            false => Ok(EncodedRow {
                examples,
                tokens,
                was_cut,
            }),
        }
    }
}

fn cut(mut ids: Ids, max_len: usize) -> Ids {
    ids.ids.truncate(max_len);
    for span in &mut ids.spans {
        span.end = span.end.min(max_len);
    }
    ids.spans.retain(|span| span.start < span.end);
    ids
}

/// Parts of at most `max_len` tokens. Each begins with the last token of the one before it, from which its own first is
/// predicted, so that no token is lost to learn.
fn divided(ids: Ids, max_len: usize) -> Vec<Ids> {
    let mut parts = Vec::new();
    let mut start = 0;
    while start + 1 < ids.ids.len() {
        let end = (start + max_len).min(ids.ids.len());
        let part = ids.ids[start..end].to_vec();
        let whole = 1..part.len();
        parts.push(Ids {
            ids: part,
            spans: vec![whole],
        });
        start = end - 1;
    }
    parts
}

/// The tokens with a byte in `bytes`, but for the first of all, which nothing precedes.
pub(crate) fn spans_of(offsets: &[(usize, usize)], bytes: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut spans: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    for (token, (start, end)) in offsets.iter().enumerate().skip(1) {
        while bytes.get(at).is_some_and(|span| span.end <= *start) {
            at += 1;
        }
        let is_learned = bytes
            .get(at)
            .is_some_and(|span| span.start < *end && start < end);
        match (is_learned, spans.last_mut()) {
            (false, _) => (),
            (true, Some(last)) if last.end == token => last.end += 1,
            (true, _) => spans.push(token..token + 1),
        }
    }
    spans
}

/// `ids` if there are any beside the prefix.
fn some_ids(
    key: &'static str,
    ids: Result<Vec<u32>, DataError>,
    prefix: usize,
) -> Result<Vec<u32>, RowFault> {
    match ids {
        Ok(ids) if ids.len() > prefix => Ok(ids),
        Ok(_) => Err(RowFault::NoToken(key)),
        Err(DataError::Tokenize(message)) => Err(RowFault::Tokenize { key, message }),
        Err(other) => Err(RowFault::Tokenize {
            key,
            message: other.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_learned_if_it_has_a_learned_byte() {
        let offsets = [(0, 2), (2, 4), (4, 4), (4, 7), (7, 9), (9, 10)];
        let spans =
            [vec![3..4], vec![0..2], vec![2..10], vec![5..8]].map(|b| spans_of(&offsets, &b));
        assert_eq!(spans[0], [1..2]);
        assert!(spans[1].is_empty(), "nothing precedes the first");
        assert_eq!(spans[2], [1..2, 3..6]);
        assert_eq!(spans[3], [3..5]);
    }

    #[test]
    fn a_divided_text_loses_no_token() {
        for (tokens, max_len) in [(10, 4), (9, 2), (7, 7), (8, 7), (5, 3)] {
            let ids: Vec<u32> = (0..tokens).collect();
            let whole = 1..ids.len();
            let parts = divided(
                Ids {
                    ids,
                    spans: vec![whole],
                },
                max_len,
            );
            assert!(
                parts
                    .iter()
                    .all(|part| (2..=max_len).contains(&part.ids.len()))
            );
            let learned: Vec<u32> = parts
                .iter()
                .flat_map(|part| part.ids[1..].to_vec())
                .collect();
            assert_eq!(learned, (1..tokens).collect::<Vec<_>>());
        }
    }
}
