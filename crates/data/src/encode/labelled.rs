//! Texts and words with labels, to token ids.

use std::collections::BTreeSet;

use rayon::prelude::*;
use tokenizers::{TruncationParams, TruncationStrategy};

use super::options::EncodeOptions;
use crate::columns::nearest;
use crate::error::DataError;
use crate::fault::{Faults, RowFault};
use crate::label::Label;
use crate::report::{EncodeReport, Lengths};
use crate::rows::{Row, Rows};
use crate::tokenizer::Tokenizer;

/// A text, or two, as an encoder reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledExample {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// 0 for the first text, 1 for the second.
    pub type_ids: Vec<u32>,
    /// What is to be predicted.
    pub target: Target,
}

/// What is to be predicted of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// The number of a class.
    Class(usize),
    /// A value.
    Value(f64),
}

/// Words as an encoder reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedExample {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// The class of each token that begins a word; the others are not learned.
    pub tags: Vec<Option<usize>>,
}

/// Encoded rows, and the names of their classes by number.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledSet<T> {
    /// One for each row, in order.
    pub examples: Vec<T>,
    /// The names of the classes; empty for values.
    pub classes: Vec<String>,
    /// Rows that were cut.
    pub truncated: usize,
    /// Their numbers.
    pub(super) cut: Vec<usize>,
}

impl<T> LabelledSet<T> {
    /// Counts of the set, of which each example has so many tokens and so much that is learned.
    pub fn report(&self, rows: usize, counts: impl Fn(&T) -> [usize; 2]) -> EncodeReport {
        let counts: Vec<[usize; 2]> = self.examples.iter().map(counts).collect();
        let lengths: Vec<usize> = counts.iter().map(|[tokens, _]| *tokens).collect();
        EncodeReport {
            rows,
            examples: counts.len(),
            tokens: lengths.iter().sum(),
            learned_tokens: counts.iter().map(|[_, learned]| learned).sum(),
            truncated: self.truncated,
            longest: lengths.iter().copied().max().unwrap_or(0),
            lengths: Lengths::of(lengths),
            ..EncodeReport::default()
        }
    }
}

/// Encodes texts with labels, as Transformers' tokenizer does: special tokens included, the longer text of a pair cut
/// first.
///
/// `classes` are the names that a model knows, by number; without them, the names of the rows in alphabetical order, or
/// their numbers.
///
/// # Errors
///
/// [`DataError::WrongFormat`] for other rows; [`DataError::Rows`] with every row whose label is no class, or of another
/// kind than the others'; [`DataError::BadOption`] for a `max_len` that leaves no room.
pub fn encode_labelled(
    rows: &Rows,
    tokenizer: &Tokenizer,
    options: &EncodeOptions,
    classes: Option<&[String]>,
) -> Result<LabelledSet<LabelledExample>, DataError> {
    let labels = rows.iter().map(|(_, row)| match row {
        Row::Classification { label, .. } => Ok(std::slice::from_ref(label)),
        _ => Err(wrong_format(rows, "texts with a label")),
    });
    let labels: Vec<&[Label]> = labels.collect::<Result<_, _>>()?;
    let (targets, classes) = targets(rows, &labels, classes, true)?;
    let inner = cutting(tokenizer, options)?;
    let encode = |(index, row): (usize, &Row)| {
        let Row::Classification {
            text, text_pair, ..
        } = row
        else {
            return Err(DataError::Tokenize("not a text".into()));
        };
        let encoding = match text_pair {
            Some(pair) => inner.encode((text.as_str(), pair.as_str()), true),
            None => inner.encode(text.as_str(), true),
        };
        let encoding = encoding.map_err(|error| DataError::Tokenize(error.to_string()))?;
        let was_cut = !encoding.get_overflowing().is_empty();
        let example = LabelledExample {
            ids: encoding.get_ids().to_vec(),
            type_ids: encoding.get_type_ids().to_vec(),
            target: targets[index][0],
        };
        Ok((example, was_cut))
    };
    gather(rows, encode, classes)
}

