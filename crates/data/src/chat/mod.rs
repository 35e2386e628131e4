//! Conversations as text, by the tokenizer's own template.

mod learned;
mod python;
mod source;
mod template;

pub use learned::Learn;
pub use source::ChatTemplates;
pub use template::{ChatTemplate, Rendered};

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
