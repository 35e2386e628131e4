//! A chat template, rendered as Transformers does.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{Local, NaiveDateTime};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind, State};
use regex::Regex;
use serde_json::Map;

use super::python;
use crate::error::DataError;
use crate::message::Message;

/// The built-in template, for tokenizers without one: ChatML, whose markers are plain text unless the vocabulary has
/// them as tokens. Tools are refused.
const CHATML: &str = "\
{%- if tools %}{{ raise_exception('the built-in chatml template knows no tools') }}{% endif -%}
{%- for message in messages -%}
{%- if message.content is not string %}{{ raise_exception('the built-in chatml template knows text only') }}{% endif -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.role == 'assistant' -%}
{%- generation -%}{{- message.content + '<|im_end|>' -}}{%- endgeneration -%}
{{- '\\n' -}}
{%- else -%}
{{- message.content + '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
";

/// The function that stands for `{% generation %}`, which minijinja does not know.
const GENERATION: &str = "burn_lora_generation";
const NAME: &str = "chat_template";

/// A conversation as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// The bytes that the template marks as the assistant's, by `{% generation %}`.
    pub marked: Vec<Range<usize>>,
}

/// A Jinja template that writes conversations down.
///
/// It is rendered as by `apply_chat_template` of Transformers: blocks are trimmed as there, `tojson` writes Python's
/// JSON, strings and lists have Python's methods, `raise_exception` and `strftime_now` exist, and the special tokens
/// are variables (`bos_token`, `eos_token`).
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: Arc<str>,
    tokens: Map<String, serde_json::Value>,
    marks: bool,
}

impl ChatTemplate {
    /// Parses a template; `tokens` are further variables, such as `bos_token`.
    ///
    /// # Errors
    ///
    /// [`DataError::BadTemplate`] with the parser's message and line.
    pub fn new(source: &str, tokens: Map<String, serde_json::Value>) -> Result<Self, DataError> {
        let (begin, marks) = replace(source, r"\{%([-+]?)\s*generation\s*([-+]?)%\}", |a, b| {
            format!("{{%{a} call {GENERATION}() {b}%}}")
        });
        let (whole, _) = replace(
            &begin,
            r"\{%([-+]?)\s*endgeneration\s*([-+]?)%\}",
            |a, b| format!("{{%{a} endcall {b}%}}"),
        );
        let mut environment = environment().map_err(|error| bad(None, &error))?;
        environment
            .add_template_owned(NAME, whole)
            .map_err(|error| bad(None, &error))?;
        Ok(Self {
            environment,
            source: source.into(),
            tokens,
            marks,
        })
    }

    /// The built-in ChatML template.
    ///
    /// # Errors
    ///
    /// None in practice: the template is part of this crate.
    pub fn chatml() -> Result<Self, DataError> {
        Self::new(CHATML, Map::new())
    }

    /// A template in a file of its own.
    ///
    /// # Errors
    ///
    /// [`DataError::Read`], [`DataError::BadTemplate`].
    pub fn from_file(
        path: &Path,
        tokens: Map<String, serde_json::Value>,
    ) -> Result<Self, DataError> {
        let source = std::fs::read_to_string(path).map_err(|source| DataError::Read {
            path: path.into(),
            source,
        })?;
        Self::new(&source, tokens).map_err(|error| match error {
            DataError::BadTemplate { message, .. } => DataError::BadTemplate {
                path: Some(path.into()),
                message,
            },
            other => other,
        })
    }

    /// Renders at another time than now: what `strftime_now` tells.
    pub fn with_time(mut self, time: NaiveDateTime) -> Self {
        self.environment
            .add_function("strftime_now", move |format: &str| {
                python::strftime(time, format)
            });
        self
    }

    /// The template's source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template marks the assistant's words by `{% generation %}`.
    pub fn marks_assistant(&self) -> bool {
        self.marks
    }

    /// Whether the text depends on the day.
    pub fn tells_time(&self) -> bool {
        self.source.contains("strftime_now")
    }

