use serde_json::{Map, Value};

/// The fields of a configuration, taken out one by one; what is wrong with them is gathered.
pub(super) struct Fields {
    map: Map<String, Value>,
    /// The names that were asked for, whether they were there or not.
    asked: Vec<String>,
    pub(super) faults: Vec<String>,
}

impl Fields {
    pub(super) fn new(map: Map<String, Value>) -> Self {
        Self {
            map,
            asked: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// What no one asked for.
    pub(super) fn rest(self) -> (Map<String, Value>, Vec<String>) {
        (self.map, self.faults)
    }

    /// The names of all fields that were asked for.
    pub(super) fn asked(&self) -> &[String] {
        &self.asked
    }

    /// A field, if it is there and not null.
    pub(super) fn optional<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        self.asked.push(name.to_string());
        let value = self.map.remove(name).filter(|value| !value.is_null())?;
        let found = read(&value);
        if found.is_none() {
            self.faults
                .push(format!("{name} is {value}, not {expected}"));
        }
        found
    }

    /// A field as it is, left in its place.
    pub(super) fn peek(&self, name: &str) -> Option<&Value> {
        self.map.get(name)
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.optional(name, "a text", |value| value.as_str().map(str::to_string))
    }

    pub(super) fn flag(&mut self, name: &str, default: bool) -> bool {
        let read = self.optional(name, "true or false", Value::as_bool);
        read.unwrap_or(default)
    }

    pub(super) fn count(&mut self, name: &str, default: usize) -> usize {
        let read = self.optional(name, "a whole number", as_count);
        read.unwrap_or(default)
    }

    pub(super) fn number(&mut self, name: &str, default: f64) -> f64 {
        let read = self.optional(name, "a number", Value::as_f64);
        read.unwrap_or(default)
    }

    /// A list of texts, or one text that stands for a list.
    pub(super) fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        self.optional(name, "a list of names", |value| match value {
            Value::String(text) => Some(vec![text.clone()]),
            value => as_texts(value),
        })
    }

    /// A list of whole numbers, or one.
    pub(super) fn counts(&mut self, name: &str) -> Option<Vec<usize>> {
        self.optional(name, "a whole number or a list of such", as_counts)
    }

    /// A dictionary, if it is there and not null: its good entries.
    pub(super) fn entries<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<Vec<(String, T)>> {
        let map = self.optional(name, "a dictionary", |value| value.as_object().cloned())?;
        let mut found = Vec::new();
        for (key, value) in map {
            match read(&value) {
                Some(value) => found.push((key, value)),
                None => self
                    .faults
                    .push(format!("{name} has {value} for \"{key}\", not {expected}")),
            }
        }
        Some(found)
    }

    /// Notes a field whose value this crate does not know how to honor, and puts it aside.
    pub(super) fn refuse_unless(
        &mut self,
        name: &str,
        harmless: &[&str],
        features: &mut Vec<String>,
    ) {
        if let Some(value) = self.map.get(name) {
            let value = value.to_string();
            if !harmless.contains(&value.as_str()) {
                features.push(format!("{name} {value}"));
            }
        }
    }
}

pub(super) fn as_count(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|count| usize::try_from(count).ok())
}

pub(super) fn as_counts(value: &Value) -> Option<Vec<usize>> {
    match value {
        Value::Array(values) => values.iter().map(as_count).collect(),
        value => as_count(value).map(|count| vec![count]),
    }
}

pub(super) fn as_texts(value: &Value) -> Option<Vec<String>> {
    let values = value.as_array()?.iter();
    values
        .map(|value| value.as_str().map(str::to_string))
        .collect()
}

pub(super) fn as_flags(value: &Value) -> Option<Vec<bool>> {
    value.as_array()?.iter().map(Value::as_bool).collect()
}
