//! Rows to token ids.

mod labelled;
mod options;
mod row;
#[cfg(test)]
mod tests;
mod texts;

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::error::DataError;
use crate::example::Example;
use crate::fault::{Faults, RowFault};
use crate::report::{EncodeReport, Lengths};
use crate::rows::{Placed, Row, Rows};
use crate::tokenizer::Tokenizer;

pub use labelled::{
    LabelledExample, LabelledSet, TaggedExample, Target, encode_labelled, encode_tagged,
};
pub use options::{EncodeOptions, Truncation, Unlearnable};
#[cfg(test)]
pub(crate) use row::spans_of;
pub use row::{EncodedRow, RowEncoder};
pub use texts::{SourceTarget, encode_seq2seq, encode_texts};

/// Encoded rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// The examples in the order of the rows: one for each, but for what the options leave out or divide.
    pub examples: Vec<Example>,
    /// Their counts.
    pub report: EncodeReport,
}

/// Two answers to a prompt, as tokens; the better one is to become more probable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreferencePair {
    /// The prompt and the better answer, which is learned.
    pub chosen: Example,
    /// The same prompt and the worse answer, which is learned.
    pub rejected: Example,
}

/// Called with the number of rows that are done and of all, from any thread.
pub type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// Encodes every row.
///
/// A prompt row becomes `prefix prompt completion eos`, of which `completion eos` is learned; a text row becomes `prefix
/// text eos`, of which all but the first token are learned (nothing precedes the first). The prefix is the tokenizer's
/// bos, if any; a text that ends with eos gets no second one. A conversation is what the tokenizer's chat template
/// writes, of which the assistant's words are learned, and what ends them.
///
/// # Errors
///
/// [`DataError::BadOption`] for a `max_len` below 2; [`DataError::WrongFormat`] for rows of labels or preferences;
/// [`DataError::NoChatTemplate`]; [`DataError::Rows`] with every row that cannot be tokenized, gives no token, keeps no
/// token to learn after the cut, or is too long under [`Truncation::Refuse`]; [`DataError::NothingToLearn`] where that is
/// all of them.
pub fn encode(
    rows: &Rows,
    tokenizer: &Tokenizer,
    options: &EncodeOptions,
) -> Result<Encoded, DataError> {
    encode_with(rows, tokenizer, options, &|_, _| ())
}

/// Encodes every row on all cores, and tells how far it is.
///
/// # Errors
///
/// As [`encode`].
pub fn encode_with(
    rows: &Rows,
    tokenizer: &Tokenizer,
    options: &EncodeOptions,
    progress: Progress<'_>,
) -> Result<Encoded, DataError> {
    let encoder = RowEncoder::new(
        tokenizer,
        options,
        rows.placed().iter().map(|placed| &placed.row),
    )?;
    let done = each(rows, progress, |row| encoder.encode(row))?;
    let mut gathered = Gathered::new(rows);
    for (placed, result) in rows.placed().iter().zip(done) {
        gathered.add(placed, result, options);
    }
    let (examples, mut report) = gathered.finish()?;
    let ends = tokenizer.stop_ids();
    let ends_well = |example: &&Example| {
        example
            .spans()
            .last()
            .is_some_and(|span| ends.contains(&example.ids()[span.end - 1]))
    };
    report.examples = examples.len();
    report.tokens = examples.iter().map(Example::len).sum();
    report.learned_tokens = examples.iter().map(Example::learned_len).sum();
    report.without_end = examples.len() - examples.iter().filter(ends_well).count();
    report.duplicates = duplicates(&examples);
    Ok(Encoded { examples, report })
}

/// Encodes rows of preferences.
///
/// # Errors
///
/// As [`encode`]; [`DataError::WrongFormat`] for other rows; [`DataError::Rows`] for answers that are the same, too.
pub fn encode_preferences(
    rows: &Rows,
    tokenizer: &Tokenizer,
    options: &EncodeOptions,
) -> Result<(Vec<PreferencePair>, EncodeReport), DataError> {
    let mut answers = Vec::with_capacity(2 * rows.len());
    for placed in rows.placed() {
        let [chosen, rejected] = match &placed.row {
            Row::Preference {
                prompt,
                chosen,
                rejected,
            } => [chosen, rejected].map(|completion| Row::PromptCompletion {
                prompt: prompt.clone(),
                completion: completion.clone(),
            }),
            Row::ChatPreference { chosen, rejected } => {
                [chosen, rejected].map(|chat| Row::Chat(chat.clone()))
            }
            _ => {
                return Err(DataError::WrongFormat {
                    format: rows.format(),
                    wanted: "pairs of a chosen and a rejected answer",
                });
            }
        };
        answers.extend([chosen, rejected].map(|row| Placed {
            file: placed.file,
            place: placed.place,
            row,
        }));
    }
    let files = rows.files().map(|path| path.into()).collect();
    let answers = Rows::from_parts(files, answers, rows.format());
    let encoder = RowEncoder::new(
        tokenizer,
        options,
        answers.placed().iter().map(|placed| &placed.row),
    )?;
    let done = each(&answers, &|_, _| (), |row| encoder.encode(row))?;
    let mut gathered = Gathered::new(&answers);
    gathered.total = rows.len();
    let mut pairs = Vec::with_capacity(rows.len());
    let mut done = done.into_iter();
    for placed in answers.placed().chunks(2) {
        // A pair is left out as a whole.
        let (Some(first), Some(second)) = (done.next(), done.next()) else {
            break;
        };
        match (first, second) {
            (Ok(chosen), Ok(rejected)) if chosen.examples == rejected.examples => {
                let fault = RowFault::Value {
                    at: "rejected".into(),
                    found: "is the same as \"chosen\"".into(),
                    expected: "another answer, within the length that is allowed".into(),
                };
                gathered.add(&placed[0], Err(fault), options);
            }
            (Ok(chosen), Ok(rejected)) => {
                gathered.measure(&chosen);
                gathered.measure(&rejected);
                pairs.extend(chosen.examples.into_iter().zip(rejected.examples));
            }
            (Err(fault), _) | (_, Err(fault)) => gathered.add(&placed[0], Err(fault), options),
        }
    }
    let pairs: Vec<PreferencePair> = pairs
        .into_iter()
        .map(|(chosen, rejected)| PreferencePair { chosen, rejected })
        .collect();
    gathered.examples = pairs.iter().map(|pair| pair.chosen.clone()).collect();
    let (_, mut report) = gathered.finish()?;
    let all = || pairs.iter().flat_map(|pair| [&pair.chosen, &pair.rejected]);
    report.rows = rows.len();
    report.examples = pairs.len();
    report.tokens = all().map(Example::len).sum();
    report.learned_tokens = all().map(Example::learned_len).sum();
    Ok((pairs, report))
}

