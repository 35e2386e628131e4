//! `burn-lora generate`: prompts continued, or a conversation held.

use std::io::{BufRead, Write, stdin, stdout};
use std::path::PathBuf;

use burn_lora::data::{ChatTemplate, DataError, Message, Tokenizer};
use burn_lora::transformer::{
    Decoding, Detokenizer, GenerateError, GenerateOptions as Request, Sampling, TextEvent,
    generate_text, stream_text,
};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::failure::{Failure, Kind};
use crate::model::{Loaded, ModelOptions};
use crate::output::Output;

/// The options of `generate`.
#[derive(Debug, Args)]
pub struct GenerateOptions {
    #[command(flatten)]
    pub model: ModelOptions,

    #[command(flatten)]
    pub input: Input,

    /// Write prompts down as the user's words of a conversation
    #[arg(long)]
    pub as_chat: bool,

    /// The built-in template (chatml), or a file with one, instead of the tokenizer's
    #[arg(long, value_name = "chatml|FILE")]
    pub chat_template: Option<String>,

    /// What the system says first in a conversation
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,

    /// Most tokens of an answer; without it 256, or what the prompt leaves of the model's positions
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,

    /// End an answer before this text; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,

    /// Draw tokens at random, from logits divided by this; without it the most likely token is taken
    #[arg(long)]
    pub temperature: Option<f64>,

    /// Draw among the most likely tokens that together have this probability
    #[arg(long, requires = "temperature")]
    pub top_p: Option<f64>,

    /// Draw among so many of the most likely tokens
    #[arg(long, requires = "temperature")]
    pub top_k: Option<usize>,

    /// Draw among tokens at least this share as likely as the most likely one
    #[arg(long, requires = "temperature")]
    pub min_p: Option<f64>,

    /// Divide the logits of tokens that were there by this; 1 is none
    #[arg(long, default_value_t = 1.0)]
    pub repetition_penalty: f64,

    /// Seed of random draws
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// What is continued.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Input {
    /// Text to continue; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub prompt: Vec<String>,

    /// A file with a prompt a line
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// A conversation on the terminal, one line a turn; an empty line ends it
    #[arg(long)]
    pub chat: bool,
}

/// Prompts that are answered together.
const TOGETHER: usize = 8;

/// Runs the command.
pub fn run(options: &GenerateOptions, output: &Output) -> Result<(), Failure> {
    let prompts = match &options.input.file {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| {
                Failure::new(
                    Kind::Data,
                    format!("cannot read {}: {error}", path.display()),
                )
            })?
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(str::to_string)
            .collect(),
        None => options.input.prompt.clone(),
    };
    let loaded = options.model.load()?;
    let tokenizer = Tokenizer::from_folder(&loaded.folder)?;
    let request = Request {
        eos: tokenizer.stop_ids().to_vec(),
        decoding: match options.temperature {
            Some(temperature) => Decoding::Sample(Sampling {
                temperature,
                top_k: options.top_k,
                top_p: options.top_p,
                min_p: options.min_p,
            }),
            None => Decoding::Greedy,
        },
        repetition_penalty: options.repetition_penalty,
        seed: options.seed,
        ..Request::default()
    };
    if options.input.chat {
        return chat(options, &loaded, &tokenizer, &request, output);
    }
    let decode = |tokens: &[u32]| tokenizer.decode(tokens);
    let detokenizer = Detokenizer::new(decode).with_stop_strings(&options.stop);
    let template = match options.as_chat {
        true => Some(template(options, &tokenizer)?),
        false => None,
    };
    let mut answers = Vec::with_capacity(prompts.len());
    for some in prompts.chunks(TOGETHER) {
        let ids = some.iter().map(|prompt| match &template {
            Some(template) => {
                let mut messages = opening(options);
                messages.push(Message::new("user", prompt));
                ids_of(template, &messages, &tokenizer)
            }
            None => tokenizer.encode_prompt(prompt),
        });
        let ids: Vec<Vec<u32>> = ids.collect::<Result<_, _>>()?;
        let request = within(options, &loaded, &request, &ids);
        let texts = generate_text(&loaded.model, &ids, &request, &detokenizer).map_err(refused)?;
        answers.extend(texts.into_iter().flatten().map(|answer| answer.text));
    }
    let whole = |(prompt, answer): (&String, &String)| format!("{prompt}{answer}");
    let lines: Vec<String> = match options.as_chat {
        true => answers.clone(),
        false => prompts.iter().zip(&answers).map(whole).collect(),
    };
    let pairs = prompts.iter().zip(&answers);
    let pairs = pairs.map(|(prompt, answer)| json!({"prompt": prompt, "answer": answer}));
    let object = json!({
        "command": "generate",
        "device": loaded.device,
        "answers": pairs.collect::<Vec<_>>(),
    });
    output.done(&lines, &object);
    Ok(())
}

