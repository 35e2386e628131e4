//! Reading rows from a JSONL file.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::DataError;
use crate::fault::{Faults, NoFormat, RowFault, quoted};
use crate::rows::{Row, Rows};

/// Reads a JSONL file of `{"prompt", "completion"}` or `{"text"}` rows.
///
/// Further keys are allowed. A byte-order mark, CRLF line ends and blank lines at the end are
/// accepted.
///
/// # Errors
///
/// [`DataError::Read`]; [`DataError::Rows`] with every line that is blank, not UTF-8, not a JSON
/// object, of neither or both formats, or that has a value that is not a string or is empty;
/// [`DataError::MixedFormats`]; [`DataError::NoRows`].
pub fn read_rows(path: impl AsRef<Path>) -> Result<Rows, DataError> {
    let path = path.as_ref().to_path_buf();
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(source) => return Err(DataError::Read { path, source }),
    };
    let mut rows = Vec::new();
    let mut faults = Faults::new(&path);
    // Blank lines are faults only if a row follows.
    let mut blank = Vec::new();
    for (index, line) in BufReader::new(file).split(b'\n').enumerate() {
        let line = match line {
            Ok(line) => line,
            Err(source) => return Err(DataError::Read { path, source }),
        };
        let text = match index {
            0 => line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&line),
            _ => &line,
        };
        if text.trim_ascii().is_empty() {
            blank.push(index + 1);
            continue;
        }
        blank
            .drain(..)
            .for_each(|line| faults.push(line, RowFault::Blank));
        match parse(text) {
            Ok(row) => rows.push((index + 1, row)),
            Err(fault) => faults.push(index + 1, fault),
        }
    }
    Rows::checked(path, rows, faults)
}

fn parse(line: &[u8]) -> Result<Row, RowFault> {
    let text =
        std::str::from_utf8(line).map_err(|error| RowFault::NotUtf8(error.valid_up_to() + 1))?;
    let value = serde_json::from_str(text).map_err(|error| {
        // The parser's own "at line 1" would be read as a line of the file.
        let message = error.to_string();
        let what = message.split(" at line ").next().unwrap_or_default();
        RowFault::NotJson(format!("{what} at column {}", error.column()))
    })?;
    let row = row_of(value)?;
    row.empty_text().map_or(Ok(row), Err)
}

/// A JSON value as a row. Keys beside those of the format are columns of no concern here.
fn row_of(value: Value) -> Result<Row, RowFault> {
    let mut object = match value {
        Value::Object(object) => object,
        other => return Err(RowFault::NotObject(type_of(&other))),
    };
    let has = |key: &str| object.contains_key(key);
    match (has("prompt"), has("completion"), has("text")) {
        (true, true, false) => Ok(Row::PromptCompletion {
            prompt: take_text(&mut object, "prompt")?,
            completion: take_text(&mut object, "completion")?,
        }),
        (false, false, true) => Ok(Row::Text {
            text: take_text(&mut object, "text")?,
        }),
        (prompt, completion, true) => {
            let beside = [("prompt", prompt), ("completion", completion)];
            let beside: Vec<&str> = beside
                .iter()
                .filter(|(_, has)| *has)
                .map(|(key, _)| *key)
                .collect();
            Err(RowFault::BothFormats(quoted(&beside)))
        }
        (prompt, completion, false) => {
            Err(RowFault::NoFormat(no_format(&object, prompt, completion)))
        }
    }
}

fn take_text(object: &mut Map<String, Value>, key: &'static str) -> Result<String, RowFault> {
    match object.remove(key) {
        Some(Value::String(text)) => Ok(text),
        other => Err(RowFault::WrongType {
            key,
            found: type_of(&other.unwrap_or_default()),
        }),
    }
}

fn no_format(object: &Map<String, Value>, has_prompt: bool, has_completion: bool) -> NoFormat {
    let missing = match (has_prompt, has_completion) {
        (true, _) => vec!["completion"],
        (_, true) => vec!["prompt"],
        _ => vec!["prompt", "completion", "text"],
    };
    let found: Vec<String> = object.keys().cloned().collect();
    let meant = found
        .iter()
        .filter_map(|key| Some((key.clone(), nearest(key, &missing)?)))
        .collect();
    NoFormat {
        missing,
        found,
        meant,
    }
}

