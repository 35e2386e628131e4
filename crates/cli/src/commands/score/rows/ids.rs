//! Rows of token ids.

use std::path::Path;

use serde_json::Value;

use super::{Row, Rows, Sequence, no_row, read_text};
use crate::commands::score::task::ScoreTask;
use crate::failure::Failure;

/// Reads a JSON list of rows, or a row a line.
pub fn read(path: &Path, task: ScoreTask, longest: Option<usize>) -> Result<Rows, Failure> {
    let text = read_text(path)?;
    let rows: Vec<_> = values(&text, task)
        .into_iter()
        .map(|(place, value)| {
            let row = value.and_then(|value| row(&value, task));
            let row = row.map(|row| cut(row, longest.unwrap_or(usize::MAX)));
            (format!("{}{place}", path.display()), row)
        })
        .collect();
    if rows.is_empty() {
        return Err(no_row(path));
    }
    Rows::gathered(rows.into_iter(), None)
}

/// Each row with its place.
fn values(text: &str, task: ScoreTask) -> Vec<(String, Result<Value, String>)> {
    let whole: Option<Vec<Value>> = serde_json::from_str(text).ok();
    // A list of ids is one row, of a choice a list of such lists; any other list holds the rows.
    let holds_ids = |row: &Value| match row.as_array() {
        Some(list) => task == ScoreTask::Choice && list.iter().any(Value::is_u64),
        None => row.is_u64(),
    };
    let is_list = |whole: &Vec<Value>| !whole.iter().any(holds_ids);
    if let Some(list) = whole.filter(is_list) {
        let rows = (1..).zip(list);
        return rows
            .map(|(row, value)| (format!(", row {row}"), Ok(value)))
            .collect();
    }
    let lines = (1..).zip(text.lines());
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            let value = serde_json::from_str(line).map_err(|error| error.to_string());
            (format!(":{number}"), value)
        })
        .collect()
}

fn cut(mut row: Row, longest: usize) -> Row {
    for sequence in &mut row.sequences {
        sequence.ids.truncate(longest);
        sequence.segments.truncate(longest);
    }
    row.target.truncate(longest);
    row
}

/// `[1, 2]`, or an object whose fields have the names of Transformers' arguments. Of a choice the ids are lists of lists.
fn row(value: &Value, task: ScoreTask) -> Result<Row, String> {
    let list = value.get("input_ids").unwrap_or(value);
    let list = list
        .as_array()
        .ok_or("neither a list of ids nor an object with \"input_ids\"")?;
    if list.is_empty() {
        return Err("the row is empty".into());
    }
    let segments = value.get("token_type_ids").filter(|value| !value.is_null());
    let target = value.get("labels").filter(|value| !value.is_null());
    let sequences = match task {
        ScoreTask::Choice => choices(list, segments)?,
        _ => vec![sequence(list, segments)?],
    };
    let target = match (task, target) {
        (ScoreTask::Seq2seq, Some(target)) => ids("\"labels\"", target)?,
        (ScoreTask::Seq2seq, None) => {
            return Err("\"labels\" is missing: what is to be written for the row".into());
        }
        // Other rows may have labels, which nothing asks for.
        _ => Vec::new(),
    };
    Ok(Row {
        sequences,
        target,
        ..Row::default()
    })
}

fn choices(list: &[Value], segments: Option<&Value>) -> Result<Vec<Sequence>, String> {
    let segments = match segments.map(Value::as_array) {
        None => None,
        Some(Some(segments)) if segments.len() == list.len() => Some(segments),
        Some(_) => return Err("\"token_type_ids\" has not one list for each choice".into()),
    };
    let choice = |(at, ids): (usize, &Value)| {
        let ids = ids
            .as_array()
            .ok_or_else(|| format!("choice {at} is no list of ids"))?;
        if ids.is_empty() {
            return Err(format!("choice {at} is empty"));
        }
        sequence(ids, segments.map(|segments| &segments[at]))
    };
    list.iter().enumerate().map(choice).collect()
}

fn sequence(list: &[Value], segments: Option<&Value>) -> Result<Sequence, String> {
    let segments = segments.map(|value| ids("\"token_type_ids\"", value));
    let sequence = Sequence {
        ids: tokens(list)?,
        segments: segments.transpose()?.unwrap_or_default(),
    };
    let (found, expected) = (sequence.segments.len(), sequence.ids.len());
    match found == 0 || found == expected {
        true => Ok(sequence),
        false => Err(format!("{found} token_type_ids for {expected} tokens")),
    }
}

fn ids(name: &str, value: &Value) -> Result<Vec<u32>, String> {
    match value.as_array() {
        Some(list) if !list.is_empty() => tokens(list),
        _ => Err(format!("{name} is no list of ids")),
    }
}