/// Encodes words with tags. Of a word that becomes several tokens, the first has its tag.
///
/// # Errors
///
/// As [`encode_labelled`].
pub fn encode_tagged(
    rows: &Rows,
    tokenizer: &Tokenizer,
    options: &EncodeOptions,
    classes: Option<&[String]>,
) -> Result<LabelledSet<TaggedExample>, DataError> {
    let labels = rows.iter().map(|(_, row)| match row {
        Row::Tagging { tags, .. } => Ok(tags.as_slice()),
        _ => Err(wrong_format(rows, "words with tags")),
    });
    let labels: Vec<&[Label]> = labels.collect::<Result<_, _>>()?;
    let (targets, classes) = targets(rows, &labels, classes, false)?;
    let inner = cutting(tokenizer, options)?;
    let encode = |(index, row): (usize, &Row)| {
        let Row::Tagging { tokens, .. } = row else {
            return Err(DataError::Tokenize("no words".into()));
        };
        let words: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let encoding = inner
            .encode(words, true)
            .map_err(|error| DataError::Tokenize(error.to_string()))?;
        let mut before = None;
        let tag = |word: &Option<u32>| {
            let begins = word.filter(|word| before != Some(*word));
            before = *word;
            match targets[index].get(begins? as usize)? {
                Target::Class(class) => Some(*class),
                Target::Value(_) => None,
            }
        };
        let example = TaggedExample {
            ids: encoding.get_ids().to_vec(),
            tags: encoding.get_word_ids().iter().map(tag).collect(),
        };
        Ok((example, !encoding.get_overflowing().is_empty()))
    };
    gather(rows, encode, classes)
}

pub(super) fn wrong_format(rows: &Rows, wanted: &'static str) -> DataError {
    DataError::WrongFormat {
        format: rows.format(),
        wanted,
    }
}

pub(super) fn gather<T: Send>(
    rows: &Rows,
    encode: impl Fn((usize, &Row)) -> Result<(T, bool), DataError> + Sync,
    classes: Vec<String>,
) -> Result<LabelledSet<T>, DataError> {
    let placed = rows.placed().par_iter().enumerate();
    let encoded: Vec<(T, bool)> = placed
        .map(|(index, placed)| encode((index, &placed.row)))
        .collect::<Result<_, _>>()?;
    let numbered = encoded.iter().enumerate();
    let cut: Vec<usize> = numbered
        .filter(|(_, (_, was_cut))| *was_cut)
        .map(|(index, _)| index)
        .collect();
    Ok(LabelledSet {
        examples: encoded.into_iter().map(|(example, _)| example).collect(),
        classes,
        truncated: cut.len(),
        cut,
    })
}

/// The tokenizer, which cuts.
pub(super) fn cutting(
    tokenizer: &Tokenizer,
    options: &EncodeOptions,
) -> Result<tokenizers::Tokenizer, DataError> {
    let mut inner = tokenizer.inner().clone();
    let truncation = TruncationParams {
        max_length: options.max_len,
        strategy: TruncationStrategy::LongestFirst,
        ..TruncationParams::default()
    };
    match inner.with_truncation(Some(truncation)) {
        Ok(_) => Ok(inner),
        Err(_) => Err(DataError::BadOption {
            option: "max_len",
            value: options.max_len.to_string(),
            expected: "more than the special tokens of a row",
        }),
    }
}

