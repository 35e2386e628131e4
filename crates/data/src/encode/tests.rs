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
            .map(|f| (f.place.number(), f.fault))
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
        examples: 2,
        tokens: 11,
        learned_tokens: 6,
        longest: 6,
        lengths: Lengths::of(vec![5, 6]),
        ..EncodeReport::default()
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
    assert_eq!(encoded.examples[0].spans(), [1..4]);
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
        examples: 2,
        tokens: 8,
        learned_tokens: 4,
        truncated: 1,
        longest: 7,
        without_end: 1,
        lengths: Lengths::of(vec![7, 4]),
        ..EncodeReport::default()
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
        truncation: Truncation::Refuse,
        ..EncodeOptions::new(4)
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
