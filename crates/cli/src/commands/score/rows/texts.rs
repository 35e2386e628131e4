//! Rows of texts, by the model's tokenizer.

use std::path::Path;

use burn_lora::data::{self, DataError, EncoderTokenizer, Tokenizer, read_rows};
use serde_json::{Map, Value};

use super::{Row, Rows, Sequence, no_row, read_text};
use crate::commands::score::task::ScoreTask;
use crate::failure::Failure;

/// Reads JSONL rows.
pub fn read(
    path: &Path,
    task: ScoreTask,
    folder: &Path,
    longest: Option<usize>,
) -> Result<Rows, Failure> {
    match task {
        ScoreTask::CausalLm => continued(path, folder, longest),
        _ => encoded(path, task, folder, longest),
    }
}

/// For a decoder: what Transformers' tokenizer makes of a text, its bos where it wants one and no end of sequence.
fn continued(path: &Path, folder: &Path, longest: Option<usize>) -> Result<Rows, Failure> {
    let tokenizer = Tokenizer::from_folder(folder)?;
    let texts = read_rows(path)?;
    let row = |(line, row): (usize, &data::Row)| {
        let ids = match row {
            data::Row::Text { text } => tokenizer.encode_prompt(text),
            data::Row::PromptCompletion { prompt, completion } => {
                both(&tokenizer, prompt, completion)
            }
            other => Err(DataError::WrongFormat {
                format: other.format(),
                wanted: "scored; name texts, or prompts with completions",
            }),
        };
        let row = ids.map_err(|error| error.to_string()).and_then(|mut ids| {
            ids.truncate(longest.unwrap_or(usize::MAX));
            of(vec![Sequence {
                ids,
                segments: Vec::new(),
            }])
        });
        (format!("{}:{line}", path.display()), row)
    };
    Rows::gathered(texts.iter().map(row), Some(tokenizer.embedding_rows()))
}

fn both(tokenizer: &Tokenizer, prompt: &str, completion: &str) -> Result<Vec<u32>, DataError> {
    let mut ids = tokenizer.encode_prompt(prompt)?;
    ids.extend(tokenizer.encode_completion(completion)?);
    Ok(ids)
}

fn of(sequences: Vec<Sequence>) -> Result<Row, String> {
    match sequences.iter().any(|sequence| sequence.ids.is_empty()) {
        true => Err("gives no token".into()),
        false => Ok(Row {
            sequences,
            ..Row::default()
        }),
    }
}

/// For an encoder: texts with all special tokens around them.
fn encoded(
    path: &Path,
    task: ScoreTask,
    folder: &Path,
    longest: Option<usize>,
) -> Result<Rows, Failure> {
    let mut tokenizer = EncoderTokenizer::from_folder(folder)?;
    if let Some(longest) = longest {
        tokenizer = tokenizer.with_max_length(longest)?;
    }
    let text = read_text(path)?;
    let lines = (1..).zip(text.trim_start_matches('\u{feff}').lines());
    let rows: Vec<_> = lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(line, text)| {
            let object = serde_json::from_str(text).map_err(|error| error.to_string());
            let row = object.and_then(|object| encode(&object, task, &tokenizer));
            (format!("{}:{line}", path.display()), row)
        })
        .collect();
    if rows.is_empty() {
        return Err(no_row(path));
    }
    Rows::gathered(rows.into_iter(), Some(tokenizer.embedding_rows()))
}

/// `{"text"}`, `{"text", "text_pair"}`, `{"text", "choices"}` or `{"source", "target"}`.
fn encode(object: &Value, task: ScoreTask, tokenizer: &EncoderTokenizer) -> Result<Row, String> {
    let object = object.as_object().ok_or("not a JSON object")?;
    let tokens = |text: &str, pair: Option<&str>| {
        let encoded = tokenizer.encode(text, pair);
        let encoded = encoded.map_err(|error| error.to_string())?;
        Ok::<_, String>(Sequence {
            ids: encoded.ids,
            segments: encoded.segments,
        })
    };
    match task {
        ScoreTask::Choice => {
            let text = field(object, "text")?;
            let choices = object.get("choices").and_then(Value::as_array);
            let choices = choices.filter(|choices| !choices.is_empty());
            let choices = choices.ok_or("\"choices\" is no list of texts")?;
            let choice = |choice: &Value| match choice.as_str() {
                Some(choice) => tokens(text, Some(choice)),
                None => Err(format!("the choice {choice} is no text")),
            };
            of(choices.iter().map(choice).collect::<Result<_, String>>()?)
        }
        ScoreTask::Seq2seq => {
            let [source, target] = source_and_target(object)?;
            let row = of(vec![tokens(source, None)?])?;
            let target = tokens(target, None)?.ids;
            match target.is_empty() {
                true => Err("the target gives no token".into()),
                false => Ok(Row { target, ..row }),
            }
        }
        _ => {
            let text = field(object, "text")?;
            let pair = object.get("text_pair").filter(|value| !value.is_null());
            let pair = pair.map(|_| field(object, "text_pair")).transpose()?;
            of(vec![tokens(text, pair)?])
        }
    }
}

/// By these names, or by those of a decoder's rows.
fn source_and_target(object: &Map<String, Value>) -> Result<[&str; 2], String> {
    let has = |name: &str| object.contains_key(name);
    let names = match has("prompt") && has("completion") {
        true => ["prompt", "completion"],
        false => ["source", "target"],
    };
    Ok([field(object, names[0])?, field(object, names[1])?])
}

fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    match object.get(name) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("\"{name}\" is {other}, not a text")),
        None => {
            let names: Vec<String> = object.keys().map(|key| format!("\"{key}\"")).collect();
            Err(format!(
                "\"{name}\" is missing; the row has {}",
                match names.is_empty() {
                    true => "nothing".to_owned(),
                    false => names.join(", "),
                }
            ))
        }
    }
}