/// The targets of each row, and the names of the classes.
fn targets(
    rows: &Rows,
    labels: &[&[Label]],
    known: Option<&[String]>,
    values: bool,
) -> Result<(Vec<Vec<Target>>, Vec<String>), DataError> {
    let all = || labels.iter().flat_map(|labels| labels.iter());
    let has = |kind: fn(&Label) -> bool| all().any(kind);
    let has_values = has(|label| matches!(label, Label::Value(_)));
    let names: BTreeSet<&str> = all()
        .filter_map(|label| match label {
            Label::Name(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let classes: Vec<String> = match known {
        Some(known) => known.to_vec(),
        None if has_values => Vec::new(),
        None if names.is_empty() => {
            let most = all().filter_map(|label| match label {
                Label::Id(id) => Some(*id),
                _ => None,
            });
            // A number far beyond is a fault of the data, not so many classes.
            let most = most.filter(|id| *id < 100_000).max().unwrap_or(0);
            (0..=most).map(|id| id.to_string()).collect()
        }
        None => names.iter().map(|name| name.to_string()).collect(),
    };
    let borrowed: Vec<&str> = classes.iter().map(String::as_str).collect();
    let target = |label: &Label| -> Result<Target, RowFault> {
        match label {
            Label::Value(value) if values && names.is_empty() => Ok(Target::Value(*value)),
            Label::Id(id) if values && has_values && names.is_empty() => {
                Ok(Target::Value(*id as f64))
            }
            Label::Id(id) if *id < classes.len() && (known.is_some() || names.is_empty()) => {
                Ok(Target::Class(*id))
            }
            Label::Name(name) if borrowed.contains(&name.as_str()) => {
                let at = borrowed.iter().position(|class| class == name);
                Ok(Target::Class(at.unwrap_or(0)))
            }
            other => Err(no_class(other, &borrowed)),
        }
    };
    let mut faults = Faults::new(rows.path());
    let mut found = Vec::with_capacity(labels.len());
    for (placed, labels) in rows.placed().iter().zip(labels) {
        match labels.iter().map(target).collect() {
            Ok(targets) => found.push(targets),
            Err(fault) => faults.push(rows.file_of(placed), placed.place, fault),
        }
    }
    match faults.is_empty() {
        true => Ok((found, classes)),
        false => Err(DataError::Rows(faults)),
    }
}

fn no_class(label: &Label, classes: &[&str]) -> RowFault {
    let near = match label {
        Label::Name(name) => nearest(name, classes),
        _ => None,
    };
    let near = near.map_or(String::new(), |name| format!(" (did you mean \"{name}\"?)"));
    let shown: Vec<&str> = classes.iter().take(10).copied().collect();
    RowFault::Value {
        at: "label".into(),
        found: format!("is {label}{near}"),
        expected: match classes.is_empty() {
            true => "of the kind of the other rows'".into(),
            false => format!("one of the {} classes {}", classes.len(), shown.join(", ")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special_tokens::SpecialTokens;
    use crate::testing::words_json;

    fn tokenizer() -> Tokenizer {
        let json = words_json(Some(("<s>", "</s>")));
        let inner = tokenizers::Tokenizer::from_bytes(json).unwrap();
        Tokenizer::new(inner, SpecialTokens::new(2)).unwrap()
    }

    fn texts<const N: usize>(rows: [(&str, Label); N]) -> Rows {
        let row = |(text, label): (&str, Label)| Row::Classification {
            text: text.into(),
            text_pair: None,
            label,
        };
        Rows::new("rows", rows.map(row)).unwrap()
    }

    fn name(name: &str) -> Label {
        Label::Name(name.into())
    }

    fn encoded(
        rows: &Rows,
        classes: Option<&[String]>,
    ) -> Result<LabelledSet<LabelledExample>, String> {
        let options = EncodeOptions::new(5);
        encode_labelled(rows, &tokenizer(), &options, classes).map_err(|error| error.to_string())
    }

    #[test]
    fn texts_have_special_tokens_and_classes_by_name() {
        let rows = texts([("a b", name("no")), ("a b c d a", name("maybe"))]);
        let set = encoded(&rows, None).unwrap();
        assert_eq!(set.classes, ["maybe", "no"]);
        assert_eq!(set.examples[0].ids, [1, 5, 6, 2]);
        assert_eq!(set.examples[1].ids, [1, 5, 6, 7, 2]);
        assert_eq!(set.truncated, 1);
        let targets: Vec<Target> = set.examples.iter().map(|example| example.target).collect();
        assert_eq!(targets, [Target::Class(1), Target::Class(0)]);
        let known = ["yes".to_string(), "no".to_string()];
        let error = encoded(&rows, Some(&known)).unwrap_err();
        assert_eq!(
            error,
            "1 faulty row\n  rows:2: \"label\" is maybe; it must be one of the 2 classes yes, no"
        );
    }

    #[test]
    fn numbers_are_classes_or_values_together() {
        let set = encoded(&texts([("a", Label::Id(2)), ("b", Label::Id(0))]), None).unwrap();
        assert_eq!(set.classes, ["0", "1", "2"]);
        let set = encoded(
            &texts([("a", Label::Id(2)), ("b", Label::Value(0.5))]),
            None,
        )
        .unwrap();
        assert!(set.classes.is_empty());
        assert_eq!(set.examples[0].target, Target::Value(2.0));
        let error = encoded(&texts([("a", Label::Id(2)), ("b", name("x"))]), None).unwrap_err();
        assert!(error.contains("rows:1: \"label\" is 2"), "{error}");
    }

    #[test]
    fn a_pair_has_segments() {
        let row = Row::Classification {
            text: "a b".into(),
            text_pair: Some("c".into()),
            label: Label::Id(0),
        };
        let set = encoded(&Rows::new("rows", [row]).unwrap(), None).unwrap();
        assert_eq!(set.examples[0].ids, [5, 6, 7]);
        assert_eq!(set.examples[0].type_ids.len(), 3);
    }

    #[test]
    fn the_first_token_of_a_word_has_its_tag() {
        let row = Row::Tagging {
            tokens: vec!["a b".into(), "c".into()],
            tags: vec![name("B"), name("A")],
        };
        let rows = Rows::new("rows", [row]).unwrap();
        let set = encode_tagged(&rows, &tokenizer(), &EncodeOptions::new(9), None).unwrap();
        assert_eq!(set.classes, ["A", "B"]);
        assert_eq!(set.examples[0].ids, [1, 5, 6, 7, 2]);
        assert_eq!(set.examples[0].tags, [None, Some(1), None, Some(0), None]);
        let wrong = encode_labelled(&rows, &tokenizer(), &EncodeOptions::new(9), None);
        assert!(matches!(wrong, Err(DataError::WrongFormat { .. })));
        let none = encode_tagged(&rows, &tokenizer(), &EncodeOptions::new(2), None);
        assert!(none.is_err() || none.is_ok_and(|set| set.truncated == 1));
    }
}
