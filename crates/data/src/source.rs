//! The files of a data set: one, those of a folder by their names, or those of a pattern.

use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::read::FileKind;

/// Files by what they are for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataFiles {
    /// To learn from; at least one.
    pub train: Vec<PathBuf>,
    /// To validate with.
    pub valid: Vec<PathBuf>,
    /// To evaluate at the end.
    pub test: Vec<PathBuf>,
}

const TRAIN: &[&str] = &["train", "training"];
const VALID: &[&str] = &["valid", "validation", "val", "dev", "eval"];
const TEST: &[&str] = &["test"];

impl DataFiles {
    /// The files that `place` means: a file; a folder with files called `train`, `valid` (`validation`, `val`, `dev`,
    /// `eval`) and `test`, whose names may go on after `-`, `_` or `.`; or a pattern with `*`, `?` or `[..]`, all of
    /// whose files are to learn from.
    ///
    /// # Errors
    ///
    /// [`DataError::NoFiles`] with what is there instead.
    pub fn find(place: &str) -> Result<Self, DataError> {
        let path = Path::new(place);
        if path.is_dir() {
            return Self::of_folder(path);
        }
        if path.exists() {
            return Ok(Self {
                train: vec![path.into()],
                ..Self::default()
            });
        }
        if place.contains(['*', '?', '[']) {
            return Self::of_pattern(place);
        }
        Err(none(place, beside(path)))
    }

    fn of_folder(folder: &Path) -> Result<Self, DataError> {
        let mut names = listing(folder)?;
        names.retain(|path| path.is_file() && FileKind::of(path).is_some());
        let part = |stems: &[&str]| -> Vec<PathBuf> {
            let is_of = |path: &&PathBuf| {
                let name = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or("");
                stems.iter().any(|stem| {
                    let rest = name.to_ascii_lowercase();
                    let rest = rest.strip_prefix(stem).map(str::to_string);
                    rest.is_some_and(|rest| rest.starts_with(['-', '_', '.']))
                })
            };
            names.iter().filter(is_of).cloned().collect()
        };
        let files = Self {
            train: part(TRAIN),
            valid: part(VALID),
            test: part(TEST),
        };
        for (stem, files) in [
            ("train", &files.train),
            ("valid", &files.valid),
            ("test", &files.test),
        ] {
            one_kind(folder, stem, files)?;
        }
        if files.train.is_empty() {
            let found: Vec<String> = names.iter().filter_map(|path| name(path)).collect();
            let reason = match found.is_empty() {
                true => "no data file in the folder".to_string(),
                false => format!(
                    "no file of the folder is called train; it has {}",
                    found.join(", ")
                ),
            };
            return Err(none(&folder.display().to_string(), reason));
        }
        Ok(files)
    }

    fn of_pattern(pattern: &str) -> Result<Self, DataError> {
        let found = glob::glob(pattern).map_err(|error| none(pattern, error.to_string()))?;
        let mut train: Vec<PathBuf> = found.flatten().filter(|path| path.is_file()).collect();
        train.sort();
        if train.is_empty() {
            return Err(none(pattern, "no file has such a name".into()));
        }
        Ok(Self {
            train,
            ..Self::default()
        })
    }
}

/// Refuses `train.jsonl` beside `train.csv`: one is a copy of the other, most likely.
fn one_kind(folder: &Path, stem: &str, files: &[PathBuf]) -> Result<(), DataError> {
    let kind = |path: &PathBuf| path.extension().map(|e| e.to_ascii_lowercase());
    let other = files.iter().find(|path| kind(path) != kind(&files[0]));
    let (Some(other), Some(first)) = (other, files.first()) else {
        return Ok(());
    };
    let names = [first, other].map(|path| name(path).unwrap_or_default());
    let reason = format!(
        "{stem} is there as {} and as {}: name one of them",
        names[0], names[1]
    );
    Err(none(&folder.display().to_string(), reason))
}

fn none(place: &str, reason: String) -> DataError {
    DataError::NoFiles {
        place: place.into(),
        reason,
    }
}

fn name(path: &Path) -> Option<String> {
    path.file_name()?.to_str().map(str::to_string)
}

fn listing(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let entries = std::fs::read_dir(folder).map_err(|source| DataError::Read {
        path: folder.into(),
        source,
    })?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

/// Why a file is not there, with the nearest name beside it.
fn beside(path: &Path) -> String {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let Ok(paths) = listing(folder) else {
        return "no such file or folder".into();
    };
    let wanted = name(path).unwrap_or_default();
    let found: Vec<String> = paths.iter().filter_map(|path| name(path)).collect();
    let near = found
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&wanted, name), name))
        .filter(|(distance, name)| *distance <= name.len().max(3) / 3)
        .min();
    match near {
        Some((_, near)) => format!("no such file or folder; did you mean {near}?"),
        None => "no such file or folder".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::folder;

    fn names(files: &[PathBuf]) -> Vec<String> {
        files.iter().filter_map(|path| name(path)).collect()
    }

    #[test]
    fn a_folder_has_parts() {
        let dir = folder(&[
            ("train-00000-of-00002.jsonl", ""),
            ("train-00001-of-00002.jsonl", ""),
            ("validation.csv", ""),
            ("test.parquet", ""),
            ("trainer.json", ""),
            ("README.md", ""),
        ]);
        let files = DataFiles::find(dir.path().to_str().unwrap()).unwrap();
        assert_eq!(
            names(&files.train),
            ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"]
        );
        assert_eq!(names(&files.valid), ["validation.csv"]);
        assert_eq!(names(&files.test), ["test.parquet"]);
    }

    #[test]
    fn a_file_and_a_pattern_are_to_learn_from() {
        let dir = folder(&[("b.jsonl", ""), ("a.jsonl", ""), ("c.txt", "")]);
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
        assert_eq!(
            names(&DataFiles::find(&at("c.txt")).unwrap().train),
            ["c.txt"]
        );
        assert_eq!(
            names(&DataFiles::find(&at("*.jsonl")).unwrap().train),
            ["a.jsonl", "b.jsonl"]
        );
        let error = DataFiles::find(&at("*.csv")).unwrap_err().to_string();
        assert!(error.ends_with("no file has such a name"), "{error}");
    }

    #[test]
    fn what_is_not_there_is_told() {
        let dir = folder(&[("trian.jsonl", ""), ("x.csv", "")]);
        let place = dir.path().to_str().unwrap();
        let error = DataFiles::find(place).unwrap_err().to_string();
        assert!(
            error.ends_with("no file of the folder is called train; it has trian.jsonl, x.csv"),
            "{error}"
        );
        let error = DataFiles::find(&format!("{place}/train.jsonl"))
            .unwrap_err()
            .to_string();
        assert!(error.ends_with("did you mean trian.jsonl?"), "{error}");
        let twice = folder(&[("train.jsonl", ""), ("train.csv", "")]);
        let error = DataFiles::find(twice.path().to_str().unwrap())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("train is there as train.csv and as train.jsonl"),
            "{error}"
        );
    }
}
