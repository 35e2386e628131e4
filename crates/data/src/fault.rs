//! What can be wrong with one row, and the list of all that is wrong with a file.

use std::fmt;
use std::path::{Path, PathBuf};

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
    /// Neither format's keys.
    #[error("{0}")]
    NoFormat(NoFormat),
    /// The keys of both formats.
    #[error("has \"text\" beside {0}: a row is either \"prompt\" and \"completion\", or \"text\"")]
    BothFormats(String),
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
    /// The keys that are missing.
    pub missing: Vec<&'static str>,
    /// The keys found, in the order of the file.
    pub found: Vec<String>,
    /// Found keys that look like a missing one: `(found, meant)`.
    pub meant: Vec<(String, &'static str)>,
}

impl fmt::Display for NoFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.missing.as_slice() {
            [key] => write!(f, "\"{key}\" is missing")?,
            _ => write!(f, "neither \"prompt\" and \"completion\" nor \"text\"")?,
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

/// A fault and the line that it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineFault {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: RowFault,
}

/// Every faulty line of a file: the first ones in full, all of them counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// The file.
    pub path: PathBuf,
    /// How many lines are faulty.
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
    pub(crate) fn push(&mut self, line: usize, fault: RowFault) {
        self.total += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(LineFault { line, fault });
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
        for LineFault { line, fault } in &self.shown {
            write!(f, "\n  {}:{line}: {fault}", self.path.display())?;
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
        let mut faults = Faults::new(Path::new("a.jsonl"));
        for line in 1..=23 {
            faults.push(line, RowFault::Empty("text"));
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
