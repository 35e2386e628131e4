//! Files with bytes changed at random: a load ends in a model or in an error, never in a panic or an abort.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use super::loading::{changed, load, shard};
use super::*;
use proptest::prelude::*;

/// The files of a folder, by name.
type Files = Vec<(String, Vec<u8>)>;

/// The files of a small folder in one piece, and in shards.
static FOLDERS: LazyLock<[Files; 2]> = LazyLock::new(|| {
    let whole = changed(llama(), |_| {});
    let sharded = changed(gpt2(), |_| {});
    shard(sharded.path());
    [files(whole.path()), files(sharded.path())]
});

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir).expect("a folder").flatten();
    let mut files: Vec<_> = entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("read"))
        })
        .collect();
    files.sort();
    files
}

/// A change of a file.
#[derive(Debug, Clone)]
enum Change {
    /// Other bytes from this place on.
    Overwrite(prop::sample::Index, Vec<u8>),
    /// Other bytes in the first ones, where the lengths and the names are.
    OverwriteHead(usize, Vec<u8>),
    /// No bytes from this place on.
    Cut(prop::sample::Index),
    /// More bytes at this place.
    Insert(prop::sample::Index, Vec<u8>),
    /// A digit for a digit.
    Digit(prop::sample::Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let bytes = || prop::collection::vec(any::<u8>(), 1..9);
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), bytes()).prop_map(|(at, bytes)| Change::Overwrite(at, bytes)),
        (0usize..4000, bytes()).prop_map(|(at, bytes)| Change::OverwriteHead(at, bytes)),
        at().prop_map(Change::Cut),
        (at(), bytes()).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (at(), b'0'..=b'9').prop_map(|(at, digit)| Change::Digit(at, digit)),
    ]
}

fn apply(change: &Change, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let overwrite = |bytes: &mut Vec<u8>, at: usize, new: &[u8]| {
        for (old, new) in bytes.iter_mut().skip(at).zip(new) {
            *old = *new;
        }
    };
    match change {
        Change::Overwrite(at, new) => overwrite(bytes, at.index(bytes.len()), new),
        Change::OverwriteHead(at, new) => overwrite(bytes, *at, new),
        Change::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Change::Insert(at, new) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, new.iter().copied());
        }
        Change::Digit(at, new) => {
            let digits: Vec<usize> = (0..bytes.len().min(5000))
                .filter(|at| bytes[*at].is_ascii_digit())
                .collect();
            if !digits.is_empty() {
                bytes[digits[at.index(digits.len())]] = *new;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_never_panic(
        folder in 0usize..2,
        file in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 1..4),
    ) {
        let dir = tempfile::tempdir().expect("a folder");
        let files = &FOLDERS[folder];
        let damaged = file.index(files.len());
        for (index, (name, bytes)) in files.iter().enumerate() {
            let mut bytes = bytes.clone();
            if index == damaged {
                changes.iter().for_each(|change| apply(change, &mut bytes));
            }
            fs::write(dir.path().join(name), bytes).expect("written");
        }
        if let Err(error) = load(dir.path()) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
