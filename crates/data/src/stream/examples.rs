//! Examples of files that do not fit in memory.

use std::collections::VecDeque;
use std::path::PathBuf;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{RowStream, StreamOptions, StreamRow, StreamState};
use crate::encode::{EncodeOptions, RowEncoder, Unlearnable};
use crate::error::DataError;
use crate::example::Example;
use crate::fault::{Faults, RowFault};
use crate::tokenizer::Tokenizer;

/// Examples of a [`RowStream`] without end, encoded as they are drawn.
///
/// Only the rows in the buffer and the examples asked for are in memory. A faulty row is an error when it is drawn.
#[derive(Debug)]
pub struct ExampleStream {
    rows: RowStream,
    tokenizer: Tokenizer,
    options: EncodeOptions,
    /// What is left of the last row, where rows are divided.
    pending: VecDeque<Example>,
    dropped: u64,
}

/// Where an [`ExampleStream`] stands: with the same files, tokenizer and options it determines every example to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExampleStreamState {
    rows: StreamState,
    pending: Vec<Pending>,
    dropped: u64,
}

/// An example that was not taken yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pending {
    ids: Vec<u32>,
    /// Where each learned span begins and ends.
    spans: Vec<(usize, usize)>,
}

impl ExampleStream {
    /// Begins with the first epoch.
    ///
    /// # Errors
    ///
    /// As [`RowStream::open`], whose `epochs` must not be given; as [`RowEncoder::new`] for the options.
    pub fn open(
        files: &[PathBuf],
        stream: StreamOptions,
        tokenizer: Tokenizer,
        options: EncodeOptions,
    ) -> Result<Self, DataError> {
        if let Some(epochs) = stream.epochs {
            return Err(DataError::BadOption {
                option: "epochs",
                value: epochs.to_string(),
                expected: "none, since steps end a training",
            });
        }
        RowEncoder::new(&tokenizer, &options, [])?;
        Ok(Self {
            rows: RowStream::open(files, stream)?,
            tokenizer,
            options,
            pending: VecDeque::new(),
            dropped: 0,
        })
    }

    /// The next examples.
    ///
    /// # Errors
    ///
    /// [`DataError::Rows`] for a faulty row, [`DataError::Read`] for a file that cannot be read any more,
    /// [`DataError::NothingToLearn`] if an epoch has nothing to learn.
    pub fn take(&mut self, count: usize) -> Result<Vec<Example>, DataError> {
        let mut last_found = self.rows.epoch();
        let mut in_vain = 0;
        while self.pending.len() < count {
            let missing = count - self.pending.len();
            let rows: Vec<StreamRow> = self
                .rows
                .by_ref()
                .take(missing)
                .collect::<Result<_, DataError>>()?;
            let before = self.pending.len();
            in_vain += rows.len();
            self.encode(&rows)?;
            if self.pending.len() > before {
                (last_found, in_vain) = (self.rows.epoch(), 0);
            } else if self.rows.epoch() > last_found + 1 {
                return Err(DataError::NothingToLearn {
                    rows: in_vain,
                    advice: "every prompt fills the length that is allowed; raise max_len, or shorten the prompts".into(),
                });
            }
        }
        Ok(self.pending.drain(..count).collect())
    }

    fn encode(&mut self, rows: &[StreamRow]) -> Result<(), DataError> {
        let encoder = RowEncoder::new(
            &self.tokenizer,
            &self.options,
            rows.iter().map(|row| &row.row),
        )?;
        let encoded: Vec<_> = rows
            .par_iter()
            .map(|row| encoder.encode(&row.row))
            .collect();
        let mut faults = Faults::new(rows.first().map_or("".as_ref(), |row| &row.path));
        for (row, encoded) in rows.iter().zip(encoded) {
            match encoded {
                Ok(encoded) => self.pending.extend(encoded.examples),
                Err(RowFault::NothingToLearn { .. })
                    if self.options.unlearnable == Unlearnable::Drop =>
                {
                    self.dropped += 1;
                }
                Err(fault) => faults.push(&row.path, row.place, fault),
            }
        }
        match faults.is_empty() {
            true => Ok(()),
            false => Err(DataError::Rows(faults)),
        }
    }

    /// Rows left out so far, since they had no token to learn.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Where the stream stands.
    pub fn state(&self) -> ExampleStreamState {
        let pending = self.pending.iter().map(|example| {
            let spans = example.spans().iter();
            Pending {
                ids: example.ids().to_vec(),
                spans: spans.map(|span| (span.start, span.end)).collect(),
            }
        });
        ExampleStreamState {
            rows: self.rows.state(),
            pending: pending.collect(),
            dropped: self.dropped,
        }
    }

