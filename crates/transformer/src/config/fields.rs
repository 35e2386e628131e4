//! Reads the fields of a JSON object and collects everything that is wrong with them.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::activation::Activation;
use crate::error::ConfigError;
use crate::nearest::{hint, nearest};

/// The longest context and the largest vocabulary of today are some ten million.
const LARGEST: usize = 1 << 24;

/// A JSON object under examination. A getter that fails notes the problem and returns a stand-in, so that one pass
/// finds all problems.
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    used: BTreeSet<&'static str>,
    problems: Vec<String>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(map: &'a Map<String, Value>) -> Self {
        Self {
            map,
            used: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    /// The value, unless it is absent or null.
    pub(crate) fn value(&mut self, name: &'static str) -> Option<&'a Value> {
        self.used.insert(name);
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// The value for a field that has others in view: it counts as unused, and whatever is wrong with it is not noted.
    pub(crate) fn peek(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Whether the field is there at all, null or not.
    pub(crate) fn has(&mut self, name: &'static str) -> bool {
        self.used.insert(name);
        self.map.contains_key(name)
    }

    /// Leaves a field that was looked at among those that [`Self::rest`] gives.
    pub(crate) fn keep(&mut self, name: &'static str) {
        self.used.remove(name);
    }

    pub(crate) fn refuse(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    pub(crate) fn typed<T>(
        &mut self,
        name: &'static str,
        kind: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(name)?;
        let typed = read(value);
        if typed.is_none() {
            self.refuse(format!("`{name}` is {value}, expected {kind}"));
        }
        typed
    }

    /// A count or a width. One that no model has is refused, so that their products are sizes too and nothing is
    /// allocated for a slip of the pen.
    pub(crate) fn size(&mut self, name: &'static str) -> Option<usize> {
        self.typed(name, "a whole number of at most 2^24", |value| {
            let size = value.as_u64().and_then(|n| usize::try_from(n).ok())?;
            (size <= LARGEST).then_some(size)
        })
    }

    /// Notes a problem if the field is missing.
    pub(crate) fn required(&mut self, name: &'static str) {
        if self.value(name).is_none() {
            let others = self.map.keys().map(String::as_str);
            let near = nearest(name, others.filter(|other| *other != name));
            self.refuse(format!("`{name}` is missing{}", hint(near.as_ref())));
        }
    }

    /// A size without which there is no model.
    pub(crate) fn required_size(&mut self, name: &'static str) -> usize {
        self.required(name);
        self.size(name).unwrap_or(0)
    }

    pub(crate) fn number(&mut self, name: &'static str, default: f64) -> f64 {
        self.typed(name, "a number", Value::as_f64)
            .unwrap_or(default)
    }

    pub(crate) fn flag(&mut self, name: &'static str, default: bool) -> bool {
        self.typed(name, "true or false", Value::as_bool)
            .unwrap_or(default)
    }

    pub(crate) fn text(&mut self, name: &'static str, default: &str) -> String {
        self.typed(name, "a text", |value| value.as_str().map(str::to_owned))
            .unwrap_or_else(|| default.to_owned())
    }

    /// Notes a problem unless the text is one of those allowed.
    pub(crate) fn one_of(&mut self, name: &'static str, default: &str, allowed: &[&str]) {
        let found = self.text(name, default);
        if !allowed.contains(&found.as_str()) {
            let allowed = allowed.join(" or ");
            self.refuse(format!("`{name}` is `{found}`; only {allowed} is built"));
        }
    }

    /// The name of a nonlinearity that is built.
    pub(crate) fn activation(&mut self, name: &'static str, default: &str) -> String {
        let found = self.text(name, default);
        if Activation::from_name(&found).is_none() {
            let known = Activation::known();
            self.refuse(format!("`{name}` is `{found}`; built are {known}"));
        }
        found
    }

    /// The fields that nobody asked for.
    pub(crate) fn rest(&self) -> Map<String, Value> {
        let unused = |name: &String| !self.used.contains(name.as_str());
        let entries = self.map.iter().filter(|(name, _)| unused(name));
        entries
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    pub(crate) fn finish(self, model_type: &str) -> Result<(), ConfigError> {
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(ConfigError::Invalid {
            model_type: model_type.into(),
            problems: self.problems,
        })
    }
}
