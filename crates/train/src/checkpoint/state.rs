use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::files::Mark;
use crate::loss_scale::State as LossScaleState;
use crate::standing::Standing;
use crate::watch::Counts;

/// Where a run stands, beside its parameters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunState {
    /// Optimizer steps done.
    pub(crate) step: usize,
    /// The last step after which the model was validated.
    pub(crate) validated: usize,
    /// The best validation.
    pub(crate) standing: Standing,
    /// What was counted.
    pub(crate) counts: Counts,
    /// The loss scale of a model in f16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) loss_scale: Option<LossScaleState>,
    /// Where the data stands, if it is streamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) position: Option<Value>,
}

/// The content of `checkpoint.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// Another form gets another number.
    format: Version,
    pub(super) state: RunState,
    files: BTreeMap<String, Mark>,
}

/// Reads as 1 alone.
#[derive(Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
#[derive(Clone, Copy)]
struct Version;

impl TryFrom<u32> for Version {
    type Error = String;

    fn try_from(number: u32) -> Result<Self, String> {
        match number {
            1 => Ok(Self),
            _ => Err(format!("format {number} is not known here")),
        }
    }
}

impl From<Version> for u32 {
    fn from(_: Version) -> Self {
        1
    }
}

impl Manifest {
    pub(super) fn of(state: &RunState, files: &BTreeMap<&str, Vec<u8>>) -> Self {
        let mark = |(name, content): (&&str, &Vec<u8>)| (name.to_string(), Mark::of(content));
        Self {
            format: Version,
            state: state.clone(),
            files: files.iter().map(mark).collect(),
        }
    }

    /// Whether the checkpoint has a file of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// The content of a file of the checkpoint, or what is wrong with it.
    pub(super) fn read(&self, folder: &Path, name: &str) -> Result<Vec<u8>, String> {
        let mark = self.files.get(name).ok_or("it is not listed")?;
        mark.read(&folder.join(name))
    }
}
