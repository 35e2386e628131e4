//! Rows to token ids.

use std::fmt;

use serde::Serialize;

use crate::error::DataError;
use crate::example::Example;
use crate::fault::{Faults, RowFault};
use crate::rows::{Row, Rows};
use crate::tokenizer::Tokenizer;

/// What happens to a row of more tokens than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Truncation {
    /// The end is cut off, and the row counted. The end-of-sequence token goes with it: the model
    /// must not learn to stop where the limit happens to be.
    #[default]
    End,
    /// It is an error.
    Refuse,
}

/// How rows are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Most tokens of an example, prompt and end-of-sequence token included; at least 2.
    pub max_len: usize,
    /// What happens to longer rows.
    pub truncation: Truncation,
}

impl EncodeOptions {
    /// Cuts rows at `max_len` tokens.
    pub fn new(max_len: usize) -> Self {
        Self {
            max_len,
            truncation: Truncation::End,
        }
    }
}

/// Counts of an encoded data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct EncodeReport {
    /// Rows, each of which is one example.
    pub rows: usize,
    /// Tokens of all examples.
    pub tokens: usize,
    /// Tokens that are learned.
    pub learned_tokens: usize,
    /// Rows that were cut.
    pub truncated: usize,
    /// Tokens of the longest row, before the cut.
    pub longest: usize,
}

impl fmt::Display for EncodeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rows,
            tokens,
            learned_tokens,
            truncated,
            longest,
        } = self;
        write!(
            f,
            "{rows} rows, {tokens} tokens of which {learned_tokens} are learned, longest row \
             {longest}"
        )?;
        if *truncated > 0 {
            write!(f, ", {truncated} rows cut")
        } else {
            Ok(())
        }
    }
}

/// Encoded rows.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// One example per row, in the same order.
    pub examples: Vec<Example>,
    /// Their counts.
    pub report: EncodeReport,
}

/// Encodes every row.
///
/// A prompt row becomes `prefix prompt completion eos`, of which `completion eos` is learned; a
/// text row becomes `prefix text eos`, of which all but the first token are learned (nothing
/// precedes the first). The prefix is the tokenizer's bos, if any; a text that ends with eos gets
/// no second one.
///
/// # Errors
///
/// [`DataError::BadOption`] for a `max_len` below 2; [`DataError::Rows`] with every row that cannot
/// be tokenized, gives no token, keeps no token to learn after the cut, or is too long under
/// [`Truncation::Refuse`].
pub fn encode(
    rows: &Rows,
    tokenizer: &Tokenizer,
    options: &EncodeOptions,
) -> Result<Encoded, DataError> {
    if options.max_len < 2 {
        return Err(DataError::BadOption {
            option: "max_len",
            value: options.max_len.to_string(),
            expected: "at least 2",
        });
    }
    let mut examples = Vec::with_capacity(rows.len());
    let mut report = EncodeReport::default();
    let mut faults = Faults::new(rows.path());
    for (line, row) in rows.iter() {
        let (ids, learned_from) = match ids_of(row, tokenizer) {
            Ok(ids) => ids,
            Err(fault) => {
                faults.push(line, fault);
                continue;
            }
        };
        report.longest = report.longest.max(ids.len());
        report.truncated += usize::from(ids.len() > options.max_len);
        match cut(ids, learned_from, options) {
            Ok(ids) => examples.push(Example::new(ids, learned_from)?),
            Err(fault) => faults.push(line, fault),
        }
    }
    if !faults.is_empty() {
        return Err(DataError::Rows(faults));
    }
    report.rows = examples.len();
    report.tokens = examples.iter().map(Example::len).sum();
    report.learned_tokens = examples.iter().map(|example| example.learned().len()).sum();
    Ok(Encoded { examples, report })
}

