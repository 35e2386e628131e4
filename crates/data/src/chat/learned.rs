//! Which parts of a conversation are learned.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::template::ChatTemplate;
use crate::error::DataError;
use crate::fault::RowFault;
use crate::message::Chat;

/// Which of the assistant's turns are learned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Learn {
    /// Every one.
    #[default]
    EveryTurn,
    /// The last one.
    LastTurn,
}

impl ChatTemplate {
    /// A conversation as text, with the bytes that are learned: the assistant's words and what ends them.
    ///
    /// They are what the template marks by `{% generation %}`. Without marks, a turn is what the rendering of the messages
    /// up to it has more than that of the messages before it, with its generation prompt; so the one must begin with the
    /// other, and the whole with both.
    pub(crate) fn learned(
        &self,
        chat: &Chat,
        learn: Learn,
        ends: &[String],
    ) -> Result<(String, Vec<Range<usize>>), RowFault> {
        let rendered = self.text_of(chat, chat.messages.len(), false)?;
        let turns: Vec<usize> = match learn {
            Learn::EveryTurn => chat.assistant_turns().collect(),
            Learn::LastTurn => chat.assistant_turns().next_back().into_iter().collect(),
        };
        if turns.is_empty() {
            return Err(RowFault::NoAssistant);
        }
        if self.marks_assistant() {
            let all = chat
                .messages
                .iter()
                .filter(|message| message.is_assistant())
                .count();
            let spans = of_marks(rendered.marked, all, turns.len(), learn)?;
            return Ok((rendered.text, spans));
        }
        let mut spans: Vec<Range<usize>> = Vec::with_capacity(turns.len());
        for turn in turns {
            let unstable = RowFault::NotPrefixStable { message: turn + 1 };
            let before = self.text_of(chat, turn, true)?.text;
            let until = match turn + 1 == chat.messages.len() {
                true => rendered.text.clone(),
                false => self.text_of(chat, turn + 1, false)?.text,
            };
            let is_stable = until.starts_with(&before) && rendered.text.starts_with(&until);
            if !is_stable {
                return Err(unstable);
            }
            let end = before.len() + without_space_after_end(&until[before.len()..], ends);
            // Turns that follow each other may be rendered as one.
            let start = spans
                .last()
                .map_or(before.len(), |last| last.end.max(before.len()));
            if start < end {
                spans.push(start..end);
            }
        }
        Ok((rendered.text, spans))
    }

    fn text_of(
        &self,
        chat: &Chat,
        messages: usize,
        prompt: bool,
    ) -> Result<super::Rendered, RowFault> {
        let rendered = self.render(&chat.messages[..messages], chat.tools.as_deref(), prompt);
        rendered.map_err(|error| match error {
            DataError::Template(message) => RowFault::Template(message),
            other => RowFault::Template(other.to_string()),
        })
    }
}

/// The marked bytes that are learned, of the marks of `all` assistant's messages of which the last `wanted` are.
fn of_marks(
    marked: Vec<Range<usize>>,
    all: usize,
    wanted: usize,
    learn: Learn,
) -> Result<Vec<Range<usize>>, RowFault> {
    let skip = match (wanted == all, marked.len() == all, learn) {
        (true, _, Learn::EveryTurn) => 0,
        (_, _, Learn::LastTurn) => marked.len().saturating_sub(1),
        (false, true, _) => all - wanted,
        (false, false, _) => {
            let message = format!(
                "it marks {} parts of {all} messages of the assistant, so that those to learn cannot be told",
                marked.len()
            );
            return Err(RowFault::Template(message));
        }
    };
    let spans: Vec<Range<usize>> = marked
        .into_iter()
        .skip(skip)
        .filter(|span| !span.is_empty())
        .collect();
    match spans.is_empty() {
        true => Err(RowFault::Template(
            "it marks nothing of the assistant's".into(),
        )),
        false => Ok(spans),
    }
}

/// The length of `words` without the white space after a token that ends a turn: the model stops there.
fn without_space_after_end(words: &str, ends: &[String]) -> usize {
    let trimmed = words.trim_end();
    match ends.iter().any(|end| trimmed.ends_with(end.as_str())) {
        true => trimmed.len(),
        false => words.len(),
    }
}