    /// Goes on from `state`: the next example is the one that would have followed when it was saved.
    ///
    /// # Errors
    ///
    /// As [`RowStream::restore`]; [`DataError::BadExample`] for a state that was changed by hand.
    pub fn restore(&mut self, state: &ExampleStreamState) -> Result<(), DataError> {
        let pending = state.pending.iter().map(|Pending { ids, spans }| {
            let spans = spans.iter().map(|(start, end)| *start..*end).collect();
            Example::with_spans(ids.clone(), spans)
        });
        let pending = pending.collect::<Result<_, DataError>>()?;
        self.rows.restore(&state.rows)?;
        self.pending = pending;
        self.dropped = state.dropped;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::Truncation;
    use crate::special_tokens::SpecialTokens;
    use crate::testing::{folder, words};

    fn tokenizer() -> Tokenizer {
        Tokenizer::new(words(), SpecialTokens::new(2)).unwrap()
    }

    fn open(dir: &tempfile::TempDir, options: EncodeOptions) -> ExampleStream {
        let stream = StreamOptions {
            buffer: 3,
            seed: 5,
            ..StreamOptions::default()
        };
        let files = [dir.path().join("a.jsonl")];
        ExampleStream::open(&files, stream, tokenizer(), options).unwrap()
    }

    #[test]
    fn examples_are_those_of_the_rows() {
        let rows =
            "{\"text\": \"a b\"}\n{\"text\": \"b c d\"}\n{\"text\": \"d\"}\n{\"text\": \"c a\"}\n";
        let dir = folder(&[("a.jsonl", rows)]);
        let options = EncodeOptions::new(8);
        let mut found = open(&dir, options).take(4).unwrap();
        let read = crate::read_rows(dir.path().join("a.jsonl")).unwrap();
        let mut expected = crate::encode(&read, &tokenizer(), &options)
            .unwrap()
            .examples;
        let order = |example: &Example| example.ids().to_vec();
        assert_ne!(found, expected, "they are drawn");
        found.sort_by_key(order);
        expected.sort_by_key(order);
        assert_eq!(found, expected);
    }

    #[test]
    fn a_restored_stream_goes_on_within_a_row_that_is_divided() {
        let rows =
            "{\"text\": \"a b c d a b c d a\"}\n{\"text\": \"d c b a\"}\n{\"text\": \"a\"}\n";
        let dir = folder(&[("a.jsonl", rows)]);
        let options = EncodeOptions {
            truncation: Truncation::Split,
            ..EncodeOptions::new(4)
        };
        for taken in 0..12 {
            let mut stream = open(&dir, options);
            stream.take(taken).unwrap();
            let saved = serde_json::to_string(&stream.state()).unwrap();
            let mut resumed = open(&dir, options);
            resumed.take(2).unwrap();
            resumed
                .restore(&serde_json::from_str(&saved).unwrap())
                .unwrap();
            // However many are asked for at a time.
            let rest: Vec<Example> = (0..9).flat_map(|_| stream.take(1).unwrap()).collect();
            assert_eq!(rest, resumed.take(9).unwrap(), "after {taken}");
        }
    }

    #[test]
    fn what_cannot_be_learned_is_told() {
        let dir = folder(&[(
            "a.jsonl",
            "{\"prompt\": \"a b c d a\", \"completion\": \"b\"}\n{\"prompt\": \"a b c d b\", \"completion\": \"b\"}\n",
        )]);
        let refusing = EncodeOptions::new(4);
        let error = open(&dir, refusing).take(1).unwrap_err().to_string();
        assert!(error.contains("a.jsonl:"), "{error}");
        let dropping = EncodeOptions {
            unlearnable: Unlearnable::Drop,
            ..refusing
        };
        let error = open(&dir, dropping).take(1).unwrap_err();
        assert!(matches!(error, DataError::NothingToLearn { .. }), "{error}");
        let epochs = StreamOptions {
            epochs: Some(2),
            ..StreamOptions::default()
        };
        let files = [dir.path().join("a.jsonl")];
        let error = ExampleStream::open(&files, epochs, tokenizer(), refusing).unwrap_err();
        assert!(matches!(error, DataError::BadOption { .. }), "{error}");
    }
}
