//! `burn-lora inspect`: a data set as a model will see it, a checkpoint, or an adapter.

mod adapter;
mod adapters;
mod checkpoint;
mod part;
mod shown;

use std::path::Path;

use burn_lora::data::{
    DataFiles, EncodeReport, Row, RowEncoder, Rows, Tokenizer, encode_preferences, encode_with,
    read_files,
};
use burn_lora::train::{RunConfig, read_tokenizer};
use burn_lora::transformer::ModelConfig;
use burn_lora_hub::Wanted;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::train;
use crate::failure::{Failure, Kind};
use crate::output::Output;
use crate::progress::Bar;
use crate::source;
use shown::{Segment, segments};

/// The options of `inspect`.
#[derive(Debug, Args)]
pub struct InspectOptions {
    /// Data: a file, a folder with train, valid and test, a pattern, or the configuration of a run; or the folder of a
    /// checkpoint or of an adapter
    #[arg(value_name = "DATA|CONFIG.yaml|DIR")]
    pub place: String,

    /// Settings as those of `train`: data.format=text, max_seq_len=256, chat_template=chatml
    #[arg(value_name = "key=value")]
    pub settings: Vec<String>,

    /// Folder of the model whose tokenizer reads the data, or its name on the hub; a configuration names it itself
    #[arg(long, value_name = "DIR|NAME")]
    pub model: Option<String>,

    /// Rows to show
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub rows: usize,

    /// Which part of the data
    #[arg(long, value_enum, default_value_t = Part::Train)]
    pub part: Part,
}

/// Parts of a data set.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Part {
    /// To learn from
    Train,
    /// To validate with
    Valid,
    /// To measure at the end
    Test,
}

/// Runs the command.
pub fn run(options: &InspectOptions, output: &Output) -> Result<(), Failure> {
    let place = Path::new(&options.place);
    // An adapter first: some folders hold the configuration of the base beside it.
    if place.join(ADAPTER).is_file() {
        return adapters::run(place, output);
    }
    if place.join("config.json").is_file() {
        return checkpoint::run(place, output);
    }
    // What a run with several methods wrote: a folder of folders.
    if holds_adapters(place) {
        return adapters::run(place, output);
    }
    data(options, output)
}

/// What an adapter's folder has, and no other.
const ADAPTER: &str = "adapter_config.json";

/// Whether a folder has folders of adapters in it.
fn holds_adapters(place: &Path) -> bool {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    let mut folders = entries.map(|entry| entry.path().join(ADAPTER));
    folders.any(|config| config.is_file())
}

fn data(options: &InspectOptions, output: &Output) -> Result<(), Failure> {
    let config = config(options)?;
    let folder = source::folder(&config.model, config.revision.as_deref(), Wanted::Tokenizer)?;
    let tokenizer = match ModelConfig::read(&folder) {
        // Of models that do not write, a folder need not name a token that ends what is written.
        Ok(ModelConfig::Encoder(_) | ModelConfig::T5(_)) => {
            Tokenizer::from_encoder_folder(&folder)?
        }
        _ => read_tokenizer(&config, &folder)?,
    };
    let found = DataFiles::find(&config.data.path)?;
    let files = match options.part {
        Part::Train => found.train,
        Part::Valid => found.valid,
        Part::Test => found.test,
    };
    if files.is_empty() {
        let reason = format!("{} has no such part", config.data.path);
        return Err(Failure::new(Kind::Data, reason));
    }
    let rows = read_files(&files, &config.read_options())?;
    let report = report(&rows, &tokenizer, &config)?;

    let mut lines = vec![
        format!(
            "format      {} ({})",
            rows.format().name(),
            rows.format().columns()
        ),
        format!("files       {}", listed(&files)),
    ];
    lines.extend(report.iter().flat_map(EncodeReport::lines));
    let mut objects = Vec::new();
    for index in 0..options.rows.min(rows.len()) {
        let (Some(row), Some((path, place))) = (rows.get(index), rows.place(index)) else {
            break;
        };
        lines.push(String::new());
        let at = format!("{}:{place}", path.display());
        let (told, object) = row_of(row, &tokenizer, &config, output)?;
        lines.push(format!("{at}  {}", told[0]));
        lines.extend(told.into_iter().skip(1));
        objects.push(json!({"path": path, "place": place.number(), "row": object}));
    }
    let object = json!({
        "command": "inspect",
        "kind": "data",
        "format": rows.format(),
        "files": files,
        "report": report,
        "rows": objects,
    });
    output.done(&lines, &object);
    Ok(())
}

