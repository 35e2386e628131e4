//! Which adapters a folder holds.

use std::fs;
use std::path::{Path, PathBuf};

use burn_lora_adapter::peft::CONFIG_FILE;
use serde_json::{Map, Value};

use super::PartError;
use crate::adapter_folder::read_config;
use crate::task::heads_of;

/// What an adapter is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AdapterKind {
    /// The weights of layers: LoRA and its relatives.
    Weights,
    /// The tokens of a sequence: prompt tuning, P-tuning, prefix tuning.
    VirtualTokens,
    /// The blocks: bottleneck adapters.
    Bottleneck,
}

/// The folder of one adapter, by its `adapter_config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterFolder {
    /// The folder.
    pub path: PathBuf,
    /// What the adapter is attached to.
    pub kind: AdapterKind,
    /// PEFT's name of the method.
    pub peft_type: String,
    /// PEFT's name of the task.
    pub task_type: Option<String>,
    /// The modules that it holds as a whole.
    pub modules_to_save: Vec<String>,
}

impl AdapterFolder {
    fn read(path: &Path) -> Result<Self, PartError> {
        let (_, config) = read_config(path, |_| Ok(()))?;
        Ok(Self::of(path, &config))
    }

    pub(super) fn of(path: &Path, config: &Map<String, Value>) -> Self {
        let word = |field: &str| config.get(field).and_then(Value::as_str);
        let peft_type = word("peft_type").unwrap_or_default().to_string();
        let kind = match peft_type.as_str() {
            "PROMPT_TUNING" | "P_TUNING" | "PREFIX_TUNING" => AdapterKind::VirtualTokens,
            "BOTTLENECK" => AdapterKind::Bottleneck,
            // What is unknown is told by whoever reads those.
            _ => AdapterKind::Weights,
        };
        let task_type = word("task_type");
        let names = |names: &Vec<Value>| {
            let names = names.iter().filter_map(Value::as_str);
            names.map(String::from).collect()
        };
        let saved = config.get("modules_to_save").and_then(Value::as_array);
        Self {
            path: path.to_path_buf(),
            kind,
            modules_to_save: match (saved, kind) {
                (Some(saved), _) => names(saved),
                (None, AdapterKind::Weights) => Vec::new(),
                (None, _) => heads_of(task_type),
            },
            task_type: task_type.map(String::from),
            peft_type,
        }
    }

    /// Why it cannot be folded into the weights, if it is of a kind that can not.
    pub fn why_unmergeable(&self) -> Option<String> {
        let what = match self.kind {
            AdapterKind::Weights => return None,
            AdapterKind::VirtualTokens => "virtual tokens",
            AdapterKind::Bottleneck => "bottlenecks",
        };
        Some(format!(
            "{} holds {what} ({}), which cannot be merged: no weight does what they do; they work with --adapter beside the model",
            self.path.display(),
            self.peft_type
        ))
    }
}

/// The adapters of a folder: the one that it is, or those in its subfolders, of which each is attached to something else, as a run with
/// several methods writes them.
///
/// # Errors
///
/// A folder without any, with two of a kind, or with a configuration that cannot be read.
pub fn adapter_folders(dir: &Path) -> Result<Vec<AdapterFolder>, PartError> {
    let is_one = |path: &Path| path.join(CONFIG_FILE).is_file();
    if is_one(dir) {
        return Ok(vec![AdapterFolder::read(dir)?]);
    }
    let io = |source| PartError::Io {
        path: dir.to_path_buf(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if is_one(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    let folders = paths.iter().map(|path| AdapterFolder::read(path));
    let folders: Vec<AdapterFolder> = folders.collect::<Result<_, _>>()?;
    let mut faults = Vec::new();
    if folders.is_empty() {
        faults.push(format!("neither it nor a folder in it has {CONFIG_FILE}"));
    }
    for kind in [
        AdapterKind::Weights,
        AdapterKind::VirtualTokens,
        AdapterKind::Bottleneck,
    ] {
        let names = folders.iter().filter(|folder| folder.kind == kind);
        let names: Vec<_> = names
            .filter_map(|folder| Some(folder.path.file_name()?.to_string_lossy()))
            .collect();
        if names.len() > 1 {
            faults.push(format!(
                "{} are adapters of one kind, of which a model takes one: name its folder",
                names.join(", ")
            ));
        }
    }
    match faults.is_empty() {
        true => Ok(folders),
        false => Err(PartError::Folder {
            path: dir.to_path_buf(),
            faults,
        }),
    }
}
