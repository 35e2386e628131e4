//! The tokens to score.

mod ids;
mod texts;

use std::path::Path;

use super::Input;
use super::task::ScoreTask;
use crate::failure::{Failure, Kind};

/// How many faulty rows an error shows.
const SHOWN: usize = 20;

/// The tokens of a text or of a pair of texts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sequence {
    pub ids: Vec<u32>,
    /// The segment of each token; empty where all are of the first.
    pub segments: Vec<u32>,
}

/// What is computed together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    /// One, or as many as there are to choose from.
    pub sequences: Vec<Sequence>,
    /// What is to be written for it; empty but for encoder-decoders.
    pub target: Vec<u32>,
    /// Where it stands in its file, for errors.
    place: String,
}

/// What a model must know of a row's tokens.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub vocab_size: usize,
    pub max_positions: usize,
    /// Kinds of segments; 0 where there are none to be wrong.
    pub segments: usize,
}

/// All rows.
#[derive(Debug, Default)]
pub struct Rows {
    rows: Vec<Row>,
    /// The rows that an embedding needs for the tokenizer that made them, if one did.
    tokens: Option<usize>,
}

impl Rows {
    /// Reads the file that the options name, by the tokenizer in `folder` where it holds texts, and cuts what is longer
    /// than `longest`.
    pub fn read(
        input: &Input,
        task: ScoreTask,
        folder: &Path,
        longest: Option<usize>,
    ) -> Result<Self, Failure> {
        match (&input.data, &input.ids) {
            (Some(path), _) => texts::read(path, task, folder, longest),
            (None, Some(path)) => ids::read(path, task, longest),
            // Either is required.
            (None, None) => Err(Failure::new(Kind::Usage, "neither --data nor --ids")),
        }
    }

    /// Rows, each with its place or what is wrong with it; all that is wrong is told at once.
    fn gathered(
        rows: impl Iterator<Item = (String, Result<Row, String>)>,
        tokens: Option<usize>,
    ) -> Result<Self, Failure> {
        let (mut kept, mut faults) = (Vec::new(), Vec::new());
        for (place, row) in rows {
            match row {
                Ok(row) => kept.push(Row { place, ..row }),
                Err(error) => faults.push(format!("{place}: {error}")),
            }
        }
        refuse(&faults)?;
        Ok(Self { rows: kept, tokens })
    }

    /// Keeps the first rows.
    pub fn limit(&mut self, rows: Option<usize>) {
        self.rows.truncate(rows.unwrap_or(usize::MAX));
    }

    /// Whether a model knows every token and has a position for it, and all rows have as many texts to choose from.
    pub fn check(&self, limits: Limits) -> Result<(), Failure> {
        let choices = self.choices();
        let fault = |row: &Row| {
            let sequences = row.sequences.iter();
            let texts = sequences
                .clone()
                .map(|sequence| &sequence.ids)
                .chain([&row.target]);
            if let Some(id) = texts
                .clone()
                .flatten()
                .find(|id| **id as usize >= limits.vocab_size)
            {
                let known = limits.vocab_size;
                return Some(format!(
                    "token {id}, and the model knows those below {known}"
                ));
            }
            let longest = texts.map(Vec::len).max().unwrap_or(0);
            if longest > limits.max_positions {
                let positions = limits.max_positions;
                return Some(format!(
                    "{longest} tokens, and the model has {positions} positions (--max-length cuts)"
                ));
            }
            let mut segments = sequences.flat_map(|sequence| &sequence.segments);
            let known = limits.segments;
            let unknown = segments.find(|id| known > 0 && **id as usize >= known);
            if let Some(id) = unknown {
                return Some(format!(
                    "segment {id}, and the model knows those below {known}"
                ));
            }
            let found = row.sequences.len();
            (found != choices).then(|| format!("{found} choices, and the first row has {choices}"))
        };
        let faults = self.rows.iter();
        let faults = faults.filter_map(|row| Some(format!("{}: {}", row.place, fault(row)?)));
        refuse(&faults.collect::<Vec<_>>())
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows.
    pub fn all(&self) -> &[Row] {
        &self.rows
    }

    /// Texts to choose from in each row; 1 where there is no choice.
    pub fn choices(&self) -> usize {
        self.rows.first().map_or(1, |row| row.sequences.len())
    }

    /// Tokens of the longest text.
    pub fn longest(&self) -> usize {
        let texts = self.rows.iter().flat_map(|row| &row.sequences);
        texts.map(|text| text.ids.len()).max().unwrap_or(0)
    }

    /// Tokens of the longest target.
    pub fn longest_target(&self) -> usize {
        let targets = self.rows.iter().map(|row| row.target.len());
        targets.max().unwrap_or(0)
    }

    /// The rows that an embedding needs for the tokenizer.
    pub fn tokens(&self) -> Option<usize> {
        self.tokens
    }
}

fn refuse(faults: &[String]) -> Result<(), Failure> {
    if faults.is_empty() {
        return Ok(());
    }
    let mut text = format!("{} faulty rows", faults.len());
    for fault in faults.iter().take(SHOWN) {
        text.push_str(&format!("\n  {fault}"));
    }
    if let Some(more) = faults.len().checked_sub(SHOWN + 1) {
        text.push_str(&format!("\n  and {} more", more + 1));
    }
    Err(Failure::new(Kind::Data, text))
}

/// The text of a file of rows.
fn read_text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        let reason = format!("cannot read {}: {error}", path.display());
        Failure::new(Kind::Data, reason)
    })
}

fn no_row(path: &Path) -> Failure {
    Failure::new(Kind::Data, format!("{} has no row", path.display()))
}
