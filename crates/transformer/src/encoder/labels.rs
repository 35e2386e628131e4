//! The labels of a batch.

use thiserror::Error;

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
