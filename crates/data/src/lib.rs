//! Tokenizer, JSONL rows and batches for causal language modelling.
//!
//! The way of the data, one file per step:
//!
//! 1. [`read_rows`]: a JSONL file becomes [`Rows`], or an error that lists every faulty line;
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

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test that fails says so

mod batch;
mod batches;
mod encode;
mod encoder_tokenizer;
mod error;
mod example;
mod fault;
mod plan;
mod read;
mod rows;
mod shuffle;
mod special_tokens;
mod split;
#[cfg(test)]
mod testing;
mod tokenizer;
mod vocab;

pub use batch::{Batch, BatchTensors};
pub use batches::{BatchState, Batches};
pub use encode::{EncodeOptions, EncodeReport, Encoded, Truncation, encode};
pub use encoder_tokenizer::{EncodedSequence, EncoderTokenizer};
pub use error::DataError;
pub use example::Example;
pub use fault::{Faults, LineFault, NoFormat, RowFault};
pub use plan::BatchPlan;
pub use read::read_rows;
pub use rows::{Row, RowFormat, Rows};
pub use special_tokens::SpecialTokens;
pub use split::split;
pub use tokenizer::Tokenizer;
pub use vocab::check_vocab;
