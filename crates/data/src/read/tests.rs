use super::*;
use crate::rows::{Row, RowFormat};
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
            .map(|f| (f.place.number(), f.fault.to_string()))
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
        b"{\"prompt\": \"a\", \"completion\": \"b\", \"text\": \"of no concern\"}",
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
        (
            5,
            "\"completion\" is missing for a row of \"prompt\" and \"completion\"; the row has \"prompt\"",
        ),
        (7, "\"prompt\" is a number, not a string"),
        (8, "\"prompt\" is empty"),
        (9, "\"completion\" is empty"),
        (10, "not UTF-8 from byte 11 of the line"),
        (
            11,
            "\"prompt\", \"completion\" are missing for a row of \"prompt\" and \"completion\"; the row has no key",
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
    let found = faults(br#"{"question": "a", "id": 1}"#);
    assert!(
        found[0].1.ends_with("the row has \"question\", \"id\""),
        "{found:?}"
    );
}

#[test]
fn mixed_formats_name_a_line_of_each() {
    let text = b"{\"text\": \"a\"}\n{\"text\": \"b\"}\n{\"prompt\": \"a\", \"completion\": \"b\"}";
    let error = read(text).unwrap_err();
    assert!(
        matches!(
            error,
            DataError::MixedFormats {
                first: RowFormat::Text,
                other: RowFormat::PromptCompletion,
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

/// Reads `text` under a name of this extension.
fn read_as(extension: &str, text: &[u8], options: &ReadOptions) -> Result<Rows, String> {
    let dir = folder(&[]);
    let path = dir.path().join(format!("rows.{extension}"));
    std::fs::write(&path, text).unwrap();
    read_files(&[path], options).map_err(|error| {
        let message = error.to_string();
        message.replace(&format!("{}/", dir.path().display()), "")
    })
}

fn plain(extension: &str, text: &str) -> Result<Rows, String> {
    read_as(extension, text.as_bytes(), &ReadOptions::default())
}

fn text(text: &str) -> Row {
    Row::Text { text: text.into() }
}

fn all(rows: &Rows) -> Vec<(usize, Row)> {
    rows.iter()
        .map(|(place, row)| (place, row.clone()))
        .collect()
}

#[test]
fn a_json_list_counts_its_rows() {
    let rows = plain("json", r#"[{"text": "a"}, {"text": "b"}]"#).unwrap();
    assert_eq!(all(&rows), [(1, text("a")), (2, text("b"))]);
    let error = plain("json", r#"[{"text": "a"}, 3, {"txt": "b"}]"#).unwrap_err();
    assert_eq!(
        error,
        "2 faulty rows\n  rows.json:row 2: a number, not a JSON object\n  rows.json:row 3: \"text\" is missing for \
         a row of \"text\"; the row has \"txt\"; \"txt\" looks like \"text\""
    );
    let lines = plain("json", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n").unwrap();
    assert_eq!(lines.len(), 2);
    assert!(
        plain("json", "[{}, ")
            .unwrap_err()
            .contains("not JSON: EOF")
    );
    assert!(
        plain("json", "3")
            .unwrap_err()
            .contains("it is a number, not a list of objects")
    );
}

#[test]
fn tables_have_a_header_and_quotes() {
    let csv = "\u{feff}prompt,id,completion\n\"a, \"\"b\"\"\nc\",1, d\ne,2,f\n";
    let rows = plain("csv", csv).unwrap();
    assert_eq!(
        all(&rows),
        [(2, pair("a, \"b\"\nc", " d")), (4, pair("e", "f"))]
    );
    let rows = plain("tsv", "prompt\tcompletion\na,\tb\n").unwrap();
    assert_eq!(all(&rows), [(2, pair("a,", "b"))]);
    let error = plain("csv", "prompt,completion\na,b\nc\n,d\n").unwrap_err();
    assert_eq!(
        error,
        "2 faulty rows\n  rows.csv:3: the record has 1 fields, the header has 2\n  rows.csv:4: \"prompt\" is empty"
    );
    let error = plain("csv", "promt,completion\na,b\nc,d\n").unwrap_err();
    assert!(
        error.starts_with("1 faulty row\n  rows.csv:1: \"prompt\" is missing")
            && error.ends_with("looks like \"prompt\""),
        "{error}"
    );
    let error = plain("csv", "text,text\na,b\n").unwrap_err();
    assert!(
        error.contains("columns with the same name: \"text\""),
        "{error}"
    );
}

#[test]
fn labels_of_tables_are_numbers_where_all_are() {
    use crate::label::Label;
    let labels = |table: &str| -> Vec<Label> {
        let rows = plain("csv", table).unwrap();
        let label = |row: &Row| match row {
            Row::Classification { label, .. } => label.clone(),
            other => panic!("{other:?}"),
        };
        rows.iter().map(|(_, row)| label(row)).collect()
    };
    assert_eq!(
        labels("text,label\na,1\nb,0\n"),
        [Label::Id(1), Label::Id(0)]
    );
    assert_eq!(
        labels("text,label\na,1\nb,0.5\n"),
        [Label::Value(1.0), Label::Value(0.5)]
    );
    assert_eq!(
        labels("text,label\na,1\nb,no\n"),
        [Label::Name("1".into()), Label::Name("no".into())]
    );
}

#[test]
fn lists_in_tables_are_json() {
    let csv = "messages\n\"[{\"\"role\"\": \"\"assistant\"\", \"\"content\"\": \"\"a\"\"}]\"\n";
    let rows = plain("csv", csv).unwrap();
    assert_eq!(rows.format(), RowFormat::Messages);
}

#[test]
fn a_text_has_paragraphs_lines_or_is_one() {
    let content = "a\nb\r\n\n \nc\n\n";
    let read = |text_rows| {
        let options = ReadOptions {
            text_rows,
            ..ReadOptions::default()
        };
        all(&read_as("txt", content.as_bytes(), &options).unwrap())
    };
    assert_eq!(
        read(TextRows::Paragraph),
        [(1, text("a\nb")), (5, text("c"))]
    );
    assert_eq!(
        read(TextRows::Line),
        [(1, text("a")), (2, text("b")), (5, text("c"))]
    );
    assert_eq!(read(TextRows::File), [(1, text("a\nb\n\n \nc"))]);
    let error = read_as("txt", b"a\n\xFF\n", &ReadOptions::default()).unwrap_err();
    assert_eq!(
        error,
        "1 faulty row\n  rows.txt:2: not UTF-8 from byte 1 of the line"
    );
}

#[test]
fn columns_and_the_format_can_be_named() {
    let options = ReadOptions {
        columns: [("prompt", "question"), ("completion", "answer")]
            .map(|(a, b)| (a.to_string(), b.to_string()))
            .into(),
        ..ReadOptions::default()
    };
    let rows = read_as("jsonl", br#"{"question": "a", "answer": "b"}"#, &options).unwrap();
    assert_eq!(all(&rows), [(1, pair("a", "b"))]);
    let error = read_as("csv", b"question,anser\na,b\n", &options).unwrap_err();
    assert!(
        error.contains("rows.csv:1: the column \"answer\", mapped to \"completion\", is missing"),
        "{error}"
    );
    let options = ReadOptions {
        format: Some(RowFormat::Text),
        ..ReadOptions::default()
    };
    let both = br#"{"text": "a", "label": 1, "messages": []}"#;
    assert_eq!(
        all(&read_as("jsonl", both, &options).unwrap()),
        [(1, text("a"))]
    );
    let error = read_as("jsonl", br#"{"prompt": "a", "completion": "b"}"#, &options).unwrap_err();
    assert!(
        error.contains("\"text\" is missing for a row of \"text\""),
        "{error}"
    );
}

#[test]
fn several_files_are_one_set() {
    let dir = folder(&[
        ("a.jsonl", "{\"text\": \"a\"}\n"),
        ("b.csv", "text\nb\n"),
        ("bad.jsonl", "{\"text\": 1}\n"),
        ("other.csv", "prompt,completion\na,b\n"),
    ]);
    let read = |names: &[&str]| {
        let paths: Vec<PathBuf> = names.iter().map(|name| dir.path().join(name)).collect();
        read_files(&paths, &ReadOptions::default())
    };
    let rows = read(&["a.jsonl", "b.csv"]).unwrap();
    assert_eq!(all(&rows), [(1, text("a")), (2, text("b"))]);
    assert!(rows.place(1).unwrap().0.ends_with("b.csv"));
    let error = read(&["bad.jsonl", "b.csv", "bad.jsonl"])
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("2 faulty rows"), "{error}");
    let error = read(&["a.jsonl", "other.csv"]).unwrap_err().to_string();
    assert!(
        error.contains("a.jsonl:1 has \"text\"") && error.contains("other.csv:2 has"),
        "{error}"
    );
}

#[test]
fn an_unknown_extension_is_told() {
    let error = plain("xlsx", "PK").unwrap_err();
    assert!(
        error.starts_with("rows.xlsx has no known extension"),
        "{error}"
    );
    assert_eq!(plain("data", "{\"text\": \"a\"}").unwrap().len(), 1);
}

mod hostile;
