//! The tokens to score.

use std::fs;
use std::path::Path;

use burn_lora::data::{DataError, Row, Tokenizer, read_rows};
use serde_json::Value;

use super::Input;
use crate::failure::{Failure, Kind};

/// How many faulty rows an error shows.
const SHOWN: usize = 20;

/// Rows of token ids.
#[derive(Debug)]
pub struct Rows {
    ids: Vec<Vec<u32>>,
    /// Where each stands in its file, for errors.
    places: Vec<String>,
    /// The rows that an embedding needs for the tokenizer that made them, if one did.
    tokens: Option<usize>,
}

impl Rows {
    /// Reads the file that the options name, by the tokenizer in `folder` where it holds texts.
    pub fn read(input: &Input, folder: &Path) -> Result<Self, Failure> {
        match (&input.data, &input.ids) {
            (Some(path), _) => Self::of_texts(path, folder),
            (None, Some(path)) => Self::of_ids(path),
            // Either is required.
            (None, None) => Err(Failure::new(Kind::Usage, "neither --data nor --ids")),
        }
    }

    fn of_texts(path: &Path, folder: &Path) -> Result<Self, Failure> {
        let tokenizer = Tokenizer::from_folder(folder)?;
        let texts = read_rows(path)?;
        let mut rows = Self::empty();
        rows.tokens = Some(tokenizer.embedding_rows());
        let mut faults = Vec::new();
        for (line, row) in texts.iter() {
            let place = format!("{}:{line}", path.display());
            match encode(row, &tokenizer) {
                Ok(ids) if ids.is_empty() => faults.push(format!("{place}: gives no token")),
                Ok(ids) => rows.push(ids, place),
                Err(error) => faults.push(format!("{place}: {error}")),
            }
        }
        rows.unless(faults)
    }

    fn of_ids(path: &Path) -> Result<Self, Failure> {
        let cannot = |error: String| {
            Failure::new(
                Kind::Data,
                format!("cannot read {}: {error}", path.display()),
            )
        };
        let text = fs::read_to_string(path).map_err(|error| cannot(error.to_string()))?;
        let mut rows = Self::empty();
        let mut faults = Vec::new();
        // One JSON value is a list of rows; one for each line are the rows.
        let whole: Option<Vec<Value>> = serde_json::from_str(&text).ok();
        let is_list = |whole: &Vec<Value>| whole.iter().all(|row| !row.is_u64());
        let values: Vec<(String, Result<Value, String>)> = match whole.filter(is_list) {
            Some(list) => (1..)
                .zip(list)
                .map(|(row, value)| (format!("{}, row {row}", path.display()), Ok(value)))
                .collect(),
            None => (1..)
                .zip(text.lines())
                .filter(|(_, line)| !line.trim().is_empty())
                .map(|(number, line)| {
                    let value = serde_json::from_str(line).map_err(|error| error.to_string());
                    (format!("{}:{number}", path.display()), value)
                })
                .collect(),
        };
        for (place, value) in values {
            match value.and_then(|value| ids(&value)) {
                Ok(ids) => rows.push(ids, place),
                Err(error) => faults.push(format!("{place}: {error}")),
            }
        }
        if faults.is_empty() && rows.ids.is_empty() {
            return Err(Failure::new(
                Kind::Data,
                format!("{} has no row", path.display()),
            ));
        }
        rows.unless(faults)
    }

    fn empty() -> Self {
        Self {
            ids: Vec::new(),
            places: Vec::new(),
            tokens: None,
        }
    }

    fn push(&mut self, ids: Vec<u32>, place: String) {
        self.ids.push(ids);
        self.places.push(place);
    }

    fn unless(self, faults: Vec<String>) -> Result<Self, Failure> {
        if faults.is_empty() {
            return Ok(self);
        }
        let mut text = format!("{} faulty rows", faults.len());
        for fault in faults.iter().take(SHOWN) {
            text.push_str(&format!("\n  {fault}"));
        }
        if let Some(more) = faults.len().checked_sub(SHOWN + 1) {
            text.push_str(&format!("\n  and {} more", more + 1));
        }
        Err(Failure::new(Kind::Data, text))
    }

