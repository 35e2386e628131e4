//! Files to rows.

mod collect;
mod json;
mod lines;
#[cfg(feature = "parquet")]
mod parquet;
mod table;
mod text;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::columns::{ColumnNames, check_names};
use crate::error::DataError;
use crate::rows::{RowFormat, Rows};
use collect::Collector;

pub(crate) use lines::{parse_object, without_mark};

/// How files are read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadOptions {
    /// The format of the rows; without it, their columns tell.
    pub format: Option<RowFormat>,
    /// Columns of other names: ours, then the file's.
    pub columns: ColumnNames,
    /// What a row of a plain text is.
    pub text_rows: TextRows,
}

/// What a row of a plain text is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextRows {
    /// The lines between two blank ones.
    #[default]
    Paragraph,
    /// A line that is not blank.
    Line,
    /// The whole file.
    File,
}

/// What a file is, by its extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    JsonLines,
    Json,
    Table(u8),
    Parquet,
    Text,
}

impl FileKind {
    /// The extensions that are read.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        Some(match extension.as_str() {
            "jsonl" | "ndjson" => Self::JsonLines,
            "json" => Self::Json,
            "csv" => Self::Table(b','),
            "tsv" | "tab" => Self::Table(b'\t'),
            "parquet" => Self::Parquet,
            "txt" | "text" | "md" => Self::Text,
            _ => return None,
        })
    }
}

/// Reads a file of rows: JSONL, JSON, CSV, TSV, Parquet or plain text, by its extension; without one, JSONL.
///
/// The columns tell the format ([`RowFormat`]). Further columns are allowed. In JSONL, a byte-order mark, CRLF line ends
/// and blank lines at the end are accepted.
///
/// # Errors
///
/// [`DataError::Read`], [`DataError::BadFile`]; [`DataError::Rows`] with every row that is not of its format, or empty
/// where it must not be; [`DataError::MixedFormats`]; [`DataError::NoRows`].
pub fn read_rows(path: impl AsRef<Path>) -> Result<Rows, DataError> {
    read_files(&[path.as_ref().to_path_buf()], &ReadOptions::default())
}

/// Reads the rows of several files as one set.
///
/// # Errors
///
/// As [`read_rows`]; [`DataError::UnknownColumns`] for a mapping of columns that no format has.
pub fn read_files(paths: &[PathBuf], options: &ReadOptions) -> Result<Rows, DataError> {
    check_names(&options.columns)?;
    let mut collector = Collector::new(options);
    for path in paths {
        collector.file(path);
        match kind_of(path)? {
            FileKind::JsonLines => lines::read(path, &mut collector)?,
            FileKind::Json => json::read(path, &mut collector)?,
            FileKind::Table(delimiter) => table::read(path, delimiter, &mut collector)?,
            FileKind::Text => text::read(path, options.text_rows, &mut collector)?,
            #[cfg(feature = "parquet")]
            FileKind::Parquet => self::parquet::read(path, &mut collector)?,
            #[cfg(not(feature = "parquet"))]
            FileKind::Parquet => {
                return Err(DataError::NotBuilt { path: path.clone() });
            }
        }
    }
    collector.finish()
}

/// The kind of a file. One without an extension of ours is JSONL if it begins like that.
pub(crate) fn kind_of(path: &Path) -> Result<FileKind, DataError> {
    if let Some(kind) = FileKind::of(path) {
        return Ok(kind);
    }
    let mut reader = open(path)?;
    let start = reader
        .fill_buf()
        .map_err(|source| unreadable(path, source))?;
    let start = without_mark(start).trim_ascii_start();
    match start.first() {
        None | Some(b'{') => Ok(FileKind::JsonLines),
        _ => Err(DataError::UnknownFile { path: path.into() }),
    }
}

pub(crate) fn open(path: &Path) -> Result<BufReader<File>, DataError> {
    let file = File::open(path).map_err(|source| unreadable(path, source))?;
    Ok(BufReader::new(file))
}

pub(crate) fn unreadable(path: &Path, source: std::io::Error) -> DataError {
    DataError::Read {
        path: path.into(),
        source,
    }
}

/// A path that many rows share.
pub(crate) fn shared(path: &Path) -> Arc<Path> {
    path.into()
}

#[cfg(test)]
mod tests;
