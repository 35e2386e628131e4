//! Tables of text with a header.

use std::collections::BTreeSet;
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder};
use serde_json::Value;

use super::collect::Collector;
use super::{open, without_mark};
use crate::error::DataError;
use crate::fault::{Place, RowFault, quoted};
use crate::parse::Object;

/// Reads a CSV or TSV file, whose first record names the columns. Lists in a cell are written as JSON.
pub(super) fn read(
    path: &Path,
    delimiter: u8,
    collector: &mut Collector<'_>,
) -> Result<(), DataError> {
    let bad = |message: String| DataError::BadFile {
        path: path.into(),
        message,
    };
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .from_reader(open(path)?);
    let headers = reader
        .byte_headers()
        .map_err(|error| bad(error.to_string()))?;
    let mut columns = Vec::with_capacity(headers.len());
    for (index, name) in headers.iter().enumerate() {
        let name = if index == 0 { without_mark(name) } else { name };
        let Ok(name) = std::str::from_utf8(name) else {
            return Err(bad(format!(
                "the name of column {} is not UTF-8",
                index + 1
            )));
        };
        columns.push(name.trim().to_string());
    }
    if columns.iter().all(String::is_empty) {
        return Ok(());
    }
    let mut seen = BTreeSet::new();
    let twice: Vec<&String> = columns.iter().filter(|name| !seen.insert(*name)).collect();
    if !twice.is_empty() {
        return Err(bad(format!(
            "columns with the same name: {}",
            quoted(&twice)
        )));
    }
    collector.labels_are_text();
    if !collector.accepts(&columns, Place::Line(1)) {
        return Ok(());
    }
    let mut record = ByteRecord::new();
    loop {
        match reader.read_byte_record(&mut record) {
            Ok(true) => (),
            Ok(false) => return Ok(()),
            Err(error) => {
                let line = error.position().map_or(0, |position| position.line());
                collector.fault(
                    Place::Line(line as usize),
                    RowFault::Unreadable(error.to_string()),
                );
                return Ok(());
            }
        }
        let line = record.position().map_or(0, |position| position.line());
        collector.object(Place::Line(line as usize), object(&columns, &record));
    }
}

fn object(columns: &[String], record: &ByteRecord) -> Result<Object, RowFault> {
    if record.len() != columns.len() {
        return Err(RowFault::Fields {
            found: record.len(),
            expected: columns.len(),
        });
    }
    let cell = |(name, cell): (&String, &[u8])| match std::str::from_utf8(cell) {
        Ok(text) => Ok((name.clone(), Value::String(text.into()))),
        Err(error) => Err(RowFault::Value {
            at: name.clone(),
            found: format!("is not UTF-8 from byte {}", error.valid_up_to() + 1),
            expected: "UTF-8".into(),
        }),
    };
    columns.iter().zip(record).map(cell).collect()
}
