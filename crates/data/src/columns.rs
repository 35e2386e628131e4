//! Which format the columns of a row mean.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::error::DataError;
use crate::fault::{NoFormat, RowFault, quoted};
use crate::rows::RowFormat;

/// The columns of a format.
struct Shape {
    format: RowFormat,
    name: &'static str,
    /// As a message tells them.
    told: &'static str,
    required: &'static [&'static str],
    optional: &'static [&'static str],
}

const SHAPES: [Shape; 8] = [
    Shape {
        format: RowFormat::PromptCompletion,
        name: "prompt_completion",
        told: "\"prompt\" and \"completion\"",
        required: &["prompt", "completion"],
        optional: &["tools"],
    },
    Shape {
        format: RowFormat::Text,
        name: "text",
        told: "\"text\"",
        required: &["text"],
        optional: &[],
    },
    Shape {
        format: RowFormat::Messages,
        name: "messages",
        told: "\"messages\"",
        required: &["messages"],
        optional: &["tools"],
    },
    Shape {
        format: RowFormat::Alpaca,
        name: "alpaca",
        told: "\"instruction\" and \"output\"",
        required: &["instruction", "output"],
        optional: &["input", "system", "history", "tools"],
    },
    Shape {
        format: RowFormat::Sharegpt,
        name: "sharegpt",
        told: "\"conversations\"",
        required: &["conversations"],
        optional: &["system", "tools"],
    },
    Shape {
        format: RowFormat::Classification,
        name: "classification",
        told: "\"text\" and \"label\"",
        required: &["text", "label"],
        optional: &["text_pair"],
    },
    Shape {
        format: RowFormat::Tagging,
        name: "tagging",
        told: "\"tokens\" and \"tags\"",
        required: &["tokens", "tags"],
        optional: &[],
    },
    Shape {
        format: RowFormat::Preference,
        name: "preference",
        told: "\"prompt\", \"chosen\" and \"rejected\"",
        required: &["chosen", "rejected"],
        optional: &["prompt", "tools"],
    },
];

fn shape(format: RowFormat) -> &'static Shape {
    // Every format has its shape, as a test shows.
    let found = SHAPES.iter().find(|shape| shape.format == format);
    found.unwrap_or(&SHAPES[0])
}

impl RowFormat {
    /// All formats.
    pub fn all() -> impl Iterator<Item = Self> {
        SHAPES.iter().map(|shape| shape.format)
    }

    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        shape(self).name
    }

    /// Its columns, in words.
    pub fn columns(self) -> &'static str {
        shape(self).told
    }

    /// The format of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        let found = SHAPES.iter().find(|shape| shape.name == name);
        found.map(|shape| shape.format)
    }
}

/// The columns of a data set under other names: ours, then the file's.
pub type ColumnNames = BTreeMap<String, String>;

/// Checks that a mapping names columns of ours.
pub(crate) fn check_names(columns: &ColumnNames) -> Result<(), DataError> {
    let known: Vec<&'static str> = SHAPES
        .iter()
        .flat_map(|shape| shape.required.iter().chain(shape.optional))
        .copied()
        .collect();
    let fault = |ours: &String| {
        let near = match nearest(ours, &known) {
            Some(name) => format!(": did you mean \"{name}\"?"),
            None => String::new(),
        };
        format!("no format has a column \"{ours}\"{near}")
    };
    let unknown = columns
        .keys()
        .filter(|ours| !known.contains(&ours.as_str()));
    let faults: Vec<String> = unknown.map(fault).collect();
    match faults.is_empty() {
        true => Ok(()),
        false => Err(DataError::UnknownColumns(faults)),
    }
}

/// Gives the columns of a row our names.
pub(crate) fn rename(
    object: &mut Map<String, Value>,
    columns: &ColumnNames,
) -> Result<(), RowFault> {
    let missing = columns
        .iter()
        .find(|(ours, theirs)| !object.contains_key(*theirs) && !is_optional(ours));
    if let Some((ours, theirs)) = missing {
        let found: Vec<&str> = object.keys().map(String::as_str).collect();
        let meant = nearest(theirs, &found);
        return Err(RowFault::MissingColumn {
            column: theirs.clone(),
            ours: ours.clone(),
            found: quoted(&found),
            meant: meant.map_or(String::new(), |name| format!("; did you mean \"{name}\"?")),
        });
    }
    // All are taken out before any is put in, so that two may change places.
    let taken: Vec<(&String, Option<Value>)> = columns
        .iter()
        .map(|(ours, theirs)| (ours, object.shift_remove(theirs)))
        .collect();
    for (ours, value) in taken {
        if let Some(value) = value {
            object.insert(ours.clone(), value);
        }
    }
    Ok(())
}

fn is_optional(column: &str) -> bool {
    let has = |list: &[&str]| list.contains(&column);
    SHAPES.iter().any(|shape| has(shape.optional))
        && !SHAPES.iter().any(|shape| has(shape.required))
}

