//! A whole run as data: what is in a configuration file, and what is done with it.

mod config;
mod data;
mod execute;
mod parse;

pub use config::{AdapterSettings, DataSettings, EvaluationSettings, ModelDtype, RunConfig};
pub use data::{RunData, RunPart, read_data, read_tokenizer};
pub use execute::{RunError, RunResult, RunWatcher, run};

#[cfg(test)]
mod tests;