    /// Keeps the first rows.
    pub fn limit(&mut self, rows: Option<u64>) {
        let rows = rows.map_or(usize::MAX, |rows| {
            usize::try_from(rows).unwrap_or(usize::MAX)
        });
        self.ids.truncate(rows);
        self.places.truncate(rows);
    }

    /// Cuts rows at the end.
    pub fn cut(&mut self, tokens: Option<u64>) {
        let tokens = tokens.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        for ids in &mut self.ids {
            ids.truncate(tokens);
        }
    }

    /// Whether a model knows every token, and has a position for it.
    pub fn check(&self, vocab_size: usize, max_positions: usize) -> Result<(), Failure> {
        let fault = |ids: &Vec<u32>| {
            if let Some(id) = ids.iter().find(|id| **id as usize >= vocab_size) {
                return Some(format!(
                    "token {id}, and the model knows those below {vocab_size}"
                ));
            }
            let length = ids.len();
            (length > max_positions).then(|| {
                format!("{length} tokens, and the model has {max_positions} positions (--max-length cuts)")
            })
        };
        let rows = self.ids.iter().zip(&self.places);
        let faults = rows.filter_map(|(ids, place)| Some(format!("{place}: {}", fault(ids)?)));
        let faults: Vec<String> = faults.collect();
        Self::empty().unless(faults).map(|_| ())
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Tokens of the longest row.
    pub fn longest(&self) -> usize {
        self.ids.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// The rows that an embedding needs for the tokenizer.
    pub fn tokens(&self) -> Option<usize> {
        self.tokens
    }

    /// The rows.
    pub fn ids(&self) -> &[Vec<u32>] {
        &self.ids
    }
}

/// What Transformers' tokenizer makes of a text: its bos where it wants one, and no end of sequence.
fn encode(row: &Row, tokenizer: &Tokenizer) -> Result<Vec<u32>, DataError> {
    match row {
        Row::Text { text } => tokenizer.encode_prompt(text),
        Row::PromptCompletion { prompt, completion } => {
            let mut ids = tokenizer.encode_prompt(prompt)?;
            ids.extend(tokenizer.encode_completion(completion)?);
            Ok(ids)
        }
        other => Err(DataError::WrongFormat {
            format: other.format(),
            wanted: "scored; name texts, or prompts with completions",
        }),
    }
}

/// The ids of `[1, 2]` or of `{"input_ids": [1, 2]}`.
fn ids(value: &Value) -> Result<Vec<u32>, String> {
    let list = value.get("input_ids").unwrap_or(value);
    let list = list
        .as_array()
        .ok_or("neither a list of ids nor an object with \"input_ids\"")?;
    if list.is_empty() {
        return Err("the row is empty".into());
    }
    let id = |(at, value): (usize, &Value)| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| format!("{value} at place {at} is no token id"))
    };
    list.iter().enumerate().map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Rows, String> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("written");
        Rows::of_ids(file.path()).map_err(|failure| failure.chain()[0].clone())
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
            assert_eq!(read(text).expect(text).ids, expected, "{text}");
        }
        assert_eq!(read("[1, 2]").expect("one row").ids, [vec![1, 2]]);
    }

    #[test]
    fn every_faulty_row_is_named() {
        let error = read("[1]\n[]\n[-1]\nx\n{\"ids\": [1]}\n[4294967296]").expect_err("refused");
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
        assert!(read("").expect_err("refused").ends_with("has no row"));
        assert!(read("[]").expect_err("refused").ends_with("has no row"));
    }

    #[test]
    fn rows_are_compared_with_the_model() {
        let rows = read("[1, 9]\n[1, 2, 3]\n[1]").expect("rows");
        assert!(rows.check(10, 3).is_ok());
        let Err(failure) = rows.check(9, 2) else {
            panic!("refused")
        };
        let error = failure.chain()[0].clone();
        assert!(
            error.contains("token 9") && error.contains("3 tokens"),
            "{error}"
        );
    }
}
