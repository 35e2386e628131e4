//! Rows of a data set.

use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::fault::{Faults, RowFault};

/// One row of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// `{"prompt": .., "completion": ..}`: the completion is learned, the prompt is not.
    PromptCompletion {
        /// What is given.
        prompt: String,
        /// What is learned.
        completion: String,
    },
    /// `{"text": ..}`: all of it is learned.
    Text {
        /// What is learned.
        text: String,
    },
}

/// The format of all rows of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFormat {
    /// [`Row::PromptCompletion`].
    PromptCompletion,
    /// [`Row::Text`].
    Text,
}

impl Row {
    /// Which format the row has.
    pub fn format(&self) -> RowFormat {
        match self {
            Row::PromptCompletion { .. } => RowFormat::PromptCompletion,
            Row::Text { .. } => RowFormat::Text,
        }
    }

    /// The first text without a visible character.
    pub(crate) fn empty_text(&self) -> Option<RowFault> {
        let texts = match self {
            Row::PromptCompletion { prompt, completion } => {
                vec![("prompt", prompt), ("completion", completion)]
            }
            Row::Text { text } => vec![("text", text)],
        };
        texts
            .into_iter()
            .find(|(_, text)| text.trim().is_empty())
            .map(|(key, _)| RowFault::Empty(key))
    }
}

/// The rows of a file, each with its line, all of one format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    path: PathBuf,
    rows: Vec<(usize, Row)>,
}

impl Rows {
    /// Rows made in code; `path` and the place in the list stand for file and line in errors.
    ///
    /// # Errors
    ///
    /// As [`read_rows`](crate::read_rows), as far as they can occur.
    pub fn new(
        path: impl Into<PathBuf>,
        rows: impl IntoIterator<Item = Row>,
    ) -> Result<Self, DataError> {
        let path = path.into();
        let rows: Vec<(usize, Row)> = rows
            .into_iter()
            .enumerate()
            .map(|(index, row)| (index + 1, row))
            .collect();
        let mut faults = Faults::new(&path);
        for (line, row) in &rows {
            if let Some(fault) = row.empty_text() {
                faults.push(*line, fault);
            }
        }
        Self::checked(path, rows, faults)
    }

    pub(crate) fn checked(
        path: PathBuf,
        rows: Vec<(usize, Row)>,
        faults: Faults,
    ) -> Result<Self, DataError> {
        if !faults.is_empty() {
            return Err(DataError::Rows(faults));
        }
        let first = |format| {
            rows.iter()
                .find(|(_, row)| row.format() == format)
                .map(|(line, _)| *line)
        };
        match (first(RowFormat::PromptCompletion), first(RowFormat::Text)) {
            (Some(prompt_line), Some(text_line)) => Err(DataError::MixedFormats {
                path,
                prompt_line,
                text_line,
            }),
            (None, None) => Err(DataError::NoRows { path }),
            _ => Ok(Self { path, rows }),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many rows there are; never zero.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a file without rows is an error"
    )]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The format of every row.
    pub fn format(&self) -> RowFormat {
        self.rows[0].1.format()
    }

    /// One row.
    pub fn get(&self, index: usize) -> Option<&Row> {
        self.rows.get(index).map(|(_, row)| row)
    }

    /// The rows with their lines, counted from 1.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (usize, &Row)> {
        self.rows.iter().map(|(line, row)| (*line, row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(prompt: &str, completion: &str) -> Row {
        Row::PromptCompletion {
            prompt: prompt.into(),
            completion: completion.into(),
        }
    }

    #[test]
    fn rows_made_in_code_are_checked_alike() {
        let rows = Rows::new("made", [pair("a", "b"), pair("c", "d")]).unwrap();
        assert_eq!(
            rows.iter().map(|(line, _)| line).collect::<Vec<_>>(),
            [1, 2]
        );
        let error = Rows::new("made", [pair("a", "b"), pair("", "d")])
            .unwrap_err()
            .to_string();
        assert_eq!(error, "1 faulty row\n  made:2: \"prompt\" is empty");
        assert!(matches!(
            Rows::new("made", []),
            Err(DataError::NoRows { .. })
        ));
        let mixed = [pair("a", "b"), Row::Text { text: "c".into() }];
        assert!(matches!(
            Rows::new("made", mixed),
            Err(DataError::MixedFormats { .. })
        ));
    }
}