    /// Writes messages down; with `add_generation_prompt`, up to where the assistant's next words begin.
    ///
    /// # Errors
    ///
    /// [`DataError::Template`] with what the template raises, or where it fails.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&[serde_json::Value]>,
        add_generation_prompt: bool,
    ) -> Result<Rendered, DataError> {
        let messages: Vec<_> = messages
            .iter()
            .map(|message| aliased(message.as_map()))
            .collect();
        let mut context = self.tokens.clone();
        context.insert("messages".into(), messages.into());
        context.insert(
            "tools".into(),
            tools.map_or(serde_json::Value::Null, |t| t.into()),
        );
        context.insert("documents".into(), serde_json::Value::Null);
        context.insert("add_generation_prompt".into(), add_generation_prompt.into());
        // A mark that no text of this row contains.
        let context = serde_json::Value::Object(context);
        let mark = match self.marks {
            true => unused_mark(&[&self.source, &context.to_string()]),
            false => String::new(),
        };
        let mut context_with_mark = Map::new();
        context_with_mark.insert(MARK.into(), mark.clone().into());
        if let serde_json::Value::Object(map) = context {
            context_with_mark.extend(map);
        }
        let template = self
            .environment
            .get_template(NAME)
            .map_err(|error| DataError::Template(told(&error)))?;
        let text = template
            .render(Value::from(Serde(&context_with_mark)))
            .map_err(|error| DataError::Template(told(&error)))?;
        Ok(without_marks(text, &mark))
    }
}

/// The variable with the mark of this rendering.
const MARK: &str = "burn_lora_mark";

fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()?;
    environment.set_syntax(syntax);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", python::to_json);
    environment.add_test("sequence", python::is_sequence);
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    environment.add_function("strftime_now", |format: &str| {
        python::strftime(Local::now().naive_local(), format)
    });
    environment.add_function(GENERATION, generation);
    Ok(environment)
}

/// The assistant's words between marks.
fn generation(state: &mut State, options: Kwargs) -> Result<String, Error> {
    let caller: Value = options.get("caller")?;
    let words = caller.call(state, &[])?;
    let mark = state.lookup(MARK).unwrap_or_default();
    Ok(format!("{mark}{words}{mark}"))
}

/// The reasoning of a message goes by several names; templates read one of them. The order of keys is that of
/// Transformers.
fn aliased(message: &Map<String, serde_json::Value>) -> serde_json::Value {
    let names = ["reasoning_content", "thinking", "reasoning"];
    let there = message.iter().filter(|(_, value)| !value.is_null());
    let there = there.map(|(key, value)| (key.clone(), value.clone()));
    let reasoning = names
        .iter()
        .find_map(|name| message.get(*name).filter(|value| !value.is_null()));
    let Some(reasoning) = reasoning else {
        return there.collect::<Map<_, _>>().into();
    };
    let mut aliased = Map::new();
    aliased.insert("thinking".into(), reasoning.clone());
    aliased.extend(there);
    aliased.insert("reasoning_content".into(), reasoning.clone());
    aliased.into()
}

fn replace(source: &str, pattern: &str, with: impl Fn(&str, &str) -> String) -> (String, bool) {
    // The patterns are constants of this file.
    let Ok(pattern) = Regex::new(pattern) else {
        return (source.into(), false);
    };
    let text = pattern.replace_all(source, |found: &regex::Captures<'_>| {
        with(&found[1], &found[2])
    });
    let found = matches!(text, std::borrow::Cow::Owned(_));
    (text.into_owned(), found)
}

fn unused_mark(texts: &[&str]) -> String {
    let candidate = |number: usize| format!("\u{E000}{number}\u{E001}");
    let is_free = |mark: &String| !texts.iter().any(|text| text.contains(mark.as_str()));
    (0..).map(candidate).find(is_free).unwrap_or_default()
}

fn without_marks(text: String, mark: &str) -> Rendered {
    if mark.is_empty() {
        let marked = Vec::new();
        return Rendered { text, marked };
    }
    let mut plain = String::with_capacity(text.len());
    let mut marked = Vec::new();
    for (index, part) in text.split(mark).enumerate() {
        let start = plain.len();
        plain.push_str(part);
        if index % 2 == 1 {
            marked.push(start..plain.len());
        }
    }
    Rendered {
        text: plain,
        marked,
    }
}

pub(super) fn bad(path: Option<PathBuf>, error: &Error) -> DataError {
    DataError::BadTemplate {
        path,
        message: told(error),
    }
}

/// What the template raised, or the engine's message with the line.
fn told(error: &Error) -> String {
    let line = error
        .line()
        .map_or(String::new(), |line| format!(" (line {line})"));
    match error.detail() {
        Some(detail) if error.kind() == ErrorKind::InvalidOperation => format!("{detail}{line}"),
        Some(detail) => format!("{}: {detail}{line}", error.kind()),
        None => format!("{}{line}", error.kind()),
    }
}
