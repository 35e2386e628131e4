//! Tokenizer, chat templates, rows of files and batches.
//!
//! The way of the data, one file per step:
//!
//! 1. [`read_rows`]: a file becomes [`Rows`], or an error that lists every faulty line; [`DataFiles`] finds the files of
//!    a folder, and [`read_files`] reads several as one;
//! 2. [`encode`]: rows become [`Example`]s, token ids with the range that is learned;
//! 3. [`split`]: examples are divided into training and validation;
//! 4. [`Batches`]: seeded, length-grouped [`Batch`]es, whose position can be saved and restored;
//! 5. [`Batch::to_device`]: the only place that makes tensors.
//!
//! ```no_run
//! use burn_lora_data::{Batches, EncodeOptions, Tokenizer, encode, read_rows, split};
//!
//! # fn main() -> Result<(), burn_lora_data::DataError> {
//! let tokenizer = Tokenizer::from_folder("model")?;
//! let rows = read_rows("train.jsonl")?;
//! let encoded = encode(&rows, &tokenizer, &EncodeOptions::new(512))?;
//! let (train, valid) = split(encoded.examples, 0.1, 42)?;
//! let mut batches = Batches::new(train, 8, tokenizer.pad(), 42)?;
//! let batch = batches.next_batch();
//! # let _ = (valid, batch);
//! # Ok(())
//! # }
//! ```
//!
//! # Reproducibility
//!
//! Every order is a function of a seed: [`split`] and [`BatchPlan`] draw from ChaCha8 with integer
//! arithmetic only, so the same seed gives the same rows in the same order on every platform and
//! with every number of threads.

// A test that fails says so; spans are lists of ranges, of one as well.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::single_range_in_vec_init))]

mod batch;
mod batches;
mod cache;
mod chat;
mod columns;
mod encode;
mod encoder_tokenizer;
mod error;
mod example;
mod fault;
mod label;
mod message;
mod pack;
mod parse;
mod plan;
mod prepare;
mod read;
mod report;
mod rows;
mod shuffle;
mod source;
mod special_tokens;
mod split;
mod stream;
#[cfg(test)]
mod testing;
mod tokenizer;
mod vocab;

pub use batch::{Batch, BatchTensors};
pub use batches::{BatchState, Batches};
pub use cache::TokenCache;
pub use chat::{ChatTemplate, ChatTemplates, Learn, Rendered};
pub use columns::ColumnNames;
pub use encode::{
    EncodeOptions, Encoded, EncodedRow, LabelledExample, LabelledSet, PreferencePair, Progress,
    RowEncoder, SourceTarget, TaggedExample, Target, Truncation, Unlearnable, encode,
    encode_labelled, encode_preferences, encode_seq2seq, encode_tagged, encode_texts, encode_with,
};
pub use encoder_tokenizer::{EncodedSequence, EncoderTokenizer};
pub use error::DataError;
pub use example::Example;
pub use fault::{Faults, LineFault, NoFormat, Place, RowFault};
pub use label::Label;
pub use message::{Chat, Message};
pub use pack::pack;
pub use plan::BatchPlan;
pub use prepare::{PrepareOptions, Prepared, prepare};
pub use read::{ReadOptions, TextRows, read_files, read_rows};
pub use report::{EncodeReport, Lengths};
pub use rows::{Row, RowFormat, Rows};
pub use source::DataFiles;
pub use special_tokens::{EncoderTokens, SpecialTokens};
pub use split::split;
pub use stream::{
    ExampleStream, ExampleStreamState, RowStream, StreamOptions, StreamRow, StreamState,
};
pub use tokenizer::{Offsets, Tokenizer};
pub use vocab::check_vocab;
