//! Facts as JSON, one a line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::marker::PhantomData;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::TrainError;

/// What is known after a number of optimizer steps.
pub(crate) trait Stepped: Serialize + DeserializeOwned {
    fn step(&self) -> usize;
}

/// The file, open at its end.
pub(crate) struct JsonLines<T> {
    file: File,
    of: PhantomData<fn(&T)>,
}

impl<T: Stepped> JsonLines<T> {
    /// Keeps of a file that is there the facts up to a step: what was known of later ones is of steps that are done again.
    pub(crate) fn open(path: &Path, first_step: usize) -> io::Result<Self> {
        let kept: Vec<T> = match fs::read_to_string(path) {
            Ok(text) => parse(&text)
                .filter(|fact: &T| fact.step() <= first_step)
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
        let of = PhantomData;
        Ok(Self { file, of })
    }

    /// Writes a line in one piece, so that whoever follows the file sees whole ones.
    pub(crate) fn write(&mut self, fact: &T) -> io::Result<()> {
        self.file.write_all(&line(fact))
    }
}

fn line<T: Serialize>(fact: &T) -> Vec<u8> {
    // A fact has texts and numbers only, which JSON has words for.
    let mut line = serde_json::to_vec(fact).unwrap_or_default();
    line.push(b'\n');
    line
}

fn parse<T: DeserializeOwned>(text: &str) -> impl Iterator<Item = T> {
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
}

pub(crate) fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, TrainError> {
    let text = fs::read_to_string(path).map_err(|source| TrainError::Io {
        path: path.into(),
        source,
    })?;
    Ok(parse(&text).collect())
}
