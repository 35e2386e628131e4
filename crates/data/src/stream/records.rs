//! The records of files, one after the other, with a place to come back to.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::TextKind;
use crate::error::DataError;
use crate::read::{TextRows, open, unreadable, without_mark};

/// Where a record begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(super) file: usize,
    pub(super) byte: u64,
    /// Counted from 1.
    pub(super) line: usize,
}

/// The bytes of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(super) position: Position,
    pub(super) bytes: Vec<u8>,
    pub(super) is_text: bool,
}

#[derive(Debug)]
pub(crate) struct Records {
    files: Vec<Arc<Path>>,
    kinds: Vec<TextKind>,
    at: Position,
    reader: Option<BufReader<File>>,
}

const START: Position = Position {
    file: 0,
    byte: 0,
    line: 1,
};

impl Records {
    pub(super) fn new(files: Vec<Arc<Path>>, kinds: Vec<TextKind>) -> Self {
        Self {
            files,
            kinds,
            at: START,
            reader: None,
        }
    }

    /// Where the next record is looked for.
    pub(super) fn position(&self) -> Position {
        self.at
    }

    pub(super) fn rewind(&mut self) {
        self.at = START;
        self.reader = None;
    }

    pub(super) fn seek(&mut self, position: Position) -> Result<(), DataError> {
        if position.file > self.files.len() {
            return Err(DataError::BadState(
                "it is in a file that is not there".into(),
            ));
        }
        if self.reader.is_none() || position.file != self.at.file {
            self.reader = None;
            self.at = position;
            return Ok(());
        }
        self.at = position;
        let path = self.files[position.file].clone();
        if let Some(reader) = &mut self.reader {
            let moved = reader.seek(SeekFrom::Start(position.byte));
            moved.map_err(|source| unreadable(&path, source))?;
        }
        Ok(())
    }

    /// The next record; nothing after the last of the last file.
    pub(super) fn next_record(&mut self) -> Result<Option<Record>, DataError> {
        while self.at.file < self.files.len() {
            if let Some(record) = self.within_file()? {
                return Ok(Some(record));
            }
            self.at = Position {
                file: self.at.file + 1,
                ..START
            };
            self.reader = None;
        }
        Ok(None)
    }

    fn within_file(&mut self) -> Result<Option<Record>, DataError> {
        let kind = self.kinds[self.at.file];
        let mut first = self.at;
        let mut bytes: Vec<u8> = Vec::new();
        // The length up to the last line that is not blank.
        let mut full = 0;
        while let Some(line) = self.line()? {
            let is_blank = line.trim_ascii().is_empty();
            if bytes.is_empty() && is_blank {
                first = self.at;
                continue;
            }
            if is_blank && kind != Some(TextRows::File) {
                break;
            }
            if !bytes.is_empty() {
                bytes.push(b'\n');
            }
            bytes.extend_from_slice(&line);
            full = if is_blank { full } else { bytes.len() };
            if matches!(kind, None | Some(TextRows::Line)) {
                break;
            }
        }
        bytes.truncate(full);
        let record = Record {
            position: first,
            bytes,
            is_text: kind.is_some(),
        };
        Ok((full > 0).then_some(record))
    }

    /// The next line of the file, without its end.
    fn line(&mut self) -> Result<Option<Vec<u8>>, DataError> {
        let path = self.files[self.at.file].clone();
        let failed = |source| unreadable(&path, source);
        if self.reader.is_none() {
            let mut reader = open(&path)?;
            reader.seek(SeekFrom::Start(self.at.byte)).map_err(failed)?;
            self.reader = Some(reader);
        }
        let mut line = Vec::new();
        let read = match &mut self.reader {
            Some(reader) => reader.read_until(b'\n', &mut line).map_err(failed)?,
            None => 0,
        };
        if read == 0 {
            return Ok(None);
        }
        let is_first = self.at.byte == 0;
        self.at.byte += read as u64;
        self.at.line += 1;
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let text = if is_first { without_mark(text) } else { text };
        Ok(Some(text.to_vec()))
    }
}
