//! What tells one run from another.

use std::fs;
use std::path::PathBuf;

use burn_lora_data::Example;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{Checkpoints, files, io_error, json_error};
use crate::config::TrainConfig;
use crate::error::TrainError;

/// The settings of the run, beside its checkpoints.
const RUN: &str = "run.json";

/// Settings that a resumed run may change: they say when it stops and what it writes, not what it computes.
const FREE: [&str; 9] = [
    "allow_changes",
    "keep",
    "log_every",
    "max_minutes",
    "max_tokens",
    "output_dir",
    "patience",
    "resume",
    "save_every",
];

/// What the data of a run is known by: a name and a hash for each part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks(Vec<(&'static str, String)>);

impl Marks {
    /// Adds a part.
    pub(crate) fn with(mut self, name: &'static str, examples: &[Example]) -> Self {
        let mut hash = Sha256::new();
        for example in examples {
            hash.update((example.len() as u64).to_le_bytes());
            for id in example.ids() {
                hash.update(id.to_le_bytes());
            }
            hash.update((example.spans().len() as u64).to_le_bytes());
            for place in example
                .spans()
                .iter()
                .flat_map(|span| [span.start, span.end])
            {
                hash.update((place as u64).to_le_bytes());
            }
        }
        let hash = hash.finalize();
        let short: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let mark = format!("{} examples, {short}", examples.len());
        self.0.push((name, mark));
        self
    }
}

impl Checkpoints {
    /// Writes what the run is known by.
    pub(super) fn write_run(&self, config: &TrainConfig, marks: &Marks) -> Result<(), TrainError> {
        let path = self.run();
        let run = identity(config, marks).map_err(json_error(&path))?;
        let text = serde_json::to_vec_pretty(&run).map_err(json_error(&path))?;
        files::write_file(&path, &text).map_err(io_error(&path))
    }

    /// Compares what the run is known by with what the one is that would go on.
    pub(super) fn check_same_run(
        &self,
        config: &TrainConfig,
        marks: &Marks,
    ) -> Result<(), TrainError> {
        let path = self.run();
        if !path.exists() {
            return Err(TrainError::NoCheckpoint {
                path: self.folder.clone(),
                faults: Vec::new(),
            });
        }
        if config.allow_changes {
            return self.write_run(config, marks);
        }
        let text = fs::read_to_string(&path).map_err(io_error(&path))?;
        let old: Map<String, Value> = serde_json::from_str(&text).map_err(json_error(&path))?;
        let new = identity(config, marks).map_err(json_error(&path))?;
        let differences: Vec<String> = new
            .iter()
            .filter(|(name, _)| !FREE.contains(&name.as_str()))
            .filter(|(name, value)| old.get(*name) != Some(value))
            .map(|(name, value)| {
                let old = old.get(name).unwrap_or(&Value::Null);
                format!("{name}: {old}, now {value}")
            })
            .collect();
        match differences.is_empty() {
            true => Ok(()),
            false => Err(TrainError::ResumeMismatch { path, differences }),
        }
    }

    fn run(&self) -> PathBuf {
        self.folder.join(RUN)
    }
}

fn identity(config: &TrainConfig, marks: &Marks) -> serde_json::Result<Map<String, Value>> {
    // By way of text, as what it is compared with: serde_json does not read every number as it was written.
    let text = serde_json::to_string(config)?;
    let mut run: Map<String, Value> = serde_json::from_str(&text)?;
    for (name, mark) in &marks.0 {
        run.insert(name.to_string(), mark.as_str().into());
    }
    Ok(run)
}
