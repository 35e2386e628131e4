//! Facts as JSON, one a line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::Fact;
use crate::error::TrainError;

/// The file, open at its end.
pub(super) struct JsonLines {
    file: File,
}

impl JsonLines {
    /// Keeps of a file that is there the facts up to a step: what was known of later ones is of steps that are done again.
    pub(super) fn open(path: &Path, first_step: usize) -> io::Result<Self> {
        let kept = match fs::read_to_string(path) {
            Ok(text) => parse(&text)
                .filter(|fact| fact.step <= first_step)
                .collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        // To the side and renamed: a run that is killed here has lost nothing.
        let aside = path.with_extension("partial");
        let mut file = File::create(&aside)?;
        for fact in &kept {
            file.write_all(&line(fact))?;
        }
        fs::rename(&aside, path)?;
        let file = OpenOptions::new().append(true).open(path)?;
        Ok(Self { file })
    }

    /// Writes a line in one piece, so that whoever follows the file sees whole ones.
    pub(super) fn write(&mut self, fact: &Fact) -> io::Result<()> {
        self.file.write_all(&line(fact))
    }
}

fn line(fact: &Fact) -> Vec<u8> {
    // A fact has names and numbers only, which JSON has words for.
    let mut line = serde_json::to_vec(fact).unwrap_or_default();
    line.push(b'\n');
    line
}

fn parse(text: &str) -> impl Iterator<Item = Fact> {
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
}

pub(super) fn read(path: &Path) -> Result<Vec<Fact>, TrainError> {
    let text = fs::read_to_string(path).map_err(|source| TrainError::Io {
        path: path.into(),
        source,
    })?;
    Ok(parse(&text).collect())
}