fn tokens(list: &[Value]) -> Result<Vec<u32>, String> {
    let id = |(at, value): (usize, &Value)| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| format!("{value} at place {at} is no token id"))
    };
    list.iter().enumerate().map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::score::rows::Limits;

    fn read_as(text: &str, task: ScoreTask) -> Result<Rows, String> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        read(file.path(), task, None).map_err(|failure| failure.chain()[0].clone())
    }

    fn causal(text: &str) -> Result<Rows, String> {
        read_as(text, ScoreTask::CausalLm)
    }

    fn all_ids(rows: &Rows) -> Vec<Vec<u32>> {
        let sequences = rows.all().iter().flat_map(|row| &row.sequences);
        sequences.map(|sequence| sequence.ids.clone()).collect()
    }

    fn limits(vocab_size: usize, max_positions: usize) -> Limits {
        Limits {
            vocab_size,
            max_positions,
            segments: 2,
        }
    }

    #[test]
    fn ids_come_as_one_list_or_line_by_line() {
        let expected = [vec![1, 2], vec![3]];
        for text in [
            "[[1, 2], [3]]",
            "[[1, 2],\n [3]]\n",
            "[1, 2]\n[3]\n",
            "{\"input_ids\": [1, 2]}\n\n{\"input_ids\": [3]}",
            "[{\"input_ids\": [1, 2]}, {\"input_ids\": [3]}]",
        ] {
            assert_eq!(all_ids(&causal(text).expect(text)), expected, "{text}");
        }
        assert_eq!(all_ids(&causal("[1, 2]").expect("one row")), [vec![1, 2]]);
    }

    #[test]
    fn every_faulty_row_is_named() {
        let error = causal("[1]\n[]\n[-1]\nx\n{\"ids\": [1]}\n[4294967296]").expect_err("refused");
        assert!(error.starts_with("5 faulty rows"), "{error}");
        for place in [
            ":2: the row is empty",
            ":3: -1 at place 0",
            ":4: expected",
            ":5: neither",
            ":6: 4294967296",
        ] {
            assert!(error.contains(place), "{place} in {error}");
        }
        assert!(causal("").expect_err("refused").ends_with("has no row"));
        assert!(causal("[]").expect_err("refused").ends_with("has no row"));
    }

    #[test]
    fn segments_targets_and_choices_stand_beside_the_ids() {
        let text = r#"{"input_ids": [1, 2], "token_type_ids": [0, 1]}"#;
        let rows = read_as(text, ScoreTask::Sequence).expect("rows");
        assert_eq!(rows.all()[0].sequences[0].segments, [0, 1]);
        let text = r#"{"input_ids": [1, 2], "labels": [3]}"#;
        let rows = read_as(text, ScoreTask::Seq2seq).expect("rows");
        assert_eq!((rows.longest(), rows.longest_target()), (2, 1));
        for text in [
            r#"{"input_ids": [[1, 2], [3]], "token_type_ids": [[0, 1], [0]]}"#,
            "[[1, 2], [3]]",
        ] {
            let rows = read_as(text, ScoreTask::Choice).expect("rows");
            assert_eq!((rows.len(), rows.choices()), (1, 2), "{text}");
        }
    }

    #[test]
    fn what_does_not_belong_together_is_named() {
        let seq2seq = "[1]\n{\"input_ids\": [1], \"labels\": []}";
        let error = read_as(seq2seq, ScoreTask::Seq2seq).expect_err("refused");
        assert!(error.contains(":1: \"labels\" is missing"), "{error}");
        assert!(error.contains(":2: \"labels\" is no list"), "{error}");
        let pairs = r#"{"input_ids": [1, 2], "token_type_ids": [0]}"#;
        let error = read_as(pairs, ScoreTask::Sequence).expect_err("refused");
        assert!(error.contains("1 token_type_ids for 2 tokens"), "{error}");
        let choices = "{\"input_ids\": [[1], []]}\n{\"input_ids\": [1]}\n{\"input_ids\": [[1]], \"token_type_ids\": []}";
        let error = read_as(choices, ScoreTask::Choice).expect_err("refused");
        for part in [
            "choice 1 is empty",
            "choice 0 is no list",
            "not one list for each choice",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn rows_are_compared_with_the_model() {
        let rows = causal("[1, 9]\n[1, 2, 3]\n[1]").expect("rows");
        assert!(rows.check(limits(10, 3)).is_ok());
        let Err(failure) = rows.check(limits(9, 2)) else {
            panic!("refused")
        };
        let error = failure.chain()[0].clone();
        assert!(
            error.contains("token 9") && error.contains("3 tokens"),
            "{error}"
        );
        let text = "{\"input_ids\": [[1], [2]]}\n{\"input_ids\": [[1]], \"token_type_ids\": [[2]]}\n{\"input_ids\": [[1]]}";
        let rows = read_as(text, ScoreTask::Choice).expect("rows");
        let failure = rows.check(limits(9, 9)).expect_err("refused");
        let error = failure.chain()[0].clone();
        assert!(error.contains(":2: segment 2"), "{error}");
        assert!(
            error.contains(":3: 1 choices, and the first row has 2"),
            "{error}"
        );
    }
}