/// All ids of a row, and the first that is learned.
fn ids_of(row: &Row, tokenizer: &Tokenizer) -> Result<(Vec<u32>, usize), RowFault> {
    let prefix = tokenizer.prefix().len();
    let (mut ids, learned_from) = match row {
        Row::PromptCompletion { prompt, completion } => {
            let mut ids = some_ids("prompt", tokenizer.encode_prompt(prompt), prefix)?;
            let learned_from = ids.len();
            ids.extend(some_ids(
                "completion",
                tokenizer.encode_completion(completion),
                0,
            )?);
            (ids, learned_from)
        }
        Row::Text { text } => (some_ids("text", tokenizer.encode_prompt(text), prefix)?, 1),
    };
    if ids.len() == learned_from || ids.last() != Some(&tokenizer.eos()) {
        ids.push(tokenizer.eos());
    }
    Ok((ids, learned_from))
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

fn cut(
    mut ids: Vec<u32>,
    learned_from: usize,
    options: &EncodeOptions,
) -> Result<Vec<u32>, RowFault> {
    let max_len = options.max_len;
    if ids.len() <= max_len {
        return Ok(ids);
    }
    if options.truncation == Truncation::Refuse {
        return Err(RowFault::TooLong {
            tokens: ids.len(),
            max_len,
        });
    }
    if learned_from >= max_len {
        return Err(RowFault::NothingToLearn {
            prompt: learned_from,
            max_len,
        });
    }
    ids.truncate(max_len);
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special_tokens::SpecialTokens;
    use crate::testing::words;

    const BOS: u32 = 1;
    const EOS: u32 = 2;
    const PAD: u32 = 3;

    fn tokenizer() -> Tokenizer {
        let special = SpecialTokens {
            bos: Some(BOS),
            pad: PAD,
            add_bos: Some(true),
            ..SpecialTokens::new(EOS)
        };
        Tokenizer::new(words(), special).unwrap()
    }

    fn pairs<const N: usize>(rows: [(&str, &str); N]) -> Rows {
        let row = |(prompt, completion): (&str, &str)| Row::PromptCompletion {
            prompt: prompt.into(),
            completion: completion.into(),
        };
        Rows::new("rows", rows.map(row)).unwrap()
    }

    fn texts<const N: usize>(rows: [&str; N]) -> Rows {
        Rows::new("rows", rows.map(|text| Row::Text { text: text.into() })).unwrap()
    }

    fn encoded(rows: &Rows, max_len: usize) -> Encoded {
        encode(rows, &tokenizer(), &EncodeOptions::new(max_len)).unwrap()
    }

    fn faults(result: Result<Encoded, DataError>) -> Vec<(usize, RowFault)> {
        match result.unwrap_err() {
            DataError::Rows(faults) => faults
                .shown
                .into_iter()
                .map(|f| (f.line, f.fault))
                .collect(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn learns_completion_and_eos() {
        let encoded = encoded(&pairs([("a b", "c"), ("d", "a b c")]), 16);
        assert_eq!(encoded.examples[0].ids(), [BOS, 5, 6, 7, EOS]);
        assert_eq!(encoded.examples[0].completion(), [7, EOS]);
        assert_eq!(encoded.examples[1].prompt(), [BOS, 8]);
        assert_eq!(encoded.examples[1].completion(), [5, 6, 7, EOS]);
        let report = EncodeReport {
            rows: 2,
            tokens: 11,
            learned_tokens: 6,
            truncated: 0,
            longest: 6,
        };
        assert_eq!(encoded.report, report);
        assert_eq!(
            report.to_string(),
            "2 rows, 11 tokens of which 6 are learned, longest row 6"
        );
    }

    #[test]
    fn the_prompt_is_the_one_of_generation() {
        for prompt in ["a", "a b", "d c b a"] {
            let encoded = encoded(&pairs([(prompt, "a")]), 16);
            assert_eq!(
                encoded.examples[0].prompt(),
                tokenizer().encode_prompt(prompt).unwrap()
            );
        }
    }

    #[test]
    fn learns_all_of_a_text_after_the_first_token() {
        let encoded = encoded(&texts(["a b"]), 16);
        assert_eq!(encoded.examples[0].ids(), [BOS, 5, 6, EOS]);
        assert_eq!(encoded.examples[0].learned(), 1..4);
        let no_bos = Tokenizer::new(words(), SpecialTokens::new(EOS)).unwrap();
        let encoded = encode(&texts(["a"]), &no_bos, &EncodeOptions::new(16)).unwrap();
        assert_eq!(encoded.examples[0].ids(), [5, EOS]);
        assert_eq!(encoded.examples[0].completion(), [EOS]);
    }

    #[test]
    fn eos_is_not_written_twice() {
        assert_eq!(
            encoded(&pairs([("a", "b </s>")]), 16).examples[0].completion(),
            [6, EOS]
        );
        assert_eq!(
            encoded(&texts(["a </s>"]), 16).examples[0].ids(),
            [BOS, 5, EOS]
        );
    }

    #[test]
    fn cuts_the_end_and_counts_it() {
        let encoded = encoded(&pairs([("a", "b c d a"), ("a", "b")]), 4);
        assert_eq!(encoded.examples[0].ids(), [BOS, 5, 6, 7]);
        assert_eq!(encoded.examples[1].ids(), [BOS, 5, 6, EOS]);
        let report = EncodeReport {
            rows: 2,
            tokens: 8,
            learned_tokens: 4,
            truncated: 1,
            longest: 7,
        };
        assert_eq!(encoded.report, report);
        assert!(
            report.to_string().ends_with("longest row 7, 1 rows cut"),
            "{report}"
        );
    }

    #[test]
    fn a_row_with_nothing_left_to_learn_is_an_error() {
        let rows = pairs([("a b c", "d"), ("a", "b"), ("a b c d", "d")]);
        let result = encode(&rows, &tokenizer(), &EncodeOptions::new(4));
        let expected = [(1, 4), (3, 5)]
            .map(|(line, prompt)| (line, RowFault::NothingToLearn { prompt, max_len: 4 }));
        assert_eq!(faults(result), expected);
    }

    #[test]
    fn refuses_long_rows_if_asked() {
        let options = EncodeOptions {
            max_len: 4,
            truncation: Truncation::Refuse,
        };
        let result = encode(&pairs([("a", "b"), ("a", "b c")]), &tokenizer(), &options);
        assert_eq!(
            faults(result),
            [(
                2,
                RowFault::TooLong {
                    tokens: 5,
                    max_len: 4
                }
            )]
        );
    }

    #[test]
    fn texts_without_tokens_are_errors() {
        // U+200B is no white space, but this tokenizer's normalizer removes it.
        let rows = pairs([("\u{200B}", "a"), ("a", "\u{200B}")]);
        let result = encode(&rows, &tokenizer(), &EncodeOptions::new(8));
        assert_eq!(
            faults(result),
            [
                (1, RowFault::NoToken("prompt")),
                (2, RowFault::NoToken("completion"))
            ]
        );
    }

    #[test]
    fn refuses_a_length_that_holds_no_prediction() {
        let result = encode(&texts(["a"]), &tokenizer(), &EncodeOptions::new(1));
        assert!(matches!(
            result,
            Err(DataError::BadOption {
                option: "max_len",
                ..
            })
        ));
    }
}
