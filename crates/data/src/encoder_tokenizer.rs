//! Whole sequences for encoders.

use std::path::Path;

use tokenizers::{TruncationParams, TruncationStrategy};

use crate::error::DataError;
use crate::tokenizer::{embedding_rows, read_file};

/// A `tokenizer.json` as encoders and encoder-decoders want it: texts and pairs of texts, with all special tokens that its
/// post-processor puts around them (`[CLS] a [SEP] b [SEP]`, `a </s>`), as Transformers' tokenizers give them.
///
/// Nothing else of the folder is read: these models need no token that ends a generation.
#[derive(Debug, Clone)]
pub struct EncoderTokenizer {
    inner: tokenizers::Tokenizer,
}

/// The tokens of a text or of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedSequence {
    /// The tokens.
    pub ids: Vec<u32>,
    /// The segment of each (`token_type_ids`): the first text's or the second's.
    pub segments: Vec<u32>,
}

impl EncoderTokenizer {
    /// Reads `tokenizer.json` of a Hugging Face folder. Padding and truncation set in it are switched off.
    ///
    /// # Errors
    ///
    /// [`DataError::NoTokenizer`] and [`DataError::BadTokenizer`].
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self, DataError> {
        Self::new(read_file(folder.as_ref())?)
    }

    /// Wraps a tokenizer made in code.
    ///
    /// # Errors
    ///
    /// [`DataError::Tokenize`] if the tokenizer cannot be changed.
    pub fn new(mut inner: tokenizers::Tokenizer) -> Result<Self, DataError> {
        inner.with_padding(None);
        Self { inner }.truncated(None)
    }

    /// Cuts sequences to so many tokens, special ones included, a token at a time of the longer text.
    ///
    /// # Errors
    ///
    /// [`DataError::Tokenize`] if the special tokens alone are more.
    pub fn with_max_length(self, tokens: usize) -> Result<Self, DataError> {
        self.truncated(Some(TruncationParams {
            max_length: tokens,
            strategy: TruncationStrategy::LongestFirst,
            ..TruncationParams::default()
        }))
    }

    fn truncated(mut self, how: Option<TruncationParams>) -> Result<Self, DataError> {
        let changed = self.inner.with_truncation(how).map(|_| ());
        changed.map_err(|error| DataError::Tokenize(error.to_string()))?;
        Ok(self)
    }

    /// The tokens of a text, or of two that belong together.
    ///
    /// # Errors
    ///
    /// [`DataError::Tokenize`], for example for a word that the vocabulary lacks when there is no unknown token.
    pub fn encode(&self, text: &str, pair: Option<&str>) -> Result<EncodedSequence, DataError> {
        let encoded = match pair {
            Some(pair) => self.inner.encode((text, pair), true),
            None => self.inner.encode(text, true),
        };
        let encoded = encoded.map_err(|error| DataError::Tokenize(error.to_string()))?;
        Ok(EncodedSequence {
            ids: encoded.get_ids().to_vec(),
            segments: encoded.get_type_ids().to_vec(),
        })
    }

    /// The rows that an embedding needs for all tokens.
    pub fn embedding_rows(&self) -> usize {
        embedding_rows(&self.inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{WORDS, folder, words_json};
    use tokenizers::processors::template::TemplateProcessing;

    /// `<s> a </s>`, and `<s> a </s> b </s>` whose last two are of the second segment.
    fn with_pairs() -> EncoderTokenizer {
        let mut inner = tokenizers::Tokenizer::from_bytes(words_json(None)).unwrap();
        let template = TemplateProcessing::builder()
            .try_single("<s> $A </s>")
            .unwrap()
            .try_pair("<s> $A </s> $B:1 </s>:1")
            .unwrap()
            .special_tokens(vec![("<s>", 1), ("</s>", 2)])
            .build()
            .unwrap();
        inner.with_post_processor(Some(template));
        EncoderTokenizer::new(inner).unwrap()
    }

    #[test]
    fn pairs_are_of_two_segments() {
        let tokenizer = with_pairs();
        let one = tokenizer.encode("a b", None).unwrap();
        assert_eq!((one.ids, one.segments), (vec![1, 5, 6, 2], vec![0; 4]));
        let two = tokenizer.encode("a", Some("b")).unwrap();
        assert_eq!(two.ids, [1, 5, 2, 6, 2]);
        assert_eq!(two.segments, [0, 0, 0, 1, 1]);
        assert_eq!(tokenizer.embedding_rows(), WORDS.len());
    }

    #[test]
    fn what_is_cut_keeps_its_special_tokens() {
        let tokenizer = with_pairs().with_max_length(4).unwrap();
        assert_eq!(tokenizer.encode("a b a b", None).unwrap().ids, [1, 5, 6, 2]);
    }

    #[test]
    fn a_folder_needs_nothing_but_the_tokenizer() {
        let dir = folder(&[("tokenizer.json", &words_json(Some(("<s>", "</s>"))))]);
        let tokenizer = EncoderTokenizer::from_folder(dir.path()).unwrap();
        assert_eq!(tokenizer.encode("a", None).unwrap().ids, [1, 5, 2]);
        let empty = folder(&[]);
        let error = EncoderTokenizer::from_folder(empty.path()).unwrap_err();
        assert!(matches!(error, DataError::NoTokenizer { .. }), "{error}");
    }
}
