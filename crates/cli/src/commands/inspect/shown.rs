//! Tokens in runs of those that are learned and those that are not.

use burn_lora::data::{Example, Tokenizer};
use serde_json::{Value, json};

/// Neighbours of one kind.
pub struct Segment {
    learned: bool,
    ids: Vec<u32>,
    tokens: Vec<String>,
    text: String,
}

/// An example in runs.
pub fn segments(example: &Example, tokenizer: &Tokenizer) -> Vec<Segment> {
    let mut learned = vec![false; example.len()];
    for at in example.learned() {
        learned[at] = true;
    }
    let mut segments: Vec<Segment> = Vec::new();
    for (id, learned) in example.ids().iter().zip(learned) {
        let token = tokenizer.id_to_token(*id).unwrap_or_default();
        match segments.last_mut().filter(|last| last.learned == learned) {
            Some(last) => {
                last.ids.push(*id);
                last.tokens.push(token);
            }
            None => segments.push(Segment {
                learned,
                ids: vec![*id],
                tokens: vec![token],
                text: String::new(),
            }),
        }
    }
    for segment in &mut segments {
        // Special tokens are what this is looked at for.
        segment.text = tokenizer
            .inner()
            .decode(&segment.ids, false)
            .unwrap_or_default();
    }
    segments
}

impl Segment {
    /// A line of text with its escapes, green if it is learned and dim if not.
    pub fn line(&self, colors: bool) -> String {
        let name = if self.learned { "learned" } else { "given" };
        let text = format!("{:?}", self.text);
        match (colors, self.learned) {
            (false, _) => format!("  {name:<8}{text}"),
            (true, true) => format!("  {name:<8}\u{1b}[1;32m{text}\u{1b}[0m"),
            (true, false) => format!("  {name:<8}\u{1b}[2m{text}\u{1b}[0m"),
        }
    }

    /// The same for programs.
    pub fn object(&self) -> Value {
        json!({"learned": self.learned, "text": self.text, "ids": self.ids, "tokens": self.tokens})
    }
}
