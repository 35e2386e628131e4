//! A list of objects as one JSON value.

use std::path::Path;

use serde_json::Value;

use super::collect::Collector;
use super::{lines, unreadable, without_mark};
use crate::error::DataError;
use crate::fault::{Place, RowFault};
use crate::parse::type_of;

/// Reads a file that is a list of objects, or JSON Lines under the wrong name, as many are.
pub(super) fn read(path: &Path, collector: &mut Collector<'_>) -> Result<(), DataError> {
    let bytes = std::fs::read(path).map_err(|source| unreadable(path, source))?;
    let content = without_mark(&bytes).trim_ascii_start();
    if content.first() == Some(&b'{') {
        return lines::read(path, collector);
    }
    let bad = |message: String| DataError::BadFile {
        path: path.into(),
        message,
    };
    if content.is_empty() {
        return Ok(());
    }
    let list = match serde_json::from_slice(without_mark(&bytes)) {
        Ok(Value::Array(list)) => list,
        Ok(other) => {
            return Err(bad(format!(
                "it is {}, not a list of objects",
                type_of(&other)
            )));
        }
        Err(error) => return Err(bad(format!("not JSON: {error}"))),
    };
    for (index, value) in list.into_iter().enumerate() {
        let object = match value {
            Value::Object(object) => Ok(object),
            other => Err(RowFault::NotObject(type_of(&other))),
        };
        collector.object(Place::Row(index + 1), object);
    }
    Ok(())
}
