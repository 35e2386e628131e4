//! Conversations, in the ways that data sets write them.

use serde_json::{Map, Value, json};

use super::{Object, take_list, take_optional_text, take_text, type_of, wrong};
use crate::columns::nearest;
use crate::fault::RowFault;
use crate::message::{Chat, Message};

/// Who speaks in messages of `role`, and in those of `from`.
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];
const SPEAKERS: [(&str, &str); 10] = [
    ("human", "user"),
    ("user", "user"),
    ("gpt", "assistant"),
    ("assistant", "assistant"),
    ("chatgpt", "assistant"),
    ("model", "assistant"),
    ("system", "system"),
    ("function_call", "assistant"),
    ("observation", "tool"),
    ("tool", "tool"),
];

/// `messages`, `tools`.
pub(super) fn messages(mut object: Object) -> Result<Chat, RowFault> {
    checked(Chat {
        messages: take_messages(&mut object, "messages")?,
        tools: take_tools(&mut object)?,
        learned_from: 0,
    })
}

/// `conversations`, `system`, `tools`.
pub(super) fn sharegpt(mut object: Object) -> Result<Chat, RowFault> {
    let mut messages = take_messages(&mut object, "conversations")?;
    if let Some(system) = take_optional_text(&mut object, "system")? {
        messages.insert(0, Message::new("system", &system));
    }
    checked(Chat {
        messages,
        tools: take_tools(&mut object)?,
        learned_from: 0,
    })
}

/// `instruction`, `input`, `output`, `system`, `history`: one conversation, whose user says the instruction and, on the
/// next line, the input. The answers of the history are learned, too.
pub(super) fn alpaca(mut object: Object) -> Result<Chat, RowFault> {
    let mut instruction = take_text(&mut object, "instruction")?;
    if let Some(input) = take_optional_text(&mut object, "input")? {
        instruction = match instruction.trim().is_empty() {
            true => input,
            false => format!("{instruction}\n{input}"),
        };
    }
    let output = take_text(&mut object, "output")?;
    let mut messages = Vec::new();
    if let Some(system) = take_optional_text(&mut object, "system")? {
        messages.push(Message::new("system", &system));
    }
    for (turn, pair) in take_list(&mut object, "history")?
        .into_iter()
        .flatten()
        .enumerate()
    {
        let texts = pair.as_array().and_then(|pair| match pair.as_slice() {
            [user, assistant] => Some((user.as_str()?, assistant.as_str()?)),
            _ => None,
        });
        let Some((user, assistant)) = texts else {
            let expected = "a list of two strings, the user's and the assistant's";
            return Err(wrong(format!("history[{turn}]"), &pair, expected));
        };
        messages.push(Message::new("user", user));
        messages.push(Message::new("assistant", assistant));
    }
    for (key, text) in [("instruction", &instruction), ("output", &output)] {
        if text.trim().is_empty() {
            return Err(RowFault::Empty(key));
        }
    }
    messages.push(Message::new("user", &instruction));
    messages.push(Message::new("assistant", &output));
    Ok(Chat {
        messages,
        tools: take_tools(&mut object)?,
        learned_from: 0,
    })
}

/// The chat, if there is something to learn in it.
pub(super) fn checked(chat: Chat) -> Result<Chat, RowFault> {
    let has_turn = chat.assistant_turns().next().is_some();
    match has_turn {
        true => Ok(chat),
        false => Err(RowFault::NoAssistant),
    }
}

/// A column of messages: a list, the JSON of one, or a single message.
pub(super) fn take_messages(
    object: &mut Object,
    key: &'static str,
) -> Result<Vec<Message>, RowFault> {
    if let Some(Value::Object(_)) = object.get(key) {
        let single = object.shift_remove(key).unwrap_or_default();
        return Ok(vec![message(single, key)?]);
    }
    let list = take_list(object, key)?.unwrap_or_default();
    if list.is_empty() {
        return Err(RowFault::Empty(key));
    }
    let each = list.into_iter().enumerate();
    each.map(|(index, value)| message(value, &format!("{key}[{index}]")))
        .collect()
}

/// Functions to call, as a list or as the JSON of one.
pub(super) fn take_tools(object: &mut Object) -> Result<Option<Vec<Value>>, RowFault> {
    let tools = take_list(object, "tools")?.filter(|tools| !tools.is_empty());
    let fault = tools
        .iter()
        .flatten()
        .enumerate()
        .find(|(_, tool)| !tool.is_object());
    match fault {
        Some((index, tool)) => Err(wrong(format!("tools[{index}]"), tool, "an object")),
        None => Ok(tools),
    }
}

/// A message of `role` and `content`, or of `from` and `value`.
fn message(value: Value, at: &str) -> Result<Message, RowFault> {
    let Value::Object(map) = value else {
        return Err(wrong(at, &value, "an object"));
    };
    match (map.contains_key("role"), map.contains_key("from")) {
        (true, _) => openai(map, at),
        (false, true) => spoken(map, at),
        (false, false) => Err(RowFault::Value {
            at: at.into(),
            found: "has neither \"role\" nor \"from\"".into(),
            expected: "a message of \"role\" and \"content\", or of \"from\" and \"value\"".into(),
        }),
    }
}

