//! Reading a configuration, with every fault at once.

use burn_lora_adapter::MethodConfig;
use serde_json::{Map, Value};

use super::adapter::AdapterSettings;
use super::config::RunConfig;
use super::part::PartSettings;
use crate::error::TrainError;

/// Sections whose keys are the user's own, or depend on a value.
const FREE: [&str; 5] = [
    "data.columns",
    "adapter.beside",
    "adapter.initialization_options",
    "adapter.options",
    "training.optimizer",
];

impl RunConfig {
    /// Reads a configuration file, and settings `key=value` that go before it. A key is a path (`training.steps`), or its
    /// last part where no other ends like it (`steps`).
    ///
    /// ```
    /// use burn_lora_train::RunConfig;
    ///
    /// let text = "model: base\ndata: {path: rows.jsonl}\n";
    /// let config = RunConfig::parse(text, &["steps=20".to_string()])?;
    /// assert_eq!((config.model.as_str(), config.training.steps), ("base", 20));
    /// # Ok::<(), burn_lora_train::TrainError>(())
    /// ```
    ///
    /// # Errors
    /// [`TrainError::Config`] with every unknown key and the nearest that is known, every value of the wrong type, and
    /// everything that [`RunConfig::faults`] finds.
    pub fn parse(text: &str, settings: &[String]) -> Result<Self, TrainError> {
        let mut faults = Vec::new();
        let mut user = match yaml(text) {
            Ok(user) => user,
            Err(fault) => {
                return Err(TrainError::Config {
                    faults: vec![fault],
                });
            }
        };
        let all = known(None);
        for setting in settings {
            if let Err(fault) = set(&mut user, setting, &all) {
                faults.push(fault);
            }
        }
        let method = user.pointer("/adapter/method").and_then(Value::as_str);
        let known = known(Some(method.unwrap_or(DEFAULT_METHOD)));
        let mut good = Value::Object(Map::new());
        walk(&user, &known, &known, "", &mut good, &mut faults);
        let config: Self = serde_json::from_value(good).unwrap_or_else(|error| {
            faults.push(error.to_string());
            Self::default()
        });
        // What is missing because it could not be read is told once.
        let told = |fault: &String| {
            let key = |fault: &str| fault.split([' ', ':']).next().map(str::to_string);
            faults.iter().any(|other| key(other) == key(fault))
        };
        let more: Vec<String> = config
            .faults()
            .into_iter()
            .filter(|fault| !told(fault))
            .collect();
        faults.extend(more);
        match faults.is_empty() {
            true => Ok(config),
            false => Err(TrainError::Config { faults }),
        }
    }

    /// The whole configuration as a file, defaults included.
    pub fn to_yaml(&self) -> String {
        // A struct of plain values has no value that YAML lacks.
        yaml_serde::to_string(self).unwrap_or_default()
    }
}

fn yaml(text: &str) -> Result<Value, String> {
    // By way of its own values, which know of keys that stand twice.
    let value: yaml_serde::Value =
        yaml_serde::from_str(text).map_err(|error| format!("not YAML: {error}"))?;
    match serde_json::to_value(value) {
        Ok(Value::Null) => Ok(Value::Object(Map::new())),
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err("it is no list of `key: value`".into()),
        Err(error) => Err(format!("a key is no text: {error}")),
    }
}

/// The method of an adapter that names none.
const DEFAULT_METHOD: &str = "lora";

/// Every key with its default; of the adapter those of its method, or of all methods where it is none that is known.
fn known(method: Option<&str>) -> Value {
    let of = |word: &str| {
        let config = RunConfig {
            adapter: AdapterSettings::of(word),
            ..RunConfig::default()
        };
        serde_json::to_value(config).unwrap_or_default()
    };
    let is_known =
        |word: &&str| PartSettings::of(word).is_some() || word.parse::<MethodConfig>().is_ok();
    if let Some(word) = method.filter(is_known) {
        return of(word);
    }
    let mut all = of(DEFAULT_METHOD);
    for word in PartSettings::words() {
        let other = of(word);
        if let (Some(all), Some(other)) =
            (all["adapter"].as_object_mut(), other["adapter"].as_object())
        {
            for (key, default) in other {
                all.entry(key.as_str()).or_insert_with(|| default.clone());
            }
        }
    }
    all
}

