use burn_lora::data::{ReadOptions, RowStream, StreamOptions, TextRows, read_files};
use proptest::prelude::*;

use crate::{config, edited, edits, is_readable};

const JSON_LINES: &str = r#"{"prompt": "a", "completion": " b"}
{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]}
"#;

/// A valid file of each format of rows, with its extension.
const FILES: [(&str, &str); 12] = [
    (
        "jsonl",
        "{\"prompt\": \"a\", \"completion\": \" b\"}\n{\"prompt\": \"c\", \"completion\": \" d\"}\n",
    ),
    (
        "jsonl",
        "{\"text\": \"one \\u00e4\"}\n{\"text\": \"two\"}\n",
    ),
    (
        "jsonl",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": {\"x\": 1}}}]}], \"tools\": []}\n",
    ),
    (
        "jsonl",
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", \"value\": \"r\"}], \"system\": \"s\"}\n",
    ),
    (
        "jsonl",
        "{\"instruction\": \"i\", \"input\": \"\", \"output\": \"o\", \"history\": [[\"a\", \"b\"]]}\n",
    ),
    (
        "jsonl",
        "{\"tokens\": [\"a\", \"b\"], \"tags\": [0, 1]}\n{\"tokens\": [\"c\"], \"tags\": [1]}\n",
    ),
    (
        "jsonl",
        "{\"prompt\": \"p\", \"chosen\": \"c\", \"rejected\": \"r\"}\n",
    ),
    (
        "json",
        "[{\"text\": \"a\", \"label\": 1}, {\"text\": \"b\", \"text_pair\": \"c\", \"label\": 0}]",
    ),
    ("csv", "prompt,completion\na,\" b, c\"\n\"d\"\"e\",f\n"),
    ("tsv", "text\tlabel\na b\tpositive\nc\tnegative\n"),
    ("txt", "One paragraph\nof two lines.\n\nAnother one.\r\n"),
    ("jsonl", JSON_LINES),
];

const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\n",
    "\r",
    "\t",
    "\"\"",
    "null",
    "-0",
    "1e999",
    "NaN",
    "true",
    "\u{feff}",
    "\u{0}",
    "\\ud800",
    "\"text\": 3",
    "\"messages\"",
    "\"role\": \"tool\"",
    "\"label\": 1e308",
    "\"tags\": []",
];

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn damaged_rows_are_read_or_refused(
        file in 0..FILES.len(),
        edits in edits(WORDS),
        rows in 0..3_usize,
    ) {
        let (extension, text) = FILES[file];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(format!("rows.{extension}"));
        std::fs::write(&path, edited(text.as_bytes(), &edits)).unwrap();
        let options = ReadOptions {
            text_rows: [TextRows::Paragraph, TextRows::Line, TextRows::File][rows],
            ..ReadOptions::default()
        };
        match read_files(std::slice::from_ref(&path), &options) {
            Ok(rows) => prop_assert!(rows.len() > 0),
            Err(error) => prop_assert!(is_readable(&error), "{error}"),
        }
        let stream = StreamOptions { read: options, epochs: Some(1), buffer: 4, ..StreamOptions::default() };
        if let Ok(stream) = RowStream::open(&[path], stream) {
            for row in stream.take(50) {
                if let Err(error) = row {
                    prop_assert!(is_readable(&error), "{error}");
                    break;
                }
            }
        }
    }
}

#[test]
fn the_whole_files_are_read() {
    for (extension, text) in &FILES[..FILES.len() - 1] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(format!("rows.{extension}"));
        std::fs::write(&path, text).unwrap();
        read_files(&[path], &ReadOptions::default())
            .unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}
