//! What a text is labelled with.

use std::fmt;

/// A class by its number or its name, or a value to predict.
#[derive(Debug, Clone, PartialEq)]
pub enum Label {
    /// The number of a class, from zero.
    Id(usize),
    /// The name of a class.
    Name(String),
    /// A value, for regression.
    Value(f64),
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => write!(f, "{name}"),
            Self::Value(value) => write!(f, "{value}"),
        }
    }
}
