use serde_json::{Map, json};

use super::golden::{template, tokenizer};
use super::*;
use crate::encode::RowEncoder;
use crate::error::DataError;
use crate::fault::RowFault;
use crate::message::{Chat, Message};
use crate::rows::Row;
use crate::testing::{folder, words_json};
use crate::tokenizer::Tokenizer;
use crate::{EncodeOptions, Rows, encode};

fn chat(messages: &[(&str, &str)]) -> Chat {
    let message = |(role, content): &(&str, &str)| Message::new(role, content);
    Chat::new(messages.iter().map(message).collect())
}

const TWO_TURNS: [(&str, &str); 5] = [
    ("system", "be kind"),
    ("user", "one?"),
    ("assistant", "1"),
    ("user", "two?"),
    ("assistant", "2"),
];

/// The learned parts of a conversation, as text.
fn learned(template: ChatTemplate, chat: &Chat, learn: Learn) -> Result<Vec<String>, RowFault> {
    let tokenizer = tokenizer().with_chat_template(template);
    let options = EncodeOptions {
        learn,
        ..EncodeOptions::new(512)
    };
    let row = Row::Chat(chat.clone());
    let encoder = RowEncoder::new(&tokenizer, &options, [&row]).unwrap();
    let (text, spans) = encoder.chat_text(chat)?;
    // What the tokens say is what the bytes say.
    let encoded = encoder.encode(&row)?;
    let example = &encoded.examples[0];
    let words = |ids: &[u32]| tokenizer.inner().decode(ids, false).unwrap();
    let of_tokens: Vec<String> = example
        .spans()
        .iter()
        .map(|span| words(&example.ids()[span.clone()]))
        .collect();
    let of_bytes: Vec<String> = spans
        .into_iter()
        .map(|span| text[span].to_string())
        .collect();
    assert_eq!(of_tokens, of_bytes);
    Ok(of_bytes)
}

#[test]
fn every_turn_or_the_last_is_learned() {
    for (name, expected) in [
        ("qwen2", ["1<|im_end|>", "2<|im_end|>"]),
        ("llama3", ["1<|eot_id|>", "2<|eot_id|>"]),
        ("gemma", ["1<end_of_turn>", "2<end_of_turn>"]),
        ("phi", ["1<|end|>", "2<|end|>"]),
        ("marked", ["1<|im_end|>", "2<|im_end|>"]),
    ] {
        let chat = chat(&TWO_TURNS);
        let every = learned(template(name), &chat, Learn::EveryTurn).unwrap();
        assert_eq!(every, expected, "{name}");
        let last = learned(template(name), &chat, Learn::LastTurn).unwrap();
        assert_eq!(last, expected[1..], "{name}");
    }
    // Mistral's puts the system's words before the last question, wherever that is.
    let mistral = learned(
        template("mistral"),
        &chat(&TWO_TURNS[1..]),
        Learn::EveryTurn,
    )
    .unwrap();
    assert_eq!(mistral, [" 1</s>", " 2</s>"]);
}

#[test]
fn what_is_given_is_not_learned() {
    for name in ["qwen2", "marked"] {
        let mut chat = chat(&TWO_TURNS);
        chat.learned_from = 3;
        let found = learned(template(name), &chat, Learn::EveryTurn).unwrap();
        assert_eq!(found, ["2<|im_end|>"], "{name}");
    }
}

#[test]
fn a_template_that_changes_its_mind_is_refused() {
    let mut thinking = chat(&TWO_TURNS);
    thinking.messages[2] = Message::new("assistant", "<think>\nhm\n</think>\n\n1");
    let error = learned(template("qwen3"), &thinking, Learn::EveryTurn).unwrap_err();
    assert_eq!(error, RowFault::NotPrefixStable { message: 3 });
    assert!(error.to_string().contains("`learn: last_turn`"), "{error}");
    let last = learned(template("qwen3"), &thinking, Learn::LastTurn).unwrap();
    assert_eq!(last, ["<think>\n\n</think>\n\n2<|im_end|>"]);
    let system = chat(&TWO_TURNS);
    let error = learned(template("mistral"), &system, Learn::EveryTurn).unwrap_err();
    assert_eq!(error, RowFault::NotPrefixStable { message: 3 });
}

