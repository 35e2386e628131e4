//! Parquet.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;

use super::collect::Collector;
use super::unreadable;
use crate::error::DataError;
use crate::fault::{Place, RowFault};

/// Reads the rows of a Parquet file.
pub(super) fn read(path: &Path, collector: &mut Collector<'_>) -> Result<(), DataError> {
    let file = File::open(path).map_err(|source| unreadable(path, source))?;
    // The reader trusts the pages of a file; on a damaged one it may panic.
    let read = catch_unwind(AssertUnwindSafe(|| rows(file, collector)));
    let message = match read {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "its pages are damaged".to_string(),
    };
    Err(DataError::BadFile {
        path: path.into(),
        message,
    })
}

fn rows(file: File, collector: &mut Collector<'_>) -> Result<(), parquet::errors::ParquetError> {
    let reader = SerializedFileReader::new(file)?;
    let schema = reader.metadata().file_metadata().schema();
    let columns: Vec<String> = schema
        .get_fields()
        .iter()
        .map(|field| field.name().to_string())
        .collect();
    if !collector.accepts(&columns, Place::Row(1)) {
        return Ok(());
    }
    for (index, row) in reader.get_row_iter(None)?.enumerate() {
        let place = Place::Row(index + 1);
        let object = match row {
            Ok(row) => row.to_json_value(),
            Err(error) => {
                collector.fault(place, RowFault::Unreadable(error.to_string()));
                return Ok(());
            }
        };
        if let Value::Object(object) = object {
            collector.object(place, Ok(object));
        }
    }
    Ok(())
}
