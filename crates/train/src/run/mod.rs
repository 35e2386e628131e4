//! A whole run as data: what is in a configuration file, and what is done with it.

mod adapter;
mod attach;
mod config;
mod data;
mod execute;
mod job;
mod options;
mod parse;
mod part;
mod same;
mod task;

pub use adapter::AdapterSettings;
pub use config::{DataSettings, EvaluationSettings, ModelDtype, PreferenceSettings, RunConfig};
pub use data::{RunData, RunPart, read_data, read_tokenizer};
pub use execute::{
    RunError, RunEvaluation, RunPreview, RunResult, RunWatcher, evaluate_run, preview, run,
};
pub use part::{
    BottleneckSettings, EncoderType, PTuningSettings, PartSettings, Placement, PrefixSettings,
    PromptSettings, PromptStart,
};
pub use task::TaskKind;

#[cfg(test)]
mod tests;
