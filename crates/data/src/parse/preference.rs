//! Two answers, of which one is preferred.

use serde_json::Value;

use super::chat::{checked, take_messages, take_tools};
use super::{Object, take_text};
use crate::fault::RowFault;
use crate::message::{Chat, Message};
use crate::rows::Row;

/// `prompt`, `chosen`, `rejected`: strings, or messages. Answers that are whole conversations need no prompt: it is what
/// both begin with.
pub(super) fn preference(mut object: Object) -> Result<Row, RowFault> {
    let are_messages = ["chosen", "rejected"].iter().any(|key| {
        object
            .get(*key)
            .is_some_and(|value| value.is_array() || value.is_object())
    });
    if !are_messages {
        if !object.contains_key("prompt") {
            return Err(RowFault::Value {
                at: "prompt".into(),
                found: "is missing".into(),
                expected: "a string, where the answers are strings".into(),
            });
        }
        return Ok(Row::Preference {
            prompt: take_text(&mut object, "prompt")?,
            chosen: take_text(&mut object, "chosen")?,
            rejected: take_text(&mut object, "rejected")?,
        });
    }
    let prompt = match object.get("prompt") {
        // Some sets repeat the first question as a string beside whole conversations.
        None | Some(Value::Null | Value::String(_)) => Vec::new(),
        Some(_) => take_messages(&mut object, "prompt")?,
    };
    let chosen = take_messages(&mut object, "chosen")?;
    let rejected = take_messages(&mut object, "rejected")?;
    let tools = take_tools(&mut object)?;
    let shared = match prompt.len() {
        0 => chosen
            .iter()
            .zip(&rejected)
            .take_while(|(a, b)| a == b)
            .count(),
        _ => 0,
    };
    // Equal conversations leave their last turn to learn.
    let shared = shared.min(chosen.len().min(rejected.len()).saturating_sub(1));
    let chat = |answer: Vec<Message>| {
        let messages: Vec<Message> = prompt.iter().cloned().chain(answer).collect();
        checked(Chat {
            messages,
            tools: tools.clone(),
            learned_from: prompt.len() + shared,
        })
    };
    Ok(Row::ChatPreference {
        chosen: chat(chosen)?,
        rejected: chat(rejected)?,
    })
}
