//! Whether a model knows the tokens of its data.

use std::collections::BTreeSet;

use crate::error::DataError;
use crate::example::Example;
use crate::tokenizer::Tokenizer;

/// Checks that every token in use has an embedding in a model of `vocab_size` tokens.
///
/// # Errors
///
/// [`DataError::VocabTooSmall`] with the tokens that have none; on a GPU they would read foreign
/// memory without a word.
pub fn check_vocab(
    examples: &[Example],
    tokenizer: &Tokenizer,
    vocab_size: usize,
) -> Result<(), DataError> {
    let in_use = examples
        .iter()
        .flat_map(|example| example.ids().iter().copied())
        .chain([tokenizer.pad()]);
    let outside: BTreeSet<u32> = in_use.filter(|&id| id as usize >= vocab_size).collect();
    if outside.is_empty() {
        return Ok(());
    }
    let shown = outside
        .iter()
        .take(10)
        .map(|&id| match tokenizer.id_to_token(id) {
            Some(token) => format!("{id} \"{token}\""),
            None => id.to_string(),
        });
    let mut shown = shown.collect::<Vec<_>>().join(", ");
    if outside.len() > 10 {
        shown.push_str(", ...");
    }
    Err(DataError::VocabTooSmall {
        count: outside.len(),
        vocab_size,
        shown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special_tokens::SpecialTokens;
    use crate::testing::words;

    #[test]
    fn tokens_without_embedding_are_listed() {
        let special = SpecialTokens {
            pad: 3,
            ..SpecialTokens::new(2)
        };
        let tokenizer = Tokenizer::new(words(), special).unwrap();
        let examples = [Example::new(vec![5, 6, 7, 8, 2], 1).unwrap()];
        assert!(check_vocab(&examples, &tokenizer, 9).is_ok());
        let error = check_vocab(&examples, &tokenizer, 7)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "2 tokens in use are outside the model's vocabulary of 7: 7 \"c\", 8 \"d\""
        );
    }

    #[test]
    fn the_pad_token_is_checked_too() {
        let special = SpecialTokens {
            pad: 8,
            ..SpecialTokens::new(2)
        };
        let tokenizer = Tokenizer::new(words(), special).unwrap();
        let examples = [Example::new(vec![5, 2], 1).unwrap()];
        let error = check_vocab(&examples, &tokenizer, 7);
        assert!(matches!(
            error,
            Err(DataError::VocabTooSmall { count: 1, .. })
        ));
    }
}
