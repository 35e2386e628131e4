//! An object of columns as a row of a format.

mod chat;
mod labelled;
mod preference;

use serde_json::{Map, Value};

use crate::fault::RowFault;
use crate::message::Chat;
use crate::rows::{Row, RowFormat};

/// The columns of a row.
pub(crate) type Object = Map<String, Value>;

/// The row that `object` is in a format. Columns beside those of the format are of no concern.
pub(crate) fn parse(mut object: Object, format: RowFormat) -> Result<Row, RowFault> {
    let row = match format {
        RowFormat::Text => Row::Text {
            text: take_text(&mut object, "text")?,
        },
        RowFormat::PromptCompletion => prompt_completion(object)?,
        RowFormat::Messages => Row::Chat(chat::messages(object)?),
        RowFormat::Alpaca => Row::Chat(chat::alpaca(object)?),
        RowFormat::Sharegpt => Row::Chat(chat::sharegpt(object)?),
        RowFormat::Classification => labelled::classification(object)?,
        RowFormat::Tagging => labelled::tagging(object)?,
        RowFormat::Preference => preference::preference(object)?,
    };
    row.empty_text().map_or(Ok(row), Err)
}

fn prompt_completion(mut object: Object) -> Result<Row, RowFault> {
    let are_strings = |key| object.get(key).is_some_and(Value::is_string);
    let is_list = |key| {
        object
            .get(key)
            .is_some_and(|v| v.is_array() || v.is_object())
    };
    if is_list("prompt") && is_list("completion") {
        let mut messages = chat::take_messages(&mut object, "prompt")?;
        let learned_from = messages.len();
        messages.extend(chat::take_messages(&mut object, "completion")?);
        return chat::checked(Chat {
            messages,
            tools: chat::take_tools(&mut object)?,
            learned_from,
        })
        .map(Row::Chat);
    }
    if is_list("prompt") && are_strings("completion")
        || is_list("completion") && are_strings("prompt")
    {
        return Err(RowFault::Value {
            at: "completion".into(),
            found: "is not of the kind of \"prompt\"".into(),
            expected: "a string beside a string, or messages beside messages".into(),
        });
    }
    Ok(Row::PromptCompletion {
        prompt: take_text(&mut object, "prompt")?,
        completion: take_text(&mut object, "completion")?,
    })
}

/// A column that must be a string.
fn take_text(object: &mut Object, key: &'static str) -> Result<String, RowFault> {
    match object.shift_remove(key) {
        Some(Value::String(text)) => Ok(text),
        other => Err(RowFault::WrongType {
            key,
            found: type_of(&other.unwrap_or_default()),
        }),
    }
}

/// A column that may be absent, null or empty.
fn take_optional_text(object: &mut Object, key: &'static str) -> Result<Option<String>, RowFault> {
    match object.shift_remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(RowFault::WrongType {
            key,
            found: type_of(&other),
        }),
    }
}

/// A column that is a list, or the JSON of one, as tables and some data sets have it; nothing where it is absent, null
/// or empty.
fn take_list(object: &mut Object, key: &'static str) -> Result<Option<Vec<Value>>, RowFault> {
    let value = object.shift_remove(key).unwrap_or_default();
    let value = match &value {
        Value::String(text) if text.trim().is_empty() => return Ok(None),
        Value::String(text) => serde_json::from_str(text).unwrap_or(value),
        _ => value,
    };
    match value {
        Value::Null => Ok(None),
        Value::Array(list) => Ok(Some(list)),
        other => Err(wrong(key, &other, "a list")),
    }
}

/// A fault of a value inside a row.
fn wrong(at: impl Into<String>, found: &Value, expected: &str) -> RowFault {
    RowFault::Value {
        at: at.into(),
        found: format!("is {}", type_of(found)),
        expected: expected.into(),
    }
}

/// The type of a value, in words.
pub(crate) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