fn config(options: &InspectOptions) -> Result<RunConfig, Failure> {
    let is_config = [".yaml", ".yml"]
        .iter()
        .any(|end| options.place.ends_with(end));
    let mut settings = options.settings.clone();
    let set = |key: &str, value: &str| format!("{key}={}", json!(value));
    settings.extend(options.model.iter().map(|model| set("model", model)));
    if is_config {
        return train::read(Path::new(&options.place), &settings);
    }
    if options.model.is_none() {
        let reason = "--model is missing: the folder of the model whose tokenizer reads the data";
        return Err(Failure::new(Kind::Usage, reason));
    }
    settings.push(set("data.path", &options.place));
    Ok(RunConfig::parse("", &settings)?)
}

/// The counts of the whole data set; none for labelled rows, which are no text to learn.
fn report(
    rows: &Rows,
    tokenizer: &Tokenizer,
    config: &RunConfig,
) -> Result<Option<EncodeReport>, Failure> {
    let options = config.encode_options();
    let bar = Bar::rows("tokenizing");
    let progress = |done: usize, all: usize| bar.set(done as u64, all as u64);
    Ok(match rows.get(0) {
        Some(Row::Preference { .. } | Row::ChatPreference { .. }) => {
            Some(encode_preferences(rows, tokenizer, &options)?.1)
        }
        Some(Row::Classification { .. } | Row::Tagging { .. }) => None,
        _ => Some(encode_with(rows, tokenizer, &options, &progress)?.report),
    })
}

/// A row in lines and as an object.
fn row_of(
    row: &Row,
    tokenizer: &Tokenizer,
    config: &RunConfig,
    output: &Output,
) -> Result<(Vec<String>, Value), Failure> {
    let answers = match row {
        Row::Preference {
            prompt,
            chosen,
            rejected,
        } => [("chosen", chosen), ("rejected", rejected)]
            .map(|(name, completion)| {
                let (prompt, completion) = (prompt.clone(), completion.clone());
                (name, Row::PromptCompletion { prompt, completion })
            })
            .to_vec(),
        Row::ChatPreference { chosen, rejected } => vec![
            ("chosen", Row::Chat(chosen.clone())),
            ("rejected", Row::Chat(rejected.clone())),
        ],
        Row::Classification {
            text,
            text_pair,
            label,
        } => {
            let mut lines = vec![format!("label {label}"), format!("  text    {text:?}")];
            lines.extend(text_pair.iter().map(|text| format!("  pair    {text:?}")));
            let label = label.to_string();
            return Ok((
                lines,
                json!({"text": text, "text_pair": text_pair, "label": label}),
            ));
        }
        Row::Tagging { tokens, tags } => {
            let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
            let pair = |(token, tag): (&String, &String)| format!("  {token:<20} {tag}");
            let mut lines = vec![format!("{} words", tokens.len())];
            lines.extend(tokens.iter().zip(&tags).map(pair));
            return Ok((lines, json!({"tokens": tokens, "tags": tags})));
        }
        other => vec![("", other.clone())],
    };
    let options = config.encode_options();
    let encoder = RowEncoder::new(tokenizer, &options, answers.iter().map(|(_, row)| row))?;
    let mut lines = Vec::new();
    let mut object = Vec::new();
    for (name, row) in answers {
        let Ok(encoded) = encoder.encode(&row) else {
            lines.push(format!(
                "{name} nothing to learn within {} tokens",
                options.max_len
            ));
            continue;
        };
        let cut = if encoded.was_cut {
            format!(", cut from {}", encoded.tokens)
        } else {
            String::new()
        };
        for example in &encoded.examples {
            let space = if name.is_empty() { "" } else { " " };
            lines.push(format!(
                "{name}{space}{} tokens, {} learned{cut}",
                example.len(),
                example.learned_len()
            ));
            let segments = segments(example, tokenizer);
            lines.extend(
                segments
                    .iter()
                    .map(|segment| segment.line(output.has_colors())),
            );
            let segments: Vec<Value> = segments.iter().map(Segment::object).collect();
            object.push(json!({"name": name, "cut": encoded.was_cut, "segments": segments}));
        }
    }
    Ok((lines, Value::Array(object)))
}

fn listed(files: &[std::path::PathBuf]) -> String {
    let mut names: Vec<String> = files
        .iter()
        .take(4)
        .map(|file| file.display().to_string())
        .collect();
    if files.len() > 4 {
        names.push(format!("and {} more", files.len() - 4));
    }
    names.join(", ")
}
