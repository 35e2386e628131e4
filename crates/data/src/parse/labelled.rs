//! Texts and words with labels.

use serde_json::Value;

use super::{Object, take_list, take_optional_text, take_text, wrong};
use crate::fault::RowFault;
use crate::label::Label;
use crate::rows::Row;

/// `text`, `text_pair`, `label`.
pub(super) fn classification(mut object: Object) -> Result<Row, RowFault> {
    Ok(Row::Classification {
        text: take_text(&mut object, "text")?,
        text_pair: take_optional_text(&mut object, "text_pair")?,
        label: label(object.shift_remove("label").unwrap_or_default(), "label")?,
    })
}

/// `tokens`, `tags`.
pub(super) fn tagging(mut object: Object) -> Result<Row, RowFault> {
    let tokens = take_list(&mut object, "tokens")?.unwrap_or_default();
    if tokens.is_empty() {
        return Err(RowFault::Empty("tokens"));
    }
    let tags = take_list(&mut object, "tags")?.unwrap_or_default();
    if tokens.len() != tags.len() {
        return Err(RowFault::TagCount {
            tokens: tokens.len(),
            tags: tags.len(),
        });
    }
    let word = |(index, value): (usize, Value)| match value {
        Value::String(word) => Ok(word),
        other => Err(wrong(format!("tokens[{index}]"), &other, "a string")),
    };
    let tag = |(index, value)| label(value, &format!("tags[{index}]"));
    Ok(Row::Tagging {
        tokens: tokens
            .into_iter()
            .enumerate()
            .map(word)
            .collect::<Result<_, _>>()?,
        tags: tags
            .into_iter()
            .enumerate()
            .map(tag)
            .collect::<Result<_, _>>()?,
    })
}

fn label(value: Value, at: &str) -> Result<Label, RowFault> {
    const EXPECTED: &str = "a class (a number from 0, or a name) or a value";
    match &value {
        Value::String(name) if !name.trim().is_empty() => Ok(Label::Name(name.clone())),
        Value::Bool(is) => Ok(Label::Id(usize::from(*is))),
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(id), _) if usize::try_from(id).is_ok() => Ok(Label::Id(id as usize)),
            (None, Some(-1.0)) => Err(RowFault::Value {
                at: at.into(),
                found: "is -1, the mark of a row without a label".into(),
                expected: EXPECTED.into(),
            }),
            (None, Some(value)) => Ok(Label::Value(value)),
            _ => Err(wrong(at, &value, EXPECTED)),
        },
        Value::String(_) => Err(RowFault::Value {
            at: at.into(),
            found: "is empty".into(),
            expected: EXPECTED.into(),
        }),
        _ => Err(wrong(at, &value, EXPECTED)),
    }
}
