use serde_json::json;

use super::*;
use crate::label::Label;
use crate::message::Message;

fn row(value: Value, format: RowFormat) -> Result<Row, String> {
    parse(value.as_object().unwrap().clone(), format).map_err(|fault| fault.to_string())
}

fn chat(value: Value, format: RowFormat) -> Chat {
    match row(value, format).unwrap() {
        Row::Chat(chat) => chat,
        other => panic!("{other:?}"),
    }
}

fn plain(messages: &[Message]) -> Vec<(&str, &str)> {
    let text = |message: &'static str| message;
    let _ = text;
    messages
        .iter()
        .map(|m| (m.role(), m.as_map()["content"].as_str().unwrap()))
        .collect()
}

#[test]
fn messages_keep_what_the_template_may_want() {
    let chat = chat(
        json!({
            "messages": [
                {"role": "user", "content": "hi", "name": null},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "1", "function": {"name": "f", "arguments": "{\"b\": 1, \"a\": 2}"}}
                ]},
                {"role": "tool", "content": "3", "tool_call_id": "1"},
                {"role": "assistant", "content": "three", "reasoning_content": "well"},
            ],
            "tools": "[{\"type\": \"function\"}]",
        }),
        RowFormat::Messages,
    );
    let values: Vec<Value> = chat
        .messages
        .iter()
        .map(|m| Value::Object(m.as_map().clone()))
        .collect();
    assert_eq!(
        json!(values).to_string(),
        json!([
            {"role": "user", "content": "hi"},
            {"role": "assistant", "tool_calls": [
                {"id": "1", "function": {"name": "f", "arguments": {"b": 1, "a": 2}}}
            ]},
            {"role": "tool", "content": "3", "tool_call_id": "1"},
            {"role": "assistant", "content": "three", "reasoning_content": "well"},
        ])
        .to_string()
    );
    assert_eq!(chat.tools, Some(vec![json!({"type": "function"})]));
    assert_eq!(chat.assistant_turns().collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn alpaca_becomes_a_conversation() {
    let chat = chat(
        json!({
            "instruction": "add", "input": "1 2", "output": "3", "system": "you add",
            "history": [["hi", "hello"]],
        }),
        RowFormat::Alpaca,
    );
    assert_eq!(
        plain(&chat.messages),
        [
            ("system", "you add"),
            ("user", "hi"),
            ("assistant", "hello"),
            ("user", "add\n1 2"),
            ("assistant", "3"),
        ]
    );
    let error = row(
        json!({"instruction": "a", "output": "b", "history": [["x"]]}),
        RowFormat::Alpaca,
    );
    assert_eq!(
        error.unwrap_err(),
        "\"history[0]\" is a list; it must be a list of two strings, the user's and the assistant's"
    );
}

#[test]
fn sharegpt_becomes_a_conversation() {
    let chat = chat(
        json!({
            "conversations": [
                {"from": "human", "value": "what is the weather"},
                {"from": "function_call", "value": "{\"name\": \"weather\", \"arguments\": {\"in\": \"Oslo\"}}"},
                {"from": "observation", "value": "rain"},
                {"from": "gpt", "value": "It rains."},
            ],
            "system": "", "tools": "",
        }),
        RowFormat::Sharegpt,
    );
    assert_eq!(
        chat.messages.iter().map(Message::role).collect::<Vec<_>>(),
        ["user", "assistant", "tool", "assistant"]
    );
    assert_eq!(
        chat.messages[1].as_map()["tool_calls"],
        json!([{"type": "function", "function": {"name": "weather", "arguments": {"in": "Oslo"}}}])
    );
    let error = row(
        json!({"conversations": [{"from": "humn", "value": "a"}]}),
        RowFormat::Sharegpt,
    )
    .unwrap_err();
    assert!(
        error.starts_with(
            "\"conversations[0].from\" is \"humn\" (did you mean \"human\"?); it must be one of"
        ),
        "{error}"
    );
}

#[test]
fn prompt_and_completion_may_be_messages() {
    let chat = chat(
        json!({
            "prompt": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": "c"},
            ],
            "completion": [{"role": "assistant", "content": "d"}],
        }),
        RowFormat::PromptCompletion,
    );
    assert_eq!(chat.assistant_turns().collect::<Vec<_>>(), [3]);
    let error = row(
        json!({"prompt": [{"role": "user", "content": "a"}], "completion": "b"}),
        RowFormat::PromptCompletion,
    );
    assert!(error.unwrap_err().contains("messages beside messages"));
}