/// A message as in OpenAI's interface. Keys that are null are dropped, as Transformers does; arguments of calls that are
/// the JSON of an object become the object, which is what templates want.
fn openai(mut map: Map<String, Value>, at: &str) -> Result<Message, RowFault> {
    map.retain(|_, value| !value.is_null());
    let role = map.get("role").cloned().unwrap_or_default();
    let Some(role) = role.as_str() else {
        return Err(wrong(format!("{at}.role"), &role, "a string"));
    };
    if !ROLES.contains(&role) {
        return Err(unknown(format!("{at}.role"), role, &ROLES));
    }
    match map.get("content") {
        Some(Value::String(_)) => (),
        Some(Value::Array(parts)) => {
            let text = |part: &Value| part.get("type").is_some_and(Value::is_string);
            if let Some(index) = parts.iter().position(|part| !text(part)) {
                let expected = "a part with a \"type\", such as {\"type\": \"text\", \"text\": ..}";
                return Err(wrong(
                    format!("{at}.content[{index}]"),
                    &parts[index],
                    expected,
                ));
            }
        }
        Some(other) => {
            return Err(wrong(
                format!("{at}.content"),
                other,
                "a string or a list of parts",
            ));
        }
        None if role == "assistant" && map.contains_key("tool_calls") => (),
        None => {
            return Err(RowFault::Value {
                at: format!("{at}.content"),
                found: "is missing".into(),
                expected: "a string or a list of parts".into(),
            });
        }
    }
    match map.get_mut("tool_calls") {
        Some(Value::Array(calls)) => {
            for (index, call) in calls.iter_mut().enumerate() {
                tool_call(call, &format!("{at}.tool_calls[{index}]"))?;
            }
        }
        Some(other) => return Err(wrong(format!("{at}.tool_calls"), other, "a list")),
        None => (),
    }
    Ok(Message::from_map(map))
}

fn tool_call(call: &mut Value, at: &str) -> Result<(), RowFault> {
    let function = match call.get("function") {
        Some(_) => call.get_mut("function"),
        None => Some(call),
    };
    let Some(Value::Object(function)) = function else {
        return Err(RowFault::Value {
            at: at.into(),
            found: "has no object \"function\"".into(),
            expected: "a call such as {\"function\": {\"name\": .., \"arguments\": ..}}".into(),
        });
    };
    if !function.get("name").is_some_and(Value::is_string) {
        let found = function.get("name").cloned().unwrap_or_default();
        return Err(wrong(format!("{at}.function.name"), &found, "a string"));
    }
    if let Some(Value::String(text)) = function.get("arguments")
        && let Ok(object @ Value::Object(_)) = serde_json::from_str(text)
    {
        function.insert("arguments".into(), object);
    }
    Ok(())
}

/// A message of `from` and `value`. A `function_call` is the JSON of a call, or of a list of them.
fn spoken(mut map: Map<String, Value>, at: &str) -> Result<Message, RowFault> {
    let from = map.shift_remove("from").unwrap_or_default();
    let Some(from) = from.as_str() else {
        return Err(wrong(format!("{at}.from"), &from, "a string"));
    };
    let Some((_, role)) = SPEAKERS.iter().find(|(speaker, _)| *speaker == from) else {
        let speakers = SPEAKERS.map(|(speaker, _)| speaker);
        return Err(unknown(format!("{at}.from"), from, &speakers));
    };
    let value = map.shift_remove("value").unwrap_or_default();
    let Some(text) = value.as_str() else {
        return Err(wrong(format!("{at}.value"), &value, "a string"));
    };
    if from != "function_call" {
        return Ok(Message::new(role, text));
    }
    let calls = match serde_json::from_str(text) {
        Ok(Value::Array(calls)) => calls,
        Ok(call @ Value::Object(_)) => vec![call],
        Ok(other) => return Err(wrong(format!("{at}.value"), &other, "the JSON of a call")),
        Err(error) => {
            return Err(RowFault::Value {
                at: format!("{at}.value"),
                found: format!("is not JSON ({error})"),
                expected: "the JSON of a call: {\"name\": .., \"arguments\": ..}".into(),
            });
        }
    };
    let mut tool_calls = Vec::with_capacity(calls.len());
    for (index, mut call) in calls.into_iter().enumerate() {
        tool_call(&mut call, &format!("{at}.value[{index}]"))?;
        tool_calls.push(match call.get("function") {
            Some(_) => call,
            None => json!({"type": "function", "function": call}),
        });
    }
    let message = json!({"role": "assistant", "content": "", "tool_calls": tool_calls});
    match message {
        Value::Object(map) => Ok(Message::from_map(map)),
        other => Err(wrong(at, &other, type_of(&other))),
    }
}

fn unknown(at: String, found: &str, known: &[&str]) -> RowFault {
    let near = match nearest(found, known) {
        Some(name) => format!(" (did you mean \"{name}\"?)"),
        None => String::new(),
    };
    RowFault::Value {
        at,
        found: format!("is \"{found}\"{near}"),
        expected: format!("one of {}", known.join(", ")),
    }
}
