use super::*;
use crate::testing::folder;

fn options(buffer: usize, epochs: Option<u64>) -> StreamOptions {
    StreamOptions {
        buffer,
        seed: 7,
        epochs,
        ..StreamOptions::default()
    }
}

fn files(dir: &tempfile::TempDir, names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(|name| dir.path().join(name)).collect()
}

fn numbered(rows: std::ops::Range<usize>) -> String {
    rows.map(|row| format!("{{\"text\": \"row {row}\"}}\n"))
        .collect()
}

fn texts(rows: impl Iterator<Item = Result<StreamRow, DataError>>) -> Vec<String> {
    let text = |row: StreamRow| match row.row {
        Row::Text { text } => text,
        other => panic!("{other:?}"),
    };
    rows.map(|row| text(row.unwrap())).collect()
}

#[test]
fn every_row_is_drawn_once_in_each_epoch() {
    let dir = folder(&[
        ("a.jsonl", &numbered(0..30)),
        ("b.jsonl", &numbered(30..50)),
    ]);
    let files = files(&dir, &["a.jsonl", "b.jsonl"]);
    let stream = RowStream::open(&files, options(8, Some(2))).unwrap();
    let all = texts(stream);
    assert_eq!(all.len(), 100);
    let (first, second) = all.split_at(50);
    assert_ne!(first, second);
    let mut expected: Vec<String> = (0..50).map(|row| format!("row {row}")).collect();
    assert_ne!(first, expected);
    expected.sort();
    for epoch in [first, second] {
        let mut epoch = epoch.to_vec();
        epoch.sort();
        assert_eq!(epoch, expected);
    }
    let in_order = texts(RowStream::open(&files, options(1, Some(1))).unwrap());
    assert_eq!(in_order[29..31], ["row 29", "row 30"]);
}

#[test]
fn a_restored_stream_goes_on_exactly() {
    let dir = folder(&[("a.jsonl", &numbered(0..23)), ("b.txt", "x\ny\n\nz\n")]);
    let files = files(&dir, &["a.jsonl", "b.txt"]);
    for drawn in [0, 1, 5, 20, 24, 25, 26, 40, 75] {
        let mut stream = RowStream::open(&files, options(6, None)).unwrap();
        texts(stream.by_ref().take(drawn));
        let saved = serde_json::to_string(&stream.state()).unwrap();
        // The seed comes from the state.
        let other = StreamOptions {
            seed: 1,
            ..options(6, None)
        };
        let mut resumed = RowStream::open(&files, other).unwrap();
        texts(resumed.by_ref().take(3));
        resumed
            .restore(&serde_json::from_str(&saved).unwrap())
            .unwrap();
        assert_eq!(resumed.epoch(), stream.epoch());
        let rest: Vec<StreamRow> = stream.take(60).map(Result::unwrap).collect();
        let again: Vec<StreamRow> = resumed.take(60).map(Result::unwrap).collect();
        assert_eq!(rest, again, "after {drawn}");
    }
}

#[test]
fn records_are_those_that_are_read_at_once() {
    let text = "\u{feff}one\nline\r\n\n \n\ntwo\n \n\n";
    let dir = folder(&[("a.txt", text)]);
    let files = files(&dir, &["a.txt"]);
    for text_rows in [TextRows::Paragraph, TextRows::Line, TextRows::File] {
        let read = ReadOptions {
            text_rows,
            ..ReadOptions::default()
        };
        let rows = crate::read_files(&files, &read).unwrap();
        let options = StreamOptions {
            read,
            ..options(1, Some(1))
        };
        let streamed: Vec<(usize, Row)> = RowStream::open(&files, options)
            .unwrap()
            .map(|row| row.unwrap())
            .map(|row| (row.place.number(), row.row))
            .collect();
        let read: Vec<(usize, Row)> = rows.iter().map(|(line, row)| (line, row.clone())).collect();
        assert_eq!(streamed, read, "{text_rows:?}");
    }
}

#[test]
fn a_faulty_row_is_told_and_passed() {
    let dir = folder(&[("a.jsonl", "{\"text\": \"a\"}\n{\n{\"text\": \"b\"}\n")]);
    let stream = RowStream::open(&files(&dir, &["a.jsonl"]), options(1, Some(1))).unwrap();
    let rows: Vec<_> = stream.collect();
    assert_eq!(rows.len(), 3);
    let error = rows[1].as_ref().unwrap_err().to_string();
    assert!(error.contains("a.jsonl:2: not JSON"), "{error}");
    assert!(rows[2].is_ok());
}

#[test]
fn refuses_what_it_cannot_stream_and_states_of_other_files() {
    let dir = folder(&[
        ("a.jsonl", &numbered(0..9)),
        ("b.csv", "text\na\n"),
        ("c.jsonl", "\n\n"),
    ]);
    let open =
        |name: &str, buffer| RowStream::open(&files(&dir, &[name]), options(buffer, Some(3)));
    let error = open("b.csv", 2).unwrap_err().to_string();
    assert!(
        error.contains("only JSONL and text can be streamed"),
        "{error}"
    );
    assert!(matches!(
        open("a.jsonl", 0),
        Err(DataError::BadOption { .. })
    ));
    let mut empty = open("c.jsonl", 2).unwrap();
    assert!(matches!(empty.next(), Some(Err(DataError::NoRows { .. }))));
    assert!(empty.next().is_none());
    let mut stream = open("a.jsonl", 4).unwrap();
    stream.next();
    let state = stream.state();
    let mut other = open("c.jsonl", 1).unwrap();
    let error = other.restore(&state).unwrap_err().to_string();
    assert!(
        error.contains("other sizes") && error.contains("at most 1"),
        "{error}"
    );
}