/// The format of a row, whose `known` is that of the rows before it, if any.
pub(crate) fn detect(
    object: &Map<String, Value>,
    known: Option<RowFormat>,
) -> Result<RowFormat, RowFault> {
    let has = |key: &&str| object.contains_key(*key);
    if let Some(known) = known.filter(|known| shape(*known).required.iter().all(has)) {
        return Ok(known);
    }
    let mut fitting: Vec<&Shape> = SHAPES
        .iter()
        .filter(|shape| shape.required.iter().all(has))
        .collect();
    // A labelled text is no text to learn.
    if fitting
        .iter()
        .any(|shape| shape.format == RowFormat::Classification)
    {
        fitting.retain(|shape| shape.format != RowFormat::Text);
    }
    match fitting.as_slice() {
        [one] => Ok(one.format),
        [] => Err(RowFault::NoFormat(no_format(object, known))),
        several => {
            let formats = several.iter().map(|shape| shape.format).collect();
            Err(RowFault::SeveralFormats(formats))
        }
    }
}

/// What is missing: for the format of the other rows, or the one of which most is there, misspelled or not.
pub(crate) fn no_format(object: &Map<String, Value>, known: Option<RowFormat>) -> NoFormat {
    let found: Vec<String> = object.keys().cloned().collect();
    let missing_of = |shape: &Shape| -> Vec<&'static str> {
        let required = shape.required.iter().copied();
        required.filter(|key| !object.contains_key(*key)).collect()
    };
    let meant_of = |missing: &[&'static str]| -> Vec<(String, &'static str)> {
        let pair = |key: &String| Some((key.clone(), nearest(key, missing)?));
        found.iter().filter_map(pair).collect()
    };
    let here = |shape: &Shape| {
        let missing = missing_of(shape);
        let meant = meant_of(&missing).len();
        // Two halves of a column for each that is there, one for each that is nearly there.
        2 * (shape.required.len() - missing.len()) + meant.min(missing.len())
    };
    let chosen = match known {
        Some(known) => Some(shape(known)),
        None => SHAPES
            .iter()
            .filter(|shape| here(shape) > 0)
            .max_by_key(|shape| 4 * here(shape) / shape.required.len()),
    };
    let missing = match chosen {
        Some(shape) => missing_of(shape),
        None => SHAPES.iter().flat_map(missing_of).collect(),
    };
    NoFormat {
        nearest: chosen.map(|shape| shape.format),
        meant: meant_of(&missing),
        missing,
        found,
    }
}

/// The name of which `key` looks like a misspelling: a third of its letters may differ, and the case.
pub(crate) fn nearest<'a>(key: &str, names: &[&'a str]) -> Option<&'a str> {
    let key = key.trim().to_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&key, &name.to_lowercase());
    names
        .iter()
        .copied()
        .filter(|name| distance(name) <= name.chars().count() / 3)
        .min_by_key(|name| distance(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(value: Value) -> Result<RowFormat, String> {
        let object = value.as_object().unwrap();
        detect(object, None).map_err(|fault| fault.to_string())
    }

    #[test]
    fn every_format_has_a_shape_and_a_name() {
        for format in RowFormat::all() {
            assert_eq!(shape(format).format, format);
            assert_eq!(RowFormat::from_name(format.name()), Some(format));
            assert_eq!(serde_json::to_value(format).unwrap(), format.name());
        }
    }

    #[test]
    fn columns_tell_the_format() {
        assert_eq!(of(json!({"text": 1})), Ok(RowFormat::Text));
        assert_eq!(
            of(json!({"text": 1, "label": 2})),
            Ok(RowFormat::Classification)
        );
        assert_eq!(of(json!({"messages": 1, "id": 2})), Ok(RowFormat::Messages));
        assert_eq!(
            of(json!({"chosen": 1, "rejected": 2, "prompt": 3})),
            Ok(RowFormat::Preference)
        );
        assert_eq!(
            of(json!({"tokens": 1, "tags": 2, "id": 0})),
            Ok(RowFormat::Tagging)
        );
        let error = of(json!({"text": 1, "messages": 2})).unwrap_err();
        assert_eq!(
            error,
            "has the columns of \"text\", and of \"messages\": name the format that is meant (`format: text`)"
        );
    }

    #[test]
    fn the_nearest_format_is_told() {
        let error = of(json!({"instruction": 1, "outputs": 2})).unwrap_err();
        assert_eq!(
            error,
            "\"output\" is missing for a row of \"instruction\" and \"output\"; the row has \"instruction\", \
             \"outputs\"; \"outputs\" looks like \"output\""
        );
        let error = of(json!({"question": 1, "answer": 2})).unwrap_err();
        assert_eq!(
            error,
            "the columns of no known format; the row has \"question\", \"answer\""
        );
    }

    #[test]
    fn columns_are_renamed() {
        let names = |pairs: &[(&str, &str)]| -> ColumnNames {
            let own = pairs.iter().map(|(a, b)| (a.to_string(), b.to_string()));
            own.collect()
        };
        let mut object = json!({"a": 1, "prompt": 2}).as_object().unwrap().clone();
        rename(
            &mut object,
            &names(&[("prompt", "a"), ("completion", "prompt")]),
        )
        .unwrap();
        assert_eq!(Value::Object(object), json!({"prompt": 1, "completion": 2}));
        let mut object = json!({"question": 1}).as_object().unwrap().clone();
        let error = rename(&mut object, &names(&[("prompt", "qestion")])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the column \"qestion\", mapped to \"prompt\", is missing; the row has \"question\"; did you mean \
             \"question\"?"
        );
        let error = check_names(&names(&[("promt", "a")])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no format has a column \"promt\": did you mean \"prompt\"?"
        );
    }
}