/// Tokens of an answer that nobody has said a number for.
const MAX_NEW_TOKENS: usize = 256;

/// The request with as many tokens as the options say; without a number, as the longest prompt leaves.
fn within(
    options: &GenerateOptions,
    loaded: &Loaded,
    request: &Request,
    prompts: &[Vec<u32>],
) -> Request {
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let left = loaded.model.max_positions().saturating_sub(longest);
    Request {
        // A prompt that leaves none is told by its length.
        max_new_tokens: options
            .max_new_tokens
            .unwrap_or(left.clamp(1, MAX_NEW_TOKENS)),
        ..request.clone()
    }
}

/// Holds a conversation: reads a line, writes the answer as it grows; where an object is asked for, beside it.
fn chat(
    options: &GenerateOptions,
    loaded: &Loaded,
    tokenizer: &Tokenizer,
    request: &Request,
    output: &Output,
) -> Result<(), Failure> {
    let template = template(options, tokenizer)?;
    let decode = |tokens: &[u32]| tokenizer.decode(tokens);
    let detokenizer = Detokenizer::new(decode).with_stop_strings(&options.stop);
    let mut messages = opening(options);
    let told = |error: std::io::Error| Failure::new(Kind::Other, error);
    let say = |text: &str| {
        let mut place: Box<dyn Write> = match output.is_json() {
            true => Box::new(std::io::stderr()),
            false => Box::new(stdout()),
        };
        let _ = write!(place, "{text}").and_then(|()| place.flush());
    };
    loop {
        let _ = write!(std::io::stderr(), "> ");
        let mut line = String::new();
        let read = stdin().lock().read_line(&mut line).map_err(told)?;
        if read == 0 || line.trim().is_empty() {
            break;
        }
        messages.push(Message::new("user", line.trim()));
        let ids = [ids_of(&template, &messages, tokenizer)?];
        let request = within(options, loaded, request, &ids);
        let mut answer = String::new();
        for event in stream_text(&loaded.model, &ids, &request, &detokenizer).map_err(refused)? {
            if let TextEvent::Text { text, .. } = event.map_err(refused)? {
                say(&text);
                answer.push_str(&text);
            }
        }
        say("\n");
        messages.push(Message::new("assistant", answer.trim()));
    }
    if output.is_json() {
        let messages: Vec<&Map<String, Value>> = messages.iter().map(Message::as_map).collect();
        let object = json!({"command": "generate", "device": loaded.device, "messages": messages});
        output.done(&[], &object);
    }
    Ok(())
}

fn template(options: &GenerateOptions, tokenizer: &Tokenizer) -> Result<ChatTemplate, DataError> {
    match options.chat_template.as_deref() {
        None => tokenizer.chat_template(false),
        Some("chatml") => ChatTemplate::chatml(),
        Some(file) => {
            let tokens = tokenizer.chat_templates().map(|own| own.tokens().clone());
            ChatTemplate::from_file(file.as_ref(), tokens.unwrap_or_default())
        }
    }
}

fn opening(options: &GenerateOptions) -> Vec<Message> {
    options
        .system
        .iter()
        .map(|system| Message::new("system", system))
        .collect()
}

fn ids_of(
    template: &ChatTemplate,
    messages: &[Message],
    tokenizer: &Tokenizer,
) -> Result<Vec<u32>, DataError> {
    let rendered = template.render(messages, None, true)?;
    Ok(tokenizer.encode_with_offsets(&rendered.text)?.0)
}

fn refused(error: GenerateError) -> Failure {
    Failure::new(Kind::Usage, error)
}
