//! Rows of files that do not fit in memory.

mod examples;
mod records;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::columns::{check_names, detect, rename};
use crate::error::DataError;
use crate::fault::{Faults, Place, RowFault};
use crate::parse::parse;
use crate::read::{FileKind, ReadOptions, TextRows, kind_of, parse_object, shared};
use crate::rows::{Row, RowFormat};
use crate::shuffle::{below, generator};
pub use examples::{ExampleStream, ExampleStreamState};
use records::{Position, Record, Records};

/// How rows are streamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamOptions {
    /// How they are read.
    pub read: ReadOptions,
    /// Rows in memory, of which the next is drawn; 1 keeps the order of the files.
    pub buffer: usize,
    /// The seed of the draws.
    pub seed: u64,
    /// How many times the files are read; without end if not given.
    pub epochs: Option<u64>,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            read: ReadOptions::default(),
            buffer: 10_000,
            seed: 0,
            epochs: None,
        }
    }
}

/// A row of a stream, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamRow {
    /// The file.
    pub path: Arc<Path>,
    /// The line.
    pub place: Place,
    /// The row.
    pub row: Row,
}

/// Where a stream stands: with the same files it determines every row to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamState {
    seed: u64,
    epoch: u64,
    /// Rows drawn in this epoch.
    drawn: u64,
    /// The next record to be read.
    next: Position,
    /// The records in the buffer, in its order.
    buffer: Vec<Position>,
    format: Option<RowFormat>,
    /// The sizes of the files, in bytes.
    sizes: Vec<u64>,
}

/// Rows of JSONL and text files, epoch after epoch, drawn from a buffer that holds a part of them.
///
/// Each epoch has an order of its own; a row is drawn once in each. The files are read once per epoch, from front to
/// back, and must not change meanwhile.
#[derive(Debug)]
pub struct RowStream {
    options: StreamOptions,
    files: Vec<Arc<Path>>,
    sizes: Vec<u64>,
    records: Records,
    buffer: Vec<Record>,
    epoch: u64,
    drawn: u64,
    format: Option<RowFormat>,
    is_done: bool,
}

impl RowStream {
    /// Begins with the first epoch.
    ///
    /// # Errors
    ///
    /// [`DataError::Read`]; [`DataError::UnknownFile`] for files of other kinds than JSONL and text;
    /// [`DataError::BadOption`] for an empty buffer or no file; [`DataError::UnknownColumns`].
    pub fn open(files: &[PathBuf], options: StreamOptions) -> Result<Self, DataError> {
        check_names(&options.read.columns)?;
        for (option, count) in [
            ("buffer", options.buffer),
            ("the number of files", files.len()),
        ] {
            if count == 0 {
                return Err(DataError::BadOption {
                    option,
                    value: "0".into(),
                    expected: "at least 1",
                });
            }
        }
        let mut kinds = Vec::with_capacity(files.len());
        let mut sizes = Vec::with_capacity(files.len());
        for path in files {
            kinds.push(match kind_of(path)? {
                FileKind::JsonLines => None,
                FileKind::Text => Some(options.read.text_rows),
                _ => {
                    return Err(DataError::BadFile {
                        path: path.clone(),
                        message: "only JSONL and text can be streamed".into(),
                    });
                }
            });
            let size = std::fs::metadata(path).map(|metadata| metadata.len());
            sizes.push(size.map_err(|source| DataError::Read {
                path: path.clone(),
                source,
            })?);
        }
        let files: Vec<Arc<Path>> = files.iter().map(|path| shared(path)).collect();
        Ok(Self {
            records: Records::new(files.clone(), kinds),
            format: options.read.format,
            options,
            files,
            sizes,
            buffer: Vec::new(),
            epoch: 0,
            drawn: 0,
            is_done: false,
        })
    }

    /// Where the stream stands.
    pub fn state(&self) -> StreamState {
        StreamState {
            seed: self.options.seed,
            epoch: self.epoch,
            drawn: self.drawn,
            next: self.records.position(),
            buffer: self.buffer.iter().map(|record| record.position).collect(),
            format: self.format,
            sizes: self.sizes.clone(),
        }
    }

