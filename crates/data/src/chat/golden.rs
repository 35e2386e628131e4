//! Conversations as Transformers renders them (`tests/golden/chat.py`).

use std::collections::BTreeMap;

use chrono::NaiveDateTime;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::*;
use crate::error::DataError;
use crate::message::Message;
use crate::special_tokens::SpecialTokens;
use crate::tokenizer::Tokenizer;

const CASES: &str = include_str!("../../../../tests/golden/chat/cases.json");
const TOKENIZER: &[u8] = include_bytes!("../../../../tests/golden/chat/tokenizer.json");

macro_rules! templates {
    ($($name:literal),*) => {
        [$(($name, include_str!(concat!("../../../../tests/golden/chat/templates/", $name, ".jinja")))),*]
    };
}

const TEMPLATES: [(&str, &str); 10] = templates![
    "gemma", "llama3", "loose", "marked", "mistral", "phi", "python", "qwen2", "qwen3", "zephyr"
];

#[derive(Deserialize)]
struct Golden {
    time: NaiveDateTime,
    conversations: BTreeMap<String, Conversation>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Conversation {
    messages: Vec<Map<String, Value>>,
    tools: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    conversation: String,
    add_generation_prompt: bool,
    text: Option<String>,
    ids: Option<Vec<u32>>,
    mask: Option<Vec<usize>>,
    raised: Option<String>,
}

pub(super) fn tokens() -> Map<String, Value> {
    let tokens = json!({"bos_token": "<s>", "eos_token": "</s>"});
    tokens.as_object().unwrap().clone()
}

pub(super) fn tokenizer() -> Tokenizer {
    let inner = tokenizers::Tokenizer::from_bytes(TOKENIZER).unwrap();
    let id = |token: &str| inner.token_to_id(token).unwrap();
    let (bos, eos) = (id("<s>"), id("</s>"));
    let stop = [
        "</s>",
        "<|im_end|>",
        "<|eot_id|>",
        "<end_of_turn>",
        "<|end|>",
    ]
    .map(id)
    .to_vec();
    let special = SpecialTokens {
        bos: Some(bos),
        stop,
        ..SpecialTokens::new(eos)
    };
    Tokenizer::new(inner, special).unwrap()
}

pub(super) fn template(name: &str) -> ChatTemplate {
    let (_, source) = TEMPLATES.iter().find(|(found, _)| *found == name).unwrap();
    ChatTemplate::new(source, tokens()).unwrap()
}

#[test]
fn every_conversation_is_rendered_as_transformers_does() {
    let golden: Golden = serde_json::from_str(CASES).unwrap();
    let tokenizer = tokenizer();
    let mut wrong = Vec::new();
    let mut masks = 0;
    for case in &golden.cases {
        let name = format!(
            "{} {} {}",
            case.template, case.conversation, case.add_generation_prompt
        );
        let conversation = &golden.conversations[&case.conversation];
        let messages: Vec<Message> = conversation
            .messages
            .iter()
            .cloned()
            .map(Message::from_map)
            .collect();
        let template = template(&case.template).with_time(golden.time);
        let rendered = template.render(
            &messages,
            conversation.tools.as_deref(),
            case.add_generation_prompt,
        );
        match (rendered, &case.text) {
            (Ok(rendered), Some(text)) => {
                if rendered.text != *text {
                    wrong.push(format!("{name}:\n{:?}\nexpected\n{text:?}", rendered.text));
                    continue;
                }
                let (ids, offsets) = tokenizer.encode_with_offsets(text).unwrap();
                assert_eq!(Some(&ids), case.ids.as_ref(), "{name}");
                if let Some(mask) = &case.mask {
                    let spans = crate::encode::spans_of(&offsets, &rendered.marked);
                    let mut ours = vec![0; ids.len()];
                    spans.into_iter().flatten().for_each(|at| ours[at] = 1);
                    assert_eq!(&ours, mask, "{name}");
                    masks += 1;
                }
            }
            (Err(DataError::Template(message)), None) => {
                // What Jinja says of an attribute that is not there is its own.
                let raised = case
                    .raised
                    .as_ref()
                    .filter(|raised| !raised.contains("attribute"));
                assert!(
                    raised.is_none_or(|raised| message.contains(raised)),
                    "{name}: {message}"
                );
            }
            (Ok(rendered), None) => wrong.push(format!("{name}: not refused: {:?}", rendered.text)),
            (Err(error), _) => wrong.push(format!("{name}: {error}")),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(masks, 38);
}