#[test]
fn labels_are_classes_or_values() {
    let label = |value: Value| match row(
        json!({"text": "a", "label": value}),
        RowFormat::Classification,
    ) {
        Ok(Row::Classification { label, .. }) => Ok(label),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    assert_eq!(label(json!(2)), Ok(Label::Id(2)));
    assert_eq!(label(json!("good")), Ok(Label::Name("good".into())));
    assert_eq!(label(json!(2.5)), Ok(Label::Value(2.5)));
    assert_eq!(label(json!(-0.5)), Ok(Label::Value(-0.5)));
    assert_eq!(label(json!(true)), Ok(Label::Id(1)));
    assert!(label(json!(-1)).unwrap_err().contains("without a label"));
    assert!(label(json!(null)).unwrap_err().contains("is null"));
}

#[test]
fn tags_are_as_many_as_words() {
    let tags = |tokens: Value, tags: Value| {
        row(json!({"tokens": tokens, "tags": tags}), RowFormat::Tagging)
    };
    assert_eq!(
        tags(json!(["a", "b"]), json!([0, "B-X"])).unwrap(),
        Row::Tagging {
            tokens: vec!["a".into(), "b".into()],
            tags: vec![Label::Id(0), Label::Name("B-X".into())],
        }
    );
    assert_eq!(
        tags(json!(["a", "b"]), json!([0])).unwrap_err(),
        "2 tokens, but 1 tags"
    );
    assert_eq!(
        tags(json!(["a", 3]), json!([0, 1])).unwrap_err(),
        "\"tokens[1]\" is a number; it must be a string"
    );
}

#[test]
fn a_preference_parts_where_its_conversations_do() {
    let user = json!({"role": "user", "content": "q"});
    let answer = |text: &str| json!({"role": "assistant", "content": text});
    let whole =
        json!({"chosen": [user, answer("a")], "rejected": [user, answer("b")], "prompt": "q"});
    let explicit = json!({"prompt": [user], "chosen": answer("a"), "rejected": [answer("b")]});
    for value in [whole, explicit] {
        match row(value, RowFormat::Preference).unwrap() {
            Row::ChatPreference { chosen, rejected } => {
                assert_eq!(plain(&chosen.messages), [("user", "q"), ("assistant", "a")]);
                assert_eq!(
                    plain(&rejected.messages),
                    [("user", "q"), ("assistant", "b")]
                );
                assert_eq!((chosen.learned_from, rejected.learned_from), (1, 1));
            }
            other => panic!("{other:?}"),
        }
    }
    let text = row(
        json!({"prompt": "q", "chosen": "a", "rejected": "b"}),
        RowFormat::Preference,
    );
    assert!(matches!(text, Ok(Row::Preference { .. })));
    let error = row(
        json!({"chosen": "a", "rejected": "b"}),
        RowFormat::Preference,
    );
    assert!(error.unwrap_err().contains("\"prompt\" is missing"));
}

#[test]
fn faults_say_where_in_the_row() {
    for (messages, expected) in [
        (
            json!([3]),
            "\"messages[0]\" is a number; it must be an object",
        ),
        (
            json!([{"content": "a"}]),
            "\"messages[0]\" has neither \"role\" nor \"from\"",
        ),
        (
            json!([{"role": "asistant", "content": "a"}]),
            "\"messages[0].role\" is \"asistant\" (did you mean \"assistant\"?)",
        ),
        (
            json!([{"role": "user", "content": 3}]),
            "\"messages[0].content\" is a number",
        ),
        (
            json!([{"role": "user"}]),
            "\"messages[0].content\" is missing",
        ),
        (
            json!([{"role": "assistant", "tool_calls": [{"function": {}}]}]),
            "\"messages[0].tool_calls[0].function.name\" is null",
        ),
        (
            json!([{"role": "user", "content": "a"}]),
            "no message is from the assistant",
        ),
        (json!([]), "\"messages\" is empty"),
        (json!("x"), "\"messages\" is a string; it must be a list"),
    ] {
        let error = row(json!({"messages": messages}), RowFormat::Messages).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}
