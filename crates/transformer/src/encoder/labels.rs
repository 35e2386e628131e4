//! Labels: their names in configurations, and those of a batch.

use serde_json::{Map, Value};
use thiserror::Error;

use crate::config::Fields;

/// The number of labels. Their names, if the file has them, stay among the fields that are kept.
pub(crate) fn read_labels(fields: &mut Fields<'_>) -> usize {
    let stated = fields.size("num_labels");
    let names = match fields.value("id2label") {
        None => None,
        Some(Value::Object(names)) => Some(names.clone()),
        Some(other) => {
            fields.refuse(format!("`id2label` is {other}, expected an object"));
            None
        }
    };
    if let Some(names) = &names {
        let count = names.len();
        let nameless: Vec<String> = (0..count)
            .map(|index| index.to_string())
            .filter(|index| !names.contains_key(index))
            .collect();
        if !nameless.is_empty() {
            let nameless = nameless.join(", ");
            fields.refuse(format!(
                "`id2label` has {count} names, but none for {nameless}"
            ));
        }
        if let Some(stated) = stated.filter(|stated| *stated != count) {
            fields.refuse(format!(
                "`num_labels` is {stated}, but `id2label` has {count} names"
            ));
        }
    }
    let named = names.as_ref().map(Map::len);
    fields.keep("id2label");
    stated.or(named).unwrap_or(2)
}

/// Names as many labels as there are: Transformers takes the number from the names.
pub(crate) fn write_labels(
    map: &mut Map<String, Value>,
    num_labels: usize,
    extra: &Map<String, Value>,
) {
    let names = extra.get("id2label").and_then(Value::as_object);
    if names.is_some_and(|names| names.len() == num_labels) {
        return;
    }
    let name = |index: usize| format!("LABEL_{index}");
    let labels = || 0..num_labels;
    let by_index: Map<_, _> = labels()
        .map(|at| (at.to_string(), name(at).into()))
        .collect();
    let by_name: Map<_, _> = labels().map(|at| (name(at), at.into())).collect();
    map.insert("id2label".into(), by_index.into());
    map.insert("label2id".into(), by_name.into());
}

/// What the rows of a batch are to be called.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    /// One class of each row.
    Classes(Vec<usize>),
    /// For each row, the numbers that its logits should be (regression).
    Values(Vec<Vec<f32>>),
    /// For each row, how far each label belongs to it, 0 or 1: any number of labels may.
    Sets(Vec<Vec<f32>>),
}

/// The class of each token of each row; `None` where nothing is learned.
pub type ClassLabels = [Vec<Option<usize>>];

/// Labels that do not fit the logits.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("the labels do not fit:{}", .problems.iter().map(|line| format!("\n  {line}")).collect::<String>())]
pub struct LabelError {
    /// One line for each row and what is wrong with it.
    pub problems: Vec<String>,
}

impl LabelError {
    pub(crate) fn check(problems: Vec<String>) -> Result<(), Self> {
        match problems.is_empty() {
            true => Ok(()),
            false => Err(Self { problems }),
        }
    }
}

impl Labels {
    /// Whether there is a label for each row, and each is one that the model has.
    pub(crate) fn check(&self, rows: usize, num_labels: usize) -> Result<(), LabelError> {
        let mut problems = Vec::new();
        let count = match self {
            Self::Classes(classes) => {
                for (row, class) in classes.iter().enumerate() {
                    if *class >= num_labels {
                        problems.push(format!(
                            "row {row} has the class {class}; the model has {num_labels}"
                        ));
                    }
                }
                classes.len()
            }
            Self::Values(values) | Self::Sets(values) => {
                for (row, values) in values.iter().enumerate() {
                    if values.len() != num_labels {
                        let found = values.len();
                        problems.push(format!(
                            "row {row} has {found} values; the model has {num_labels} outputs"
                        ));
                    }
                    if values.iter().any(|value| !value.is_finite()) {
                        problems.push(format!("row {row} has a value that is not finite"));
                    }
                }
                values.len()
            }
        };
        if count != rows {
            problems.push(format!("{count} labels for {rows} rows"));
        }
        LabelError::check(problems)
    }
}
