//! Where the chat templates of a model's folder are.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::template::ChatTemplate;
use crate::error::DataError;
use crate::special_tokens::ConfigFile;

/// The chat templates of a tokenizer, by name, and the special tokens that they write. They are parsed when one is used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatTemplates {
    named: Vec<Named>,
    tokens: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq)]
struct Named {
    name: String,
    source: String,
    path: PathBuf,
}

const DEFAULT: &str = "default";
/// Taken for conversations with tools, where there is one, as Transformers does.
const TOOL_USE: &str = "tool_use";

impl ChatTemplates {
    /// Reads `chat_template.jinja`, the files of `additional_chat_templates`, and `chat_template` of
    /// `tokenizer_config.json`: a string, or a list of `name` and `template`. A file goes before the configuration.
    ///
    /// # Errors
    ///
    /// [`DataError::Read`], [`DataError::BadConfigValue`].
    pub(crate) fn from_folder(folder: &Path) -> Result<Self, DataError> {
        let config = ConfigFile::read(folder, "tokenizer_config.json")?.values;
        let map = ConfigFile::read(folder, "special_tokens_map.json")?.values;
        let mut tokens = special_tokens(&map);
        tokens.extend(special_tokens(&config));
        let mut templates = Self {
            named: Vec::new(),
            tokens,
        };
        templates.read(DEFAULT, folder.join("chat_template.jinja"))?;
        if let Ok(entries) = std::fs::read_dir(folder.join("additional_chat_templates")) {
            let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            paths.sort();
            for path in paths {
                if path
                    .extension()
                    .is_some_and(|extension| extension == "jinja")
                {
                    let name = path
                        .file_stem()
                        .map(|stem| stem.to_string_lossy().into_owned());
                    templates.read(&name.unwrap_or_default(), path)?;
                }
            }
        }
        let path = folder.join("tokenizer_config.json");
        let bad = || DataError::BadConfigValue {
            path: path.clone(),
            key: "chat_template",
            expected: "a string, nor a list of {\"name\", \"template\"}",
        };
        match config.get("chat_template") {
            None | Some(Value::Null) => (),
            Some(Value::String(source)) => templates.add(DEFAULT, source, &path),
            Some(Value::Array(list)) => {
                for entry in list {
                    let text = |key: &str| entry.get(key).and_then(Value::as_str);
                    let name = text("name").ok_or_else(bad)?;
                    templates.add(name, text("template").ok_or_else(bad)?, &path);
                }
            }
            Some(_) => return Err(bad()),
        }
        Ok(templates)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// The special tokens that templates write.
    pub fn tokens(&self) -> &Map<String, Value> {
        &self.tokens
    }

    /// A template by name; without one, that for tools where there are tools, then the default.
    ///
    /// # Errors
    ///
    /// [`DataError::NoChatTemplate`]; [`DataError::BadTemplate`] for a name that is not there, with those that are, and
    /// for a template that cannot be parsed.
    pub fn get(&self, name: Option<&str>, tools: bool) -> Result<ChatTemplate, DataError> {
        if self.named.is_empty() {
            return Err(DataError::NoChatTemplate);
        }
        let find = |name: &str| self.named.iter().find(|named| named.name == name);
        let found = match name {
            Some(name) => find(name),
            None => tools
                .then(|| find(TOOL_USE))
                .flatten()
                .or_else(|| find(DEFAULT)),
        };
        let Some(named) = found else {
            let names: Vec<&str> = self.named.iter().map(|named| named.name.as_str()).collect();
            return Err(DataError::BadTemplate {
                path: None,
                message: format!(
                    "the tokenizer has none called {}; it has {}",
                    name.unwrap_or(DEFAULT),
                    names.join(", ")
                ),
            });
        };
        ChatTemplate::new(&named.source, self.tokens.clone()).map_err(|error| match error {
            DataError::BadTemplate { message, .. } => DataError::BadTemplate {
                path: Some(named.path.clone()),
                message,
            },
            other => other,
        })
    }

    fn read(&mut self, name: &str, path: PathBuf) -> Result<(), DataError> {
        match std::fs::read_to_string(&path) {
            Ok(source) => {
                self.add(name, &source, &path);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(DataError::Read { path, source }),
        }
    }

    /// Adds a template, unless one of the name is there already.
    fn add(&mut self, name: &str, source: &str, path: &Path) {
        if self.named.iter().all(|named| named.name != name) {
            self.named.push(Named {
                name: name.into(),
                source: source.into(),
                path: path.into(),
            });
        }
    }
}

/// The tokens of `tokenizer_config.json` as templates write them.
fn special_tokens(config: &Map<String, Value>) -> Map<String, Value> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(object) => Some(object.get("content")?.as_str()?.to_string()),
        _ => None,
    };
    let names = [
        "bos_token",
        "eos_token",
        "unk_token",
        "sep_token",
        "pad_token",
        "cls_token",
        "mask_token",
    ];
    let found = names
        .iter()
        .filter_map(|name| Some((*name, text(config.get(*name)?)?)));
    found
        .map(|(name, token)| (name.to_string(), token.into()))
        .collect()
}
