//! Files of every kind that a user hands over, damaged at random: they are read or refused by an error that says so, and
//! nothing panics.
//!
//! `PROPTEST_CASES=100000 cargo test --test fuzz` looks for longer.
#![allow(clippy::unwrap_used)]

mod adapters;
mod checkpoints;
mod configs;
mod data;
mod templates;

use proptest::collection::vec;
use proptest::prelude::*;

/// One change of some bytes; places are taken modulo the length.
#[derive(Clone, Debug)]
enum Edit {
    Byte(usize, u8),
    Delete(usize, usize),
    Repeat(usize, usize),
    Insert(usize, Vec<u8>),
    Truncate(usize),
}

/// A few changes, of which some insert what the format has words for.
fn edits(words: &'static [&'static str]) -> impl Strategy<Value = Vec<Edit>> {
    let at = any::<usize>();
    let word = prop_oneof![
        3 => prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 1..5),
    ];
    let edit = prop_oneof![
        4 => (at, any::<u8>()).prop_map(|(at, byte)| Edit::Byte(at, byte)),
        2 => (at, 1..40_usize).prop_map(|(at, count)| Edit::Delete(at, count)),
        2 => (at, 1..60_usize).prop_map(|(at, count)| Edit::Repeat(at, count)),
        4 => (at, word).prop_map(|(at, word)| Edit::Insert(at, word)),
        1 => at.prop_map(Edit::Truncate),
    ];
    vec(edit, 1..6)
}

fn edited(bytes: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for edit in edits {
        let length = bytes.len().max(1);
        let range = |at: usize, count: usize| {
            let from = (at % length).min(bytes.len());
            from..(from + count).min(bytes.len())
        };
        match edit {
            Edit::Byte(at, byte) => {
                if let Some(found) = bytes.get_mut(at % length) {
                    *found = *byte;
                }
            }
            Edit::Delete(at, count) => drop(bytes.drain(range(*at, *count))),
            Edit::Repeat(at, count) => {
                let range = range(*at, *count);
                let (end, part) = (range.end, bytes[range].to_vec());
                bytes.splice(end..end, part);
            }
            Edit::Insert(at, word) => {
                let from = range(*at, 0).start;
                bytes.splice(from..from, word.iter().copied());
            }
            Edit::Truncate(at) => bytes.truncate(at % length),
        }
    }
    bytes
}

/// As many cases as a test suite has time for, unless the environment asks for more.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES");
    let asked = asked.ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(cases),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// An error names its file or its fault, and is no book.
fn is_readable(error: &dyn std::error::Error) -> bool {
    let text = error.to_string();
    !text.trim().is_empty() && text.len() < 40_000
}
