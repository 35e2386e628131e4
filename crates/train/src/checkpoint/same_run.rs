//! What tells one run from another.

use std::fmt::{self, Debug, Write};
use std::fs;
use std::path::PathBuf;

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
    /// Those of the examples to learn and of those to validate with.
    pub(crate) fn of<E: Debug>(train: &[E], valid: &[E]) -> Self {
        Self(vec![
            ("train_data", mark(train)),
            ("valid_data", mark(valid)),
        ])
    }
}

/// By what examples of any kind are known again: all that their debug form shows.
fn mark<E: Debug>(examples: &[E]) -> String {
    struct Hashing(Sha256);
    impl fmt::Write for Hashing {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.update(text.as_bytes());
            Ok(())
        }
    }
    let mut hashing = Hashing(Sha256::new());
    for example in examples {
        // Nothing that is written to fails.
        let _ = write!(hashing, "{example:?};");
    }
    let hash = hashing.0.finalize();
    let short: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} examples, {short}", examples.len())
}

impl Checkpoints {
    /// Writes what the run is known by.
    pub(super) fn write_run(&self, config: &TrainConfig, marks: &Marks) -> Result<(), TrainError> {
        let path = self.run();
        let run = identity(config, marks).map_err(json_error(&path))?;
        files::write_file(&path, run.as_bytes()).map_err(io_error(&path))
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
        // Both by way of text, since serde_json does not read every number as it was written.
        let read = |text: &str| -> Result<Map<String, Value>, TrainError> {
            serde_json::from_str(text).map_err(json_error(&path))
        };
        let old = read(&fs::read_to_string(&path).map_err(io_error(&path))?)?;
        let new = read(&identity(config, marks).map_err(json_error(&path))?)?;
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

fn identity(config: &TrainConfig, marks: &Marks) -> serde_json::Result<String> {
    let mut run = match serde_json::to_value(config)? {
        Value::Object(run) => run,
        _ => Map::new(),
    };
    for (name, mark) in &marks.0 {
        run.insert(name.to_string(), mark.as_str().into());
    }
    serde_json::to_string_pretty(&run)
}