#[test]
fn a_call_of_a_tool_is_learned() {
    let mut messages = vec![Message::new("user", "cold?")];
    let call = json!({"role": "assistant", "tool_calls": [
        {"function": {"name": "weather", "arguments": {"place": "Oslo"}}}
    ]});
    messages.push(Message::from_map(call.as_object().unwrap().clone()));
    messages.push(Message::new("tool", "-4"));
    messages.push(Message::new("assistant", "yes"));
    let mut chat = Chat::new(messages);
    chat.tools = Some(vec![
        json!({"type": "function", "function": {"name": "weather"}}),
    ]);
    let found = learned(template("qwen2"), &chat, Learn::EveryTurn).unwrap();
    assert_eq!(found[1], "yes<|im_end|>");
    assert!(
        found[0].contains("{\"name\": \"weather\", \"arguments\": {\"place\": \"Oslo\"}}"),
        "{found:?}"
    );
}

#[test]
fn what_a_template_raises_is_told_with_its_row() {
    let tokenizer = tokenizer().with_chat_template(template("gemma"));
    let rows = Rows::new(
        "chats",
        [
            Row::Chat(chat(&TWO_TURNS)),
            Row::Chat(chat(&[("assistant", "first")])),
        ],
    )
    .unwrap();
    let error = encode(&rows, &tokenizer, &EncodeOptions::new(64))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "1 faulty row\n  chats:2: the chat template: Roles must go user, assistant, user, assistant (line 13)"
    );
}

#[test]
fn the_built_in_template_is_chatml() {
    let built_in = ChatTemplate::chatml().unwrap();
    let rendered = built_in
        .render(&chat(&TWO_TURNS[1..3]).messages, None, true)
        .unwrap();
    assert_eq!(
        rendered.text,
        "<|im_start|>user\none?<|im_end|>\n<|im_start|>assistant\n1<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(&rendered.text[rendered.marked[0].clone()], "1<|im_end|>");
    assert!(
        built_in
            .render(&chat(&TWO_TURNS).messages, Some(&[json!({})]), false)
            .is_err()
    );
}

#[test]
fn words_that_look_like_marks_stay() {
    let odd = chat(&[
        ("user", "\u{E000}0\u{E001}"),
        ("assistant", "\u{E000}1\u{E001}"),
    ]);
    let rendered = template("marked")
        .render(&odd.messages, None, false)
        .unwrap();
    assert!(
        rendered.text.contains("user\n\u{E000}0\u{E001}<"),
        "{:?}",
        rendered.text
    );
    assert_eq!(
        &rendered.text[rendered.marked[0].clone()],
        "\u{E000}1\u{E001}<|im_end|>"
    );
}

#[test]
fn a_folder_names_its_templates() {
    let config = json!({
        "eos_token": "</s>", "bos_token": {"content": "<s>"},
        "chat_template": [
            {"name": "default", "template": "{{ bos_token }}default"},
            {"name": "tool_use", "template": "tools"},
        ],
    });
    let dir = folder(&[
        ("tokenizer.json", &words_json(None)),
        ("tokenizer_config.json", &config.to_string()),
    ]);
    let text = |tokenizer: &Tokenizer, tools| {
        let template = tokenizer.chat_template(tools).unwrap();
        template
            .render(&chat(&TWO_TURNS).messages, None, false)
            .unwrap()
            .text
    };
    let tokenizer = Tokenizer::from_folder(dir.path()).unwrap();
    assert_eq!(
        (text(&tokenizer, false), text(&tokenizer, true)),
        ("<s>default".into(), "tools".into())
    );
    let error = tokenizer
        .chat_templates()
        .unwrap()
        .get(Some("rag"), false)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the chat template: the tokenizer has none called rag; it has default, tool_use"
    );
    std::fs::write(dir.path().join("chat_template.jinja"), "file").unwrap();
    let tokenizer = Tokenizer::from_folder(dir.path()).unwrap();
    assert_eq!(text(&tokenizer, false), "file");
}

#[test]
fn without_a_template_conversations_are_refused() {
    let rows = Rows::new("chats", [Row::Chat(chat(&TWO_TURNS))]).unwrap();
    let error = encode(&rows, &tokenizer(), &EncodeOptions::new(64)).unwrap_err();
    assert!(matches!(error, DataError::NoChatTemplate), "{error}");
    let broken = ChatTemplate::new("{% for %}", Map::new())
        .unwrap_err()
        .to_string();
    assert!(
        broken.starts_with("the chat template: ") && broken.ends_with("(line 1)"),
        "{broken}"
    );
}
