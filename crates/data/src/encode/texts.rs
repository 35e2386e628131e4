//! Texts for encoders and encoder-decoders, special tokens included.

use super::labelled::{LabelledSet, cutting, gather, wrong_format};
use super::options::{EncodeOptions, Truncation};
use crate::error::DataError;
use crate::fault::{Faults, RowFault};
use crate::rows::{Row, Rows};
use crate::tokenizer::Tokenizer;

/// A text, and what an encoder-decoder is to write for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceTarget {
    /// Tokens to read, special tokens included.
    pub source: Vec<u32>,
    /// Tokens to write, the end of the sequence included unless it was cut.
    pub target: Vec<u32>,
}

/// Encodes prompts with completions as texts to read and to write, as Transformers' tokenizer does: special tokens included,
/// each side cut by itself.
///
/// # Errors
///
/// [`DataError::WrongFormat`] for other rows; [`DataError::Rows`] with every row that is too long under
/// [`Truncation::Refuse`]; [`DataError::Tokenize`].
pub fn encode_seq2seq(
    rows: &Rows,
    tokenizer: &Tokenizer,
    options: &EncodeOptions,
) -> Result<LabelledSet<SourceTarget>, DataError> {
    let inner = cutting(tokenizer, options)?;
    let set = gather(
        rows,
        |(_, row)| {
            let Row::PromptCompletion { prompt, completion } = row else {
                return Err(wrong_format(rows, "a text to read and one to write"));
            };
            let source = encode_cut(tokenizer, &inner, prompt)?;
            let target = encode_cut(tokenizer, &inner, completion)?;
            let is_cut = |encoding: &tokenizers::Encoding| !encoding.get_overflowing().is_empty();
            let mut ids = target.get_ids().to_vec();
            if !is_cut(&target)
                && ids.last() != Some(&tokenizer.eos())
                && ids.len() < options.max_len
            {
                ids.push(tokenizer.eos());
            }
            let example = SourceTarget {
                source: source.get_ids().to_vec(),
                target: ids,
            };
            Ok((example, is_cut(&source) || is_cut(&target)))
        },
        Vec::new(),
    )?;
    refuse_cut(rows, &set.cut, options)?;
    Ok(set)
}

/// Encodes plain texts, special tokens included. Longer ones are cut, refused, or divided, as the options say.
///
/// # Errors
///
/// As [`encode_seq2seq`].
pub fn encode_texts(
    rows: &Rows,
    tokenizer: &Tokenizer,
    options: &EncodeOptions,
) -> Result<LabelledSet<Vec<u32>>, DataError> {
    let inner = cutting(tokenizer, options)?;
    let divides = options.truncation == Truncation::Split;
    let set = gather(
        rows,
        |(_, row)| {
            let Row::Text { text } = row else {
                return Err(wrong_format(rows, "plain texts"));
            };
            let encoding = encode_cut(tokenizer, &inner, text)?;
            let rest = encoding.get_overflowing();
            let parts = rest.iter().filter(|_| divides);
            let parts: Vec<Vec<u32>> = std::iter::once(&encoding)
                .chain(parts)
                .map(|part| part.get_ids().to_vec())
                .collect();
            Ok((parts, !rest.is_empty()))
        },
        Vec::new(),
    )?;
    refuse_cut(rows, &set.cut, options)?;
    Ok(LabelledSet {
        examples: set.examples.concat(),
        classes: set.classes,
        truncated: set.truncated,
        cut: set.cut,
    })
}

/// The tokens of a text up to the length at which `cutting` cuts, and all that is behind it.
///
/// A tokenizer that cuts stops reading where it has enough, and would lose the rest.
fn encode_cut(
    tokenizer: &Tokenizer,
    cutting: &tokenizers::Tokenizer,
    text: &str,
) -> Result<tokenizers::Encoding, DataError> {
    let whole = tokenizer.inner().encode(text, false);
    let cut = whole.and_then(|whole| cutting.post_process(whole, None, true));
    cut.map_err(|error| DataError::Tokenize(error.to_string()))
}

/// Every row that was cut, where none may be.
fn refuse_cut(rows: &Rows, cut: &[usize], options: &EncodeOptions) -> Result<(), DataError> {
    if options.truncation != Truncation::Refuse || cut.is_empty() {
        return Ok(());
    }
    let mut faults = Faults::new(rows.path());
    for index in cut {
        let placed = &rows.placed()[*index];
        let fault = RowFault::Value {
            at: "the row".into(),
            found: "is too long".into(),
            expected: format!("of at most {} tokens", options.max_len),
        };
        faults.push(rows.file_of(placed), placed.place, fault);
    }
    Err(DataError::Rows(faults))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special_tokens::SpecialTokens;
    use crate::testing::words_json;

    fn tokenizer() -> Tokenizer {
        let json = words_json(Some(("<s>", "</s>")));
        let inner = tokenizers::Tokenizer::from_bytes(json).unwrap();
        Tokenizer::new(inner, SpecialTokens::new(2)).unwrap()
    }

    #[test]
    fn both_sides_have_their_special_tokens() {
        let row = Row::PromptCompletion {
            prompt: "a b".into(),
            completion: "c a b c a".into(),
        };
        let rows = Rows::new("rows", [row]).unwrap();
        let set = encode_seq2seq(&rows, &tokenizer(), &EncodeOptions::new(5)).unwrap();
        assert_eq!(set.examples[0].source, [1, 5, 6, 2]);
        assert_eq!(set.examples[0].target, [1, 7, 5, 6, 2]);
        assert_eq!(set.truncated, 1);
        let strict = EncodeOptions {
            truncation: Truncation::Refuse,
            ..EncodeOptions::new(5)
        };
        let error = encode_seq2seq(&rows, &tokenizer(), &strict).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("rows:1") && error.contains("at most 5 tokens"),
            "{error}"
        );
        let error = encode_texts(&rows, &tokenizer(), &strict).unwrap_err();
        assert!(matches!(error, DataError::WrongFormat { .. }));
    }

    #[test]
    fn long_texts_are_cut_or_divided() {
        let text = Row::Text {
            text: "a b c a b".into(),
        };
        let rows = Rows::new("rows", [text]).unwrap();
        let cut = encode_texts(&rows, &tokenizer(), &EncodeOptions::new(4)).unwrap();
        assert_eq!(cut.examples, [[1, 5, 6, 2]]);
        let divided = EncodeOptions {
            truncation: Truncation::Split,
            ..EncodeOptions::new(4)
        };
        let divided = encode_texts(&rows, &tokenizer(), &divided).unwrap();
        assert_eq!(
            divided.examples,
            [vec![1, 5, 6, 2], vec![1, 7, 5, 2], vec![1, 6, 2]]
        );
    }
}
