//! Any bytes, in every format: rows or an error, never a panic.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const EXTENSIONS: [&str; 6] = ["jsonl", "json", "csv", "tsv", "txt", "parquet"];

/// Pieces of which files of rows are made.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\n",
        "\r\n",
        "\t",
        "\\",
        "\"text\"",
        "\"prompt\"",
        "\"completion\"",
        "\"messages\"",
        "\"role\": \"assistant\"",
        "\"content\": \"a\"",
        "\"conversations\"",
        "\"from\": \"gpt\"",
        "\"value\": \"b\"",
        "\"label\"",
        "\"tokens\"",
        "\"tags\"",
        "\"chosen\"",
        "\"rejected\"",
        "\"tool_calls\"",
        "\"function\"",
        "text",
        "label",
        "null",
        "-1",
        "1e999",
        "true",
        "\u{feff}",
        "\u{0}",
        "PAR1",
        "\\ud800",
        "{\"text\": \"a\"}\n",
        "{\"messages\": [{\"role\": \"assistant\", \"content\": \"x\"}]}\n",
        "text,label\n",
    ])
    .prop_map(|text| text.as_bytes().to_vec());
    prop_oneof![4 => known, 1 => vec(any::<u8>(), 0..6)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(pieces in vec(piece(), 0..40), kind in 0..EXTENSIONS.len(), rows in 0..3_usize) {
        let options = ReadOptions {
            text_rows: [TextRows::Paragraph, TextRows::Line, TextRows::File][rows],
            ..ReadOptions::default()
        };
        let bytes = pieces.concat();
        match read_as(EXTENSIONS[kind], &bytes, &options) {
            Ok(rows) => prop_assert!(rows.len() > 0),
            // Errors are bounded, however long the file.
            Err(error) => prop_assert!(error.len() < 20_000, "{}", error.len()),
        }
    }
}

#[cfg(feature = "parquet")]
mod parquet_files {
    use super::*;

    const WHOLE: &[u8] = include_bytes!("rows.parquet");

    #[test]
    fn a_whole_file_is_read() {
        let rows = read_as("parquet", WHOLE, &ReadOptions::default()).unwrap();
        assert_eq!(rows.format(), RowFormat::Messages);
        assert_eq!(rows.len(), 3);
        match rows.get(1) {
            Some(Row::Chat(chat)) => {
                assert_eq!(chat.messages.len(), 2);
                assert_eq!(chat.messages[1].as_map()["content"], "answer 1, wörds");
            }
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_damage_panics(changes in vec((0..WHOLE.len(), any::<u8>()), 1..8), end in 0..WHOLE.len() * 2) {
            let mut bytes = WHOLE.to_vec();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            bytes.truncate(end.max(1));
            let _ = read_as("parquet", &bytes, &ReadOptions::default());
        }
    }
}