/// The missing key of which `key` looks like a misspelling: a third of its letters may differ, and
/// the case.
fn nearest(key: &str, missing: &[&'static str]) -> Option<&'static str> {
    let key = key.trim().to_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&key, name);
    missing
        .iter()
        .copied()
        .filter(|name| distance(name) <= name.len() / 3)
        .min_by_key(|name| distance(name))
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::RowFormat;
    use crate::testing::folder;

    fn read(text: &[u8]) -> Result<Rows, DataError> {
        let dir = folder(&[]);
        let path = dir.path().join("rows.jsonl");
        std::fs::write(&path, text).unwrap();
        read_rows(path)
    }

    /// The faults as `(line, message)`.
    fn faults(text: &[u8]) -> Vec<(usize, String)> {
        match read(text).unwrap_err() {
            DataError::Rows(faults) => faults
                .shown
                .iter()
                .map(|f| (f.line, f.fault.to_string()))
                .collect(),
            other => panic!("{other}"),
        }
    }

    fn pair(prompt: &str, completion: &str) -> Row {
        Row::PromptCompletion {
            prompt: prompt.into(),
            completion: completion.into(),
        }
    }

    #[test]
    fn reads_both_formats() {
        let rows = read(b"{\"prompt\": \"a\", \"completion\": \" b\", \"source\": 3}\n").unwrap();
        assert_eq!(
            (rows.len(), rows.format()),
            (1, RowFormat::PromptCompletion)
        );
        assert_eq!(rows.get(0), Some(&pair("a", " b")));
        let rows = read(b"{\"text\": \"a\"}\n{\"text\": \"\\u00e9\"}").unwrap();
        assert_eq!(rows.format(), RowFormat::Text);
        assert_eq!(
            rows.iter().last(),
            Some((2, &Row::Text { text: "é".into() }))
        );
    }

    #[test]
    fn accepts_byte_order_mark_crlf_and_blank_end() {
        let rows = read(b"\xEF\xBB\xBF{\"text\": \"a\"}\r\n{\"text\": \"b\"}\r\n\r\n  \n").unwrap();
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn every_faulty_line_is_listed() {
        let text = [
            &b"{\"prompt\": \"a\", \"completion\": \"b\"}"[..],
            b"",
            b"{\"prompt\": \"a\", ",
            b"[1, 2]",
            b"{\"prompt\": \"a\"}",
            b"{\"prompt\": \"a\", \"completion\": \"b\", \"text\": \"c\"}",
            b"{\"prompt\": 3, \"completion\": \"b\"}",
            b"{\"prompt\": \"\", \"completion\": \"b\"}",
            b"{\"prompt\": \"a\", \"completion\": \" \\n\"}",
            b"{\"text\": \"\xFF\"}",
            b"{}",
        ]
        .join(&b'\n');
        let expected = [
            (2, "the line is blank, with more rows after it"),
            (3, "not JSON: EOF while parsing a value at column 16"),
            (4, "a list, not a JSON object"),
            (5, "\"completion\" is missing; the row has \"prompt\""),
            (
                6,
                "has \"text\" beside \"prompt\", \"completion\": a row is either \"prompt\" and \
                 \"completion\", or \"text\"",
            ),
            (7, "\"prompt\" is a number, not a string"),
            (8, "\"prompt\" is empty"),
            (9, "\"completion\" is empty"),
            (10, "not UTF-8 from byte 11 of the line"),
            (
                11,
                "neither \"prompt\" and \"completion\" nor \"text\"; the row has no key",
            ),
        ];
        let expected = expected.map(|(line, message)| (line, message.to_string()));
        assert_eq!(faults(&text), expected);
    }

    #[test]
    fn misspelled_keys_get_the_nearest_valid_one() {
        for (row, part) in [
            (
                &br#"{"promt": "a", "completion": "b"}"#[..],
                "\"promt\" looks like \"prompt\"",
            ),
            (
                br#"{"prompt": "a", "Completions": "b"}"#,
                "\"Completions\" looks like \"completion\"",
            ),
            (br#"{"txt": "a"}"#, "\"txt\" looks like \"text\""),
        ] {
            let found = faults(row);
            assert!(found[0].1.contains(part), "{found:?}");
        }
        let found = faults(br#"{"messages": [], "id": 1}"#);
        assert!(
            found[0].1.ends_with("the row has \"messages\", \"id\""),
            "{found:?}"
        );
    }

    #[test]
    fn mixed_formats_name_a_line_of_each() {
        let text =
            b"{\"text\": \"a\"}\n{\"text\": \"b\"}\n{\"prompt\": \"a\", \"completion\": \"b\"}";
        let error = read(text).unwrap_err();
        assert!(
            matches!(
                error,
                DataError::MixedFormats {
                    prompt_line: 3,
                    text_line: 1,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_file_without_rows_or_no_file_is_an_error() {
        assert!(matches!(read(b"\n\n"), Err(DataError::NoRows { .. })));
        let error = read_rows("no/such.jsonl").unwrap_err().to_string();
        assert!(error.starts_with("cannot read no/such.jsonl: "), "{error}");
    }
}
