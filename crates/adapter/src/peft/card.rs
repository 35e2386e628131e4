//! The model card: `README.md`, whose first lines tell the hub what the folder is.

use std::fmt::Write;

use super::save::PeftMetadata;
use super::write::peft_type;
use crate::config::LoraConfig;

/// Where the lines for the hub begin and end.
const FENCE: &str = "---";

/// The card of an adapter; of one that is there, what the hub reads is brought up to date and all else is left.
pub(super) fn model_card(
    old: Option<&str>,
    config: &LoraConfig,
    metadata: &PeftMetadata,
    parameters: usize,
) -> String {
    let base = metadata.base_model_name_or_path.as_deref();
    let tag = peft_type(&config.method).to_ascii_lowercase();
    let rank = match config.method.has_rank() {
        true => format!(", rank {}", config.rank),
        false => String::new(),
    };
    let method = format!("{}{rank}", config.method);
    card_of(old, base, &tag, &method, parameters)
}

/// The card of what `method` names, with the tag `kind` on the hub; of a card that is there, what the hub reads is brought up to date and all else is
/// left.
pub fn card_of(
    old: Option<&str>,
    base: Option<&str>,
    kind: &str,
    method: &str,
    parameters: usize,
) -> String {
    let (head, body) = match old {
        Some(old) => split(old),
        None => (Vec::new(), fresh_body(base, method, parameters)),
    };
    let mut head: Vec<String> = head.into_iter().map(str::to_string).collect();
    if let Some(base) = base {
        set(&mut head, "base_model", base);
    }
    set(&mut head, "library_name", "peft");
    if let Some(base) = base {
        tag(&mut head, &format!("base_model:adapter:{base}"));
    }
    tag(&mut head, kind);
    let mut text = format!("{FENCE}\n");
    for line in head {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    }
    let _ = write!(text, "{FENCE}\n{body}");
    text
}

/// The lines between the fences, and what follows them.
fn split(card: &str) -> (Vec<&str>, String) {
    let mut lines = card.lines();
    if lines.next().map(str::trim_end) == Some(FENCE) {
        let head: Vec<&str> = lines
            .by_ref()
            .take_while(|line| line.trim_end() != FENCE)
            .collect();
        let length = head.len() + 2;
        if card.lines().nth(length - 1).map(str::trim_end) == Some(FENCE) {
            let body = card.split_inclusive('\n').skip(length).collect();
            return (head, body);
        }
    }
    (Vec::new(), format!("\n{card}"))
}

/// Sets a field of one line; one of several lines is left to whoever wrote it.
fn set(head: &mut Vec<String>, field: &str, value: &str) {
    let line = format!("{field}: {value}");
    let place = head.iter().position(|line| {
        let rest = line.strip_prefix(field);
        rest.is_some_and(|rest| rest.starts_with(':'))
    });
    match place {
        Some(place) if head[place].trim_end().ends_with(':') => {}
        Some(place) => head[place] = line,
        None => head.insert(0, line),
    }
}

/// Adds a tag where it is missing.
fn tag(head: &mut Vec<String>, tag: &str) {
    let item = format!("- {tag}");
    if head.iter().any(|line| line.trim() == item) {
        return;
    }
    match head.iter().position(|line| line.trim_end() == "tags:") {
        Some(place) => {
            let indent = head
                .get(place + 1)
                .map_or("", |next| &next[..next.len() - next.trim_start().len()]);
            let item = format!("{indent}{item}");
            head.insert(place + 1, item);
        }
        // A list in one line is not taken apart.
        None if head.iter().any(|line| line.starts_with("tags:")) => {}
        None => head.extend(["tags:".to_string(), item]),
    }
}

fn fresh_body(base: Option<&str>, method: &str, parameters: usize) -> String {
    let base = base.unwrap_or("its base model");
    format!("\n# An adapter of {base}\n\nMethod: {method}. Numbers saved: {parameters}.\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(old: Option<&str>) -> String {
        let metadata = PeftMetadata {
            base_model_name_or_path: Some("org/base".to_string()),
            ..PeftMetadata::default()
        };
        model_card(old, &LoraConfig::new(4, 8.0), &metadata, 128)
    }

    #[test]
    fn a_fresh_card_names_base_and_library() {
        let card = card(None);
        let expected = "---\nlibrary_name: peft\nbase_model: org/base\ntags:\n- lora\n- base_model:adapter:org/base\n---\n\n# ";
        assert!(card.starts_with(expected), "{card}");
    }

    #[test]
    fn an_existing_card_keeps_its_words_and_its_fields() {
        let old =
            "---\nlicense: mit\nbase_model: other\ntags:\n  - mine\n---\n# Mine\n\n---\ntext\n";
        let new = card(Some(old));
        let expected = "---\nlibrary_name: peft\nlicense: mit\nbase_model: org/base\ntags:\n  - lora\n  - base_model:adapter:org/base\n  - mine\n---\n# Mine\n\n---\ntext\n";
        assert_eq!(new, expected);
        assert_eq!(card(Some(&new)), new);
        // A card without fields is kept as a whole.
        let plain = card(Some("# Mine\n"));
        assert!(plain.ends_with("---\n\n# Mine\n"), "{plain}");
    }
}
