//! Conversations.

use serde_json::{Map, Value};

/// One message as the chat template sees it: `role`, `content`, and whatever else the row had (`tool_calls`, `name`,
/// `reasoning_content`), in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message(Map<String, Value>);

impl Message {
    /// A message of words only.
    pub fn new(role: &str, content: &str) -> Self {
        let mut map = Map::new();
        map.insert("role".into(), role.into());
        map.insert("content".into(), content.into());
        Self(map)
    }

    /// A message of an object that has a string `role`.
    pub(crate) fn from_map(map: Map<String, Value>) -> Self {
        Self(map)
    }

    /// Who speaks.
    pub fn role(&self) -> &str {
        self.0.get("role").and_then(Value::as_str).unwrap_or("")
    }

    /// Whether the model learns to write it.
    pub fn is_assistant(&self) -> bool {
        self.role() == "assistant"
    }

    /// All of it.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chat {
    /// The messages in order; at least one.
    pub messages: Vec<Message>,
    /// The functions that the assistant may call, as JSON schemas.
    pub tools: Option<Vec<Value>>,
    /// The first message that may be learned: those before it are given, whoever speaks.
    pub learned_from: usize,
}

impl Chat {
    /// A conversation whose assistant's turns are all learned.
    pub fn new(messages: Vec<Message>) -> Self {
        Self {
            messages,
            tools: None,
            learned_from: 0,
        }
    }

    /// The assistant's messages that may be learned.
    pub fn assistant_turns(&self) -> impl DoubleEndedIterator<Item = usize> {
        (self.learned_from..self.messages.len())
            .filter(|&index| self.messages[index].is_assistant())
    }
}
