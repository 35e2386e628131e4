//! Rows of a data set.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::fault::{Faults, Place, RowFault};
use crate::label::Label;
use crate::message::Chat;

/// One row of a data set.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
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
    /// A conversation, of which the assistant's turns are learned. Rows of `messages`, of `conversations`, of
    /// `instruction` and `output`, and of `prompt` and `completion` as message lists become it.
    Chat(Chat),
    /// A text or two with a label.
    Classification {
        /// The text.
        text: String,
        /// The second text, for tasks on pairs.
        text_pair: Option<String>,
        /// Its class or value.
        label: Label,
    },
    /// Words with a tag each.
    Tagging {
        /// The words.
        tokens: Vec<String>,
        /// One for each.
        tags: Vec<Label>,
    },
    /// Two answers to a prompt, of which one is preferred.
    Preference {
        /// What is given.
        prompt: String,
        /// The better answer.
        chosen: String,
        /// The worse answer.
        rejected: String,
    },
    /// Two continuations of a conversation, of which one is preferred.
    ChatPreference {
        /// The conversation up to where they part, then the better one.
        chosen: Chat,
        /// The same beginning, then the worse one.
        rejected: Chat,
    },
}

/// The columns of the rows of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RowFormat {
    /// `prompt` and `completion`, strings or lists of messages.
    PromptCompletion,
    /// `text`.
    Text,
    /// `messages` of `role` and `content`, as in OpenAI's interface; with `tools`, if any.
    Messages,
    /// `instruction`, `input`, `output`, `system`, `history`.
    Alpaca,
    /// `conversations` of `from` and `value`; with `system` and `tools`, if any.
    Sharegpt,
    /// `text`, perhaps `text_pair`, and `label`.
    Classification,
    /// `tokens` and `tags`.
    Tagging,
    /// `prompt`, `chosen` and `rejected`.
    Preference,
}

/// A row and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Placed {
    pub(crate) file: usize,
    pub(crate) place: Place,
    pub(crate) row: Row,
}

/// The rows of one or several files, each with its place, all of one format.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    files: Vec<Arc<Path>>,
    rows: Vec<Placed>,
    format: RowFormat,
}

impl Row {
    /// Which format the row has. A conversation is [`RowFormat::Messages`], whatever it was read from.
    pub fn format(&self) -> RowFormat {
        match self {
            Self::PromptCompletion { .. } => RowFormat::PromptCompletion,
            Self::Text { .. } => RowFormat::Text,
            Self::Chat(_) => RowFormat::Messages,
            Self::Classification { .. } => RowFormat::Classification,
            Self::Tagging { .. } => RowFormat::Tagging,
            Self::Preference { .. } | Self::ChatPreference { .. } => RowFormat::Preference,
        }
    }

    /// Whether a chat template writes it down.
    pub fn is_chat(&self) -> bool {
        matches!(self, Self::Chat(_) | Self::ChatPreference { .. })
    }

    /// The first text without a visible character.
    pub(crate) fn empty_text(&self) -> Option<RowFault> {
        let texts = match self {
            Self::PromptCompletion { prompt, completion } => {
                vec![("prompt", prompt), ("completion", completion)]
            }
            Self::Text { text } | Self::Classification { text, .. } => vec![("text", text)],
            Self::Preference {
                prompt,
                chosen,
                rejected,
            } => vec![
                ("prompt", prompt),
                ("chosen", chosen),
                ("rejected", rejected),
            ],
            Self::Chat(_) | Self::Tagging { .. } | Self::ChatPreference { .. } => Vec::new(),
        };
        texts
            .into_iter()
            .find(|(_, text)| text.trim().is_empty())
            .map(|(key, _)| RowFault::Empty(key))
    }
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
        let path: Arc<Path> = path.into().into();
        let mut faults = Faults::new(&path);
        let mut placed: Vec<Placed> = Vec::new();
        for (index, row) in rows.into_iter().enumerate() {
            let place = Place::Line(index + 1);
            if let Some(fault) = row.empty_text() {
                faults.push(&path, place, fault);
            }
            placed.push(Placed {
                file: 0,
                place,
                row,
            });
        }
        if !faults.is_empty() {
            return Err(DataError::Rows(faults));
        }
        let Some(first) = placed.first() else {
            return Err(DataError::NoRows {
                path: path.to_path_buf(),
            });
        };
        let format = first.row.format();
        if let Some(other) = placed.iter().find(|placed| placed.row.format() != format) {
            let at = |place: Place| format!("{}:{place}", path.display());
            return Err(DataError::MixedFormats {
                first: format,
                first_place: at(first.place),
                other: other.row.format(),
                other_place: at(other.place),
            });
        }
        Ok(Self::from_parts(vec![path], placed, format))
    }

    pub(crate) fn from_parts(files: Vec<Arc<Path>>, rows: Vec<Placed>, format: RowFormat) -> Self {
        Self {
            files,
            rows,
            format,
        }
    }

    /// The file, or the first of several.
    pub fn path(&self) -> &Path {
        &self.files[0]
    }

    /// All files.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.files.iter().map(|path| &**path)
    }

    /// How many rows there are; never zero.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a file without rows is an error"
    )]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The format that the rows were read from.
    pub fn format(&self) -> RowFormat {
        self.format
    }

    /// One row.
    pub fn get(&self, index: usize) -> Option<&Row> {
        self.rows.get(index).map(|placed| &placed.row)
    }

    /// The rows with their lines, or their places in a file without lines, counted from 1.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (usize, &Row)> {
        self.rows
            .iter()
            .map(|placed| (placed.place.number(), &placed.row))
    }

    /// The file of a row and its place there.
    pub fn place(&self, index: usize) -> Option<(&Path, Place)> {
        let placed = self.rows.get(index)?;
        Some((&self.files[placed.file], placed.place))
    }

    /// The first `count` rows.
    pub fn truncate(&mut self, count: usize) {
        self.rows.truncate(count.max(1));
    }

    pub(crate) fn placed(&self) -> &[Placed] {
        &self.rows
    }

    pub(crate) fn file_of(&self, placed: &Placed) -> &Arc<Path> {
        &self.files[placed.file]
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
        let error = Rows::new("made", mixed).unwrap_err().to_string();
        assert_eq!(
            error,
            "rows of several formats: made:1 has \"prompt\" and \"completion\", made:2 has \"text\""
        );
    }
}