    /// Goes on from `state`: the next row is the one that would have followed when it was saved.
    ///
    /// # Errors
    ///
    /// [`DataError::BadState`] for a state of other files, or of another buffer; [`DataError::Read`].
    pub fn restore(&mut self, state: &StreamState) -> Result<(), DataError> {
        let mut faults = Vec::new();
        if state.sizes != self.sizes {
            faults.push("the files have other sizes".to_string());
        }
        if state.buffer.len() > self.options.buffer {
            faults.push(format!(
                "{} rows were in its buffer, here are at most {}",
                state.buffer.len(),
                self.options.buffer
            ));
        }
        if !faults.is_empty() {
            return Err(DataError::BadState(faults.join("; ")));
        }
        let mut buffer = Vec::with_capacity(state.buffer.len());
        for position in &state.buffer {
            self.records.seek(*position)?;
            let Some(record) = self.records.next_record()? else {
                let fault = "a row of its buffer is not where it was";
                return Err(DataError::BadState(fault.into()));
            };
            buffer.push(record);
        }
        self.records.seek(state.next)?;
        self.options.seed = state.seed;
        self.buffer = buffer;
        self.epoch = state.epoch;
        self.drawn = state.drawn;
        self.format = state.format;
        self.is_done = false;
        Ok(())
    }

    /// The epoch of the next row, from zero.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    fn draw(&mut self) -> Result<Option<StreamRow>, DataError> {
        loop {
            if self
                .options
                .epochs
                .is_some_and(|epochs| self.epoch >= epochs)
            {
                return Ok(None);
            }
            while self.buffer.len() < self.options.buffer {
                match self.records.next_record()? {
                    Some(record) => self.buffer.push(record),
                    None => break,
                }
            }
            if !self.buffer.is_empty() {
                break;
            }
            if self.drawn == 0 {
                return Err(DataError::NoRows {
                    path: self.files[0].to_path_buf(),
                });
            }
            self.epoch += 1;
            self.drawn = 0;
            self.records.rewind();
        }
        // A place of its own in the generator for each draw, so that none depends on how many numbers others took.
        let mut rng = generator(self.options.seed, self.epoch);
        rng.set_word_pos(u128::from(self.drawn) * 16);
        let at = below(self.buffer.len() as u64, &mut rng) as usize;
        let record = self.buffer.swap_remove(at);
        self.drawn += 1;
        let path = self.files[record.position.file].clone();
        let place = Place::Line(record.position.line);
        match self.row(&record) {
            Ok(row) => Ok(Some(StreamRow { path, place, row })),
            Err(fault) => {
                let mut faults = Faults::new(&path);
                faults.push(&path, place, fault);
                Err(DataError::Rows(faults))
            }
        }
    }

    fn row(&mut self, record: &Record) -> Result<Row, RowFault> {
        if record.is_text {
            let text = std::str::from_utf8(&record.bytes)
                .map_err(|error| RowFault::NotUtf8(error.valid_up_to() + 1))?;
            return Ok(Row::Text { text: text.into() });
        }
        let mut object = parse_object(&record.bytes)?;
        rename(&mut object, &self.options.read.columns)?;
        let format = match self.format {
            Some(format) => match detect(&object, Some(format))? {
                found if found == format => format,
                other => return Err(RowFault::SeveralFormats(vec![format, other])),
            },
            None => detect(&object, None)?,
        };
        let row = parse(object, format)?;
        self.format = Some(format);
        Ok(row)
    }
}

impl Iterator for RowStream {
    type Item = Result<StreamRow, DataError>;

    /// The next row. A faulty row is an error after which the stream goes on; a file that cannot be read ends it.
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let next = self.draw();
        self.is_done = !matches!(next, Ok(Some(_)) | Err(DataError::Rows(_)));
        next.transpose()
    }
}

/// What a text file is divided into; nothing for JSONL.
pub(crate) type TextKind = Option<TextRows>;
