//! What can be wrong with one row, and the list of all that is wrong with a data set.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::rows::RowFormat;

/// How many faulty lines a message shows; all of them are counted.
const SHOWN: usize = 20;

/// What is wrong with one row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowFault {
    /// A blank line with rows after it.
    #[error("the line is blank, with more rows after it")]
    Blank,
    /// Bytes that are no UTF-8.
    #[error("not UTF-8 from byte {0} of the line")]
    NotUtf8(usize),
    /// Not JSON; the message is the parser's.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// JSON, but not an object.
    #[error("{0}, not a JSON object")]
    NotObject(&'static str),
    /// A record of a table with too few or too many fields.
    #[error("the record has {found} fields, the header has {expected}")]
    Fields {
        /// Fields of the record.
        found: usize,
        /// Fields of the header.
        expected: usize,
    },
    /// A table that cannot be read on from here; the message is the reader's.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The keys of no format.
    #[error("{0}")]
    NoFormat(NoFormat),
    /// The keys of several formats.
    #[error(
        "has the columns of {}: name the format that is meant (`format: {}`)",
        .0.iter().map(|format| format.columns()).collect::<Vec<_>>().join(", and of "),
        .0.first().map_or("", |format| format.name())
    )]
    SeveralFormats(Vec<RowFormat>),
    /// A column that the mapping names and the row does not have.
    #[error(
        "the column \"{column}\", mapped to \"{ours}\", is missing; the row has {found}{meant}"
    )]
    MissingColumn {
        /// What the mapping names.
        column: String,
        /// What it stands for.
        ours: String,
        /// The columns found.
        found: String,
        /// The nearest of them, in words.
        meant: String,
    },
    /// A value inside a row that is not what it should be.
    #[error("\"{at}\" {found}; it must be {expected}")]
    Value {
        /// Where it is: `messages[2].role`.
        at: String,
        /// What is there, in words.
        found: String,
        /// What should be there.
        expected: String,
    },
    /// Tokens and tags of different number.
    #[error("{tokens} tokens, but {tags} tags")]
    TagCount {
        /// Tokens.
        tokens: usize,
        /// Tags.
        tags: usize,
    },
    /// A conversation without a turn to learn.
    #[error("no message is from the assistant, so nothing can be learned")]
    NoAssistant,
    /// The chat template refused the row or failed on it.
    #[error("the chat template: {0}")]
    Template(String),
    /// A chat template whose rendering of the first messages is not the beginning of the rendering of all.
    #[error(
        "the chat template renders the conversation up to message {message} otherwise than it begins in the whole, so \
         that the assistant's words cannot be found: mark them with {{% generation %}} in the template, or learn the \
         last turn only (`learn: last_turn`)"
    )]
    NotPrefixStable {
        /// The assistant's message, counted from 1.
        message: usize,
    },
    /// A value that should be a string.
    #[error("\"{key}\" is {found}, not a string")]
    WrongType {
        /// The key.
        key: &'static str,
        /// The JSON type found.
        found: &'static str,
    },
    /// A value without a visible character.
    #[error("\"{0}\" is empty")]
    Empty(&'static str),
    /// The tokenizer refused the text; the message is its own.
    #[error("\"{key}\" cannot be tokenized: {message}")]
    Tokenize {
        /// The key.
        key: &'static str,
        /// The tokenizer's message.
        message: String,
    },
    /// The tokenizer made nothing of the text.
    #[error("\"{0}\" gives no token")]
    NoToken(&'static str),
    /// Longer than allowed, under [`Truncation::Refuse`](crate::Truncation::Refuse).
    #[error("{tokens} tokens, more than the {max_len} allowed")]
    TooLong {
        /// Tokens in the whole row.
        tokens: usize,
        /// The limit.
        max_len: usize,
    },
    /// The cut left only the prompt.
    #[error("the prompt alone has {prompt} tokens: cut to {max_len}, no token is left to learn")]
    NothingToLearn {
        /// Tokens in the prompt.
        prompt: usize,
        /// The limit.
        max_len: usize,
    },
}

/// The keys of a row that fits no format, and what it may have meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoFormat {
    /// The format that the keys come nearest to, if they come near one.
    pub nearest: Option<RowFormat>,
    /// The keys that are missing for it; of all formats, where none is near.
    pub missing: Vec<&'static str>,
    /// The keys found, in the order of the file.
    pub found: Vec<String>,
    /// Found keys that look like a missing one: `(found, meant)`.
    pub meant: Vec<(String, &'static str)>,
}

impl fmt::Display for NoFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nearest {
            Some(format) => {
                let verb = if self.missing.len() == 1 { "is" } else { "are" };
                write!(f, "{} {verb} missing", quoted(&self.missing))?;
                write!(f, " for a row of {}", format.columns())?;
            }
            None => write!(f, "the columns of no known format")?,
        }
        match self.found.is_empty() {
            true => write!(f, "; the row has no key")?,
            false => write!(f, "; the row has {}", quoted(&self.found))?,
        }
        for (found, meant) in &self.meant {
            write!(f, "; \"{found}\" looks like \"{meant}\"")?;
        }
        Ok(())
    }
}

/// Where a row stands in its file, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The line, or the first line of it.
    Line(usize),
    /// The place among the rows of a file without lines.
    Row(usize),
}

impl Place {
    /// The number alone.
    pub fn number(self) -> usize {
        match self {
            Self::Line(number) | Self::Row(number) => number,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "{line}"),
            Self::Row(row) => write!(f, "row {row}"),
        }
    }
}

/// A fault and the row that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineFault {
    /// The file.
    pub path: Arc<Path>,
    /// The row.
    pub place: Place,
    /// What is wrong with it.
    pub fault: RowFault,
}

/// Every faulty row of a data set: the first ones in full, all of them counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// The first file.
    pub path: PathBuf,
    /// How many rows are faulty.
    pub total: usize,
    /// The first of them.
    pub shown: Vec<LineFault>,
}

impl Faults {
    /// An empty list for `path`.
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            total: 0,
            shown: Vec::new(),
        }
    }

    /// Counts a fault, and keeps it if there is room.
    pub(crate) fn push(&mut self, path: &Arc<Path>, place: Place, fault: RowFault) {
        self.total += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(LineFault {
                path: path.clone(),
                place,
                fault,
            });
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = if self.total == 1 { "row" } else { "rows" };
        write!(f, "{} faulty {rows}", self.total)?;
        for LineFault { path, place, fault } in &self.shown {
            write!(f, "\n  {}:{place}: {fault}", path.display())?;
        }
        match self.total - self.shown.len() {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// `"a", "b"`, at most ten of them.
pub(crate) fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    let mut list: Vec<String> = names
        .iter()
        .take(10)
        .map(|n| format!("\"{}\"", n.as_ref()))
        .collect();
    if names.len() > 10 {
        list.push("...".to_string());
    }
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_first_and_counts_all() {
        let path: Arc<Path> = Path::new("a.jsonl").into();
        let mut faults = Faults::new(&path);
        for line in 1..=23 {
            faults.push(&path, Place::Line(line), RowFault::Empty("text"));
        }
        let message = faults.to_string();
        assert!(
            message.starts_with("23 faulty rows\n  a.jsonl:1: \"text\" is empty\n"),
            "{message}"
        );
        assert!(
            message.ends_with("a.jsonl:20: \"text\" is empty\n  and 3 more"),
            "{message}"
        );
    }
}