/// Works on every row, on all cores and in order.
fn each<T: Send>(
    rows: &Rows,
    progress: Progress<'_>,
    work: impl Fn(&Row) -> Result<T, RowFault> + Sync,
) -> Result<Vec<Result<T, RowFault>>, DataError> {
    const STEP: usize = 256;
    let count = AtomicUsize::new(0);
    let all = rows.len();
    let one = |placed: &Placed| {
        let result = work(&placed.row);
        let done = count.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(STEP) || done == all {
            progress(done, all);
        }
        result
    };
    Ok(rows.placed().par_iter().map(one).collect())
}

/// What the rows came to so far.
struct Gathered<'a> {
    rows: &'a Rows,
    examples: Vec<Example>,
    report: EncodeReport,
    lengths: Vec<usize>,
    faults: Faults,
    /// Rows, or pairs of them.
    total: usize,
    /// Those of which nothing is learned, whether that is a fault or not.
    unlearnable: usize,
    dropped: BTreeMap<String, usize>,
}

impl<'a> Gathered<'a> {
    fn new(rows: &'a Rows) -> Self {
        Self {
            rows,
            examples: Vec::with_capacity(rows.len()),
            report: EncodeReport::default(),
            lengths: Vec::with_capacity(rows.len()),
            faults: Faults::new(rows.path()),
            total: rows.len(),
            unlearnable: 0,
            dropped: BTreeMap::new(),
        }
    }

    fn add(
        &mut self,
        placed: &Placed,
        result: Result<EncodedRow, RowFault>,
        options: &EncodeOptions,
    ) {
        match result {
            Ok(row) => {
                self.measure(&row);
                self.examples.extend(row.examples);
            }
            Err(fault) => {
                let is_unlearnable = matches!(fault, RowFault::NothingToLearn { .. });
                self.unlearnable += usize::from(is_unlearnable);
                if is_unlearnable && options.unlearnable == Unlearnable::Drop {
                    let reason = format!("no token to learn within {}", options.max_len);
                    *self.dropped.entry(reason).or_default() += 1;
                } else {
                    self.faults
                        .push(self.rows.file_of(placed), placed.place, fault);
                }
            }
        }
    }

    fn measure(&mut self, row: &EncodedRow) {
        self.lengths.push(row.tokens);
        self.report.longest = self.report.longest.max(row.tokens);
        self.report.truncated += usize::from(row.was_cut);
    }

    fn finish(mut self) -> Result<(Vec<Example>, EncodeReport), DataError> {
        if self.unlearnable == self.total {
            let first = match self.faults.shown.first() {
                Some(fault) => format!(" ({})", fault.fault),
                None => String::new(),
            };
            let advice = format!(
                "every prompt fills the length that is allowed; raise max_len{first}, or shorten the prompts"
            );
            return Err(DataError::NothingToLearn {
                rows: self.total,
                advice,
            });
        }
        if !self.faults.is_empty() {
            return Err(DataError::Rows(self.faults));
        }
        self.report.rows = self.rows.len();
        self.report.dropped = self.dropped;
        self.report.lengths = Lengths::of(self.lengths);
        Ok((self.examples, self.report))
    }
}

fn duplicates(examples: &[Example]) -> usize {
    // 64 bits: among ten million examples, one chance in half a million of a false one, and only a count depends on it.
    let hash = |example: &Example| {
        let mut hasher = DefaultHasher::new();
        example.ids().hash(&mut hasher);
        example.spans().hash(&mut hasher);
        hasher.finish()
    };
    let distinct: HashSet<u64> = examples.iter().map(hash).collect();
    examples.len() - distinct.len()
}
