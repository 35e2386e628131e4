//! JSON Lines.

use std::io::BufRead;
use std::path::Path;

use serde_json::Value;

use super::collect::Collector;
use super::{open, unreadable};
use crate::error::DataError;
use crate::fault::{Place, RowFault};
use crate::parse::{Object, type_of};

/// Reads an object from every line.
pub(super) fn read(path: &Path, collector: &mut Collector<'_>) -> Result<(), DataError> {
    // Blank lines are faults only if a row follows.
    let mut blank = Vec::new();
    for (index, line) in open(path)?.split(b'\n').enumerate() {
        let line = line.map_err(|source| unreadable(path, source))?;
        let text = if index == 0 {
            without_mark(&line)
        } else {
            &line
        };
        let place = Place::Line(index + 1);
        if text.trim_ascii().is_empty() {
            blank.push(place);
            continue;
        }
        for place in blank.drain(..) {
            collector.fault(place, RowFault::Blank);
        }
        collector.object(place, parse_object(text));
    }
    Ok(())
}

/// A line as an object.
pub(crate) fn parse_object(line: &[u8]) -> Result<Object, RowFault> {
    let text =
        std::str::from_utf8(line).map_err(|error| RowFault::NotUtf8(error.valid_up_to() + 1))?;
    let value = serde_json::from_str(text).map_err(|error| {
        // The parser's own "at line 1" would be read as a line of the file.
        let message = error.to_string();
        let what = message.split(" at line ").next().unwrap_or_default();
        RowFault::NotJson(format!("{what} at column {}", error.column()))
    })?;
    match value {
        Value::Object(object) => Ok(object),
        other => Err(RowFault::NotObject(type_of(&other))),
    }
}

/// Without the byte-order mark that some editors write first.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)
}