/// Puts `key=value` into the user's tree.
fn set(user: &mut Value, setting: &str, known: &Value) -> Result<(), String> {
    let Some((key, text)) = setting.split_once('=') else {
        return Err(format!("\"{setting}\" is no key=value"));
    };
    let key = key.trim();
    let value: yaml_serde::Value =
        yaml_serde::from_str(text).map_err(|error| format!("{key}: \"{text}\": {error}"))?;
    let value = serde_json::to_value(value).map_err(|error| format!("{key}: {error}"))?;
    let paths = leaves(known, "");
    let ends = |path: &&String| path.rsplit('.').next() == Some(key);
    let matching: Vec<&String> = paths.iter().filter(ends).collect();
    let path = match matching.as_slice() {
        _ if key.contains('.') || paths.iter().any(|path| path == key) => key,
        [one] => one.as_str(),
        [] => key,
        several => {
            let names: Vec<&str> = several.iter().map(|path| path.as_str()).collect();
            return Err(format!(
                "\"{key}\" may be {}: write the whole",
                names.join(" or ")
            ));
        }
    };
    let mut place = user;
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(map) = place else {
            break;
        };
        if parts.peek().is_none() {
            map.insert(part.into(), value);
            break;
        }
        place = map.entry(part).or_insert_with(|| Value::Object(Map::new()));
    }
    Ok(())
}

/// The paths of all settings.
fn leaves(known: &Value, path: &str) -> Vec<String> {
    match known {
        Value::Object(map) if !FREE.contains(&path) => map
            .iter()
            .flat_map(|(key, value)| leaves(value, &join(path, key)))
            .collect(),
        _ => vec![path.to_string()],
    }
}

fn join(path: &str, key: &str) -> String {
    match path.is_empty() {
        true => key.to_string(),
        false => format!("{path}.{key}"),
    }
}

/// The section whose keys depend on one of them.
const ADAPTER: &str = "adapter";
const METHOD: &str = "adapter.method";

/// Copies what is right to `good`, and tells what is not.
fn walk(
    user: &Value,
    known: &Value,
    root: &Value,
    path: &str,
    good: &mut Value,
    faults: &mut Vec<String>,
) {
    let (Value::Object(map), Value::Object(keys)) = (user, known) else {
        if !user.is_null() {
            faults.push(format!(
                "{path} is a section: its settings stand below it, indented"
            ));
        }
        return;
    };
    for (key, value) in map {
        let at = join(path, key);
        match keys.get(key) {
            None => faults.push(unknown(&at, key, keys, root)),
            Some(section @ Value::Object(_)) if !FREE.contains(&at.as_str()) => {
                walk(value, section, root, &at, good, faults);
            }
            Some(_) => {
                // A tree of this value alone, so that one fault does not hide another.
                let mut alone = Value::Object(Map::new());
                if path == ADAPTER {
                    // Which keys there are depends on it.
                    put(&mut alone, METHOD, root["adapter"]["method"].clone());
                }
                put(&mut alone, &at, value.clone());
                match serde_json::from_value::<RunConfig>(alone) {
                    Ok(_) => put(good, &at, value.clone()),
                    Err(error) => faults.push(format!("{at}: {error}")),
                }
            }
        }
    }
}

fn put(tree: &mut Value, path: &str, value: Value) {
    let mut place = tree;
    for part in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        match place {
            Value::Object(map) => place = map.entry(part).or_insert(Value::Null),
            _ => return,
        }
    }
    *place = value;
}

/// A key that nobody knows, with the nearest of its section, or where the same name is known.
fn unknown(at: &str, key: &str, keys: &Map<String, Value>, root: &Value) -> String {
    let distance = |name: &str| strsim::damerau_levenshtein(key, name);
    let section = at.strip_suffix(key).unwrap_or(at);
    // Keys of other methods are known, and said to be.
    let of = match (section, keys.get("method").and_then(Value::as_str)) {
        ("adapter.", Some(word)) if known(None)["adapter"].get(key).is_some() => {
            format!(" of {word}")
        }
        _ => String::new(),
    };
    let near = keys
        .keys()
        .map(|name| (distance(name), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min();
    if let Some((_, name)) = near {
        return format!("{at} is no setting{of}: did you mean {name}?");
    }
    let last = |path: &String| path.rsplit('.').next().unwrap_or("").to_string();
    let near = leaves(root, "")
        .into_iter()
        .map(|path| (distance(&last(&path)), path))
        .filter(|(distance, path)| of.is_empty() && *distance <= last(path).len() / 3)
        .min();
    if let Some((_, path)) = near {
        return format!("{at} is no setting: did you mean {path}?");
    }
    let names: Vec<&str> = keys.keys().map(String::as_str).collect();
    format!("{at} is no setting{of}; there are {}", names.join(", "))
}
