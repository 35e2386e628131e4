//! Small tokenizers and random examples for the tests of this crate.

use rand_chacha::rand_core::RngCore;
use serde_json::json;
use tempfile::TempDir;
use tokenizers::Tokenizer;

use crate::example::Example;
use crate::shuffle::generator;

/// The vocabulary of [`words`], in order of ids.
pub(crate) const WORDS: [&str; 9] = [
    "<unk>", "<s>", "</s>", "<pad>", "<stop>", "a", "b", "c", "d",
];

/// A tokenizer of whole words, as `tokenizer.json`; `around` are the special tokens of its
/// post-processor.
pub(crate) fn words_json(around: Option<(&str, &str)>) -> String {
    let id = |token: &str| WORDS.iter().position(|word| *word == token).unwrap();
    let vocab: serde_json::Map<_, _> = WORDS
        .iter()
        .map(|&word| (word.to_string(), json!(id(word))))
        .collect();
    let added: Vec<_> = WORDS[..5]
        .iter()
        .map(|&token| {
            json!({
                "id": id(token), "content": token, "single_word": false, "normalized": false,
                "lstrip": true, "rstrip": true, "special": true,
            })
        })
        .collect();
    let post_processor = around.map(|(before, after)| {
        let special = |token| json!({"SpecialToken": {"id": token, "type_id": 0}});
        let sequence = |name| json!({"Sequence": {"id": name, "type_id": 0}});
        let entry = |token| json!({"id": token, "ids": [id(token)], "tokens": [token]});
        json!({
            "type": "TemplateProcessing",
            "single": [special(before), sequence("A"), special(after)],
            "pair": [sequence("A"), sequence("B")],
            "special_tokens": {before: entry(before), after: entry(after)},
        })
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": "\u{200B}"}, "content": ""},
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": post_processor,
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    })
    .to_string()
}

/// [`words_json`] without a post-processor.
pub(crate) fn words() -> Tokenizer {
    Tokenizer::from_bytes(words_json(None)).unwrap()
}

/// A tokenizer of single characters that puts a space before every text, as SentencePiece does.
pub(crate) fn pieces() -> Tokenizer {
    let vocab: serde_json::Map<_, _> = ["</s>", "▁", "a", "b", "=", "\n"]
        .iter()
        .enumerate()
        .map(|(id, &piece)| (piece.to_string(), json!(id)))
        .collect();
    let metaspace = json!(
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": false}
    );
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": metaspace,
        "post_processor": null,
        "decoder": metaspace,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    Tokenizer::from_bytes(json.to_string()).unwrap()
}

/// A temporary folder with these files.
pub(crate) fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

/// Lengths from 1 to `max`.
pub(crate) fn lengths(count: usize, max: usize) -> Vec<usize> {
    let mut rng = generator(0, 0);
    (0..count)
        .map(|_| 1 + rng.next_u64() as usize % max)
        .collect()
}

/// Examples of 2 to `max_len` tokens, with any legal learned range.
pub(crate) fn random_examples(count: usize, max_len: usize, seed: u64) -> Vec<Example> {
    let mut rng = generator(seed, 0);
    let mut below = |bound: usize| rng.next_u64() as usize % bound;
    (0..count)
        .map(|_| {
            let ids: Vec<u32> = (0..2 + below(max_len - 1))
                .map(|_| below(90) as u32)
                .collect();
            let learned_from = 1 + below(ids.len() - 1);
            Example::new(ids, learned_from).unwrap()
        })
        .collect()
}
