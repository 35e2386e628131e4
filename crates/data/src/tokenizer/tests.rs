use super::*;
use crate::testing::{WORDS, folder, pieces, words, words_json};

const CONFIG: &str = r#"{"eos_token": "</s>", "bos_token": "<s>"}"#;

fn special(add_bos: Option<bool>) -> SpecialTokens {
    SpecialTokens {
        bos: Some(1),
        add_bos,
        ..SpecialTokens::new(2)
    }
}

#[test]
fn reads_a_folder() {
    let dir = folder(&[
        ("tokenizer.json", &words_json(None)),
        ("tokenizer_config.json", CONFIG),
    ]);
    let tokenizer = Tokenizer::from_folder(dir.path()).unwrap();
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.pad()),
        (Some(1), 2, 2)
    );
    assert_eq!(
        (tokenizer.stop_ids(), tokenizer.vocab_size()),
        (&[2][..], WORDS.len())
    );
    assert_eq!(tokenizer.embedding_rows(), WORDS.len());
    assert_eq!(tokenizer.decode(&[1, 5, 6, 2]).unwrap(), "a b");
    assert_eq!(tokenizer.id_to_token(5).as_deref(), Some("a"));
}

#[test]
fn a_missing_or_broken_tokenizer_is_named() {
    let dir = folder(&[]);
    let error = Tokenizer::from_folder(dir.path()).unwrap_err().to_string();
    assert!(error.ends_with("has no tokenizer.json"), "{error}");
    let error = Tokenizer::from_folder(dir.path().join("none"))
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("not a folder"), "{error}");
    let slow = folder(&[("tokenizer.model", "")]);
    let error = Tokenizer::from_folder(slow.path()).unwrap_err().to_string();
    assert!(error.contains("slow tokenizer"), "{error}");
    let broken = folder(&[("tokenizer.json", "{}")]);
    let error = Tokenizer::from_folder(broken.path()).unwrap_err();
    assert!(
        matches!(error, DataError::BadTokenizer { ref path, .. } if path.ends_with("tokenizer.json")),
        "{error}"
    );
}

#[test]
fn bos_begins_the_prompt_only() {
    // The post-processor would write `<s> text </s>`.
    let json = words_json(Some(("<s>", "</s>")));
    let inner = tokenizers::Tokenizer::from_bytes(json).unwrap();
    for (add_bos, prefix) in [(None, &[1][..]), (Some(true), &[1]), (Some(false), &[])] {
        let tokenizer = Tokenizer::new(inner.clone(), special(add_bos)).unwrap();
        assert_eq!(tokenizer.prefix(), prefix);
        assert_eq!(
            tokenizer.encode_prompt("a b").unwrap(),
            [prefix, &[5, 6]].concat()
        );
        assert_eq!(tokenizer.encode_completion("a b").unwrap(), [5, 6]);
    }
}

#[test]
fn add_bos_token_adds_what_the_post_processor_does_not() {
    for (add_bos, expected) in [(None, &[5][..]), (Some(true), &[1, 5]), (Some(false), &[5])] {
        let tokenizer = Tokenizer::new(words(), special(add_bos)).unwrap();
        assert_eq!(tokenizer.encode_prompt("a").unwrap(), expected);
    }
}

#[test]
fn bos_is_not_written_twice() {
    let tokenizer = Tokenizer::new(words(), special(Some(true))).unwrap();
    assert_eq!(tokenizer.encode_prompt("<s> a").unwrap(), [1, 5]);
}

#[test]
fn truncation_and_padding_of_the_file_are_off() {
    let mut inner = words();
    let truncation = tokenizers::TruncationParams {
        max_length: 2,
        ..Default::default()
    };
    inner.with_truncation(Some(truncation)).unwrap();
    let padding = tokenizers::PaddingParams {
        strategy: tokenizers::PaddingStrategy::Fixed(8),
        ..Default::default()
    };
    inner.with_padding(Some(padding));
    let tokenizer = Tokenizer::new(inner, special(None)).unwrap();
    assert_eq!(tokenizer.encode_prompt("a b c d").unwrap(), [5, 6, 7, 8]);
}

#[test]
fn a_completion_gets_no_space_of_the_tokenizer() {
    let tokenizer = Tokenizer::new(pieces(), SpecialTokens::new(0)).unwrap();
    let tokens = |ids: Vec<u32>| {
        ids.iter()
            .filter_map(|&id| tokenizer.id_to_token(id))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        tokens(tokenizer.encode_prompt("a=").unwrap()),
        ["▁", "a", "="]
    );
    assert_eq!(tokens(tokenizer.encode_completion("b").unwrap()), ["b"]);
    assert_eq!(
        tokens(tokenizer.encode_completion(" b").unwrap()),
        ["▁", "b"]
    );
}

#[test]
fn an_unknown_word_without_unknown_token_is_an_error() {
    let json = words_json(None).replace("\"<unk>\":0,", "");
    let inner = tokenizers::Tokenizer::from_bytes(json).unwrap();
    let tokenizer = Tokenizer::new(inner, special(None)).unwrap();
    assert!(matches!(
        tokenizer.encode_prompt("zzz"),
        Err(DataError::Tokenize(_))
    ));
}
