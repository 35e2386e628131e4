//! The safetensors files of a folder, mapped into memory. Opening reads the headers only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::error::LoadError;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Where a tensor lies.
#[derive(Debug)]
pub(crate) struct Entry {
    shard: usize,
    range: Range<usize>,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
}

/// All tensors of a checkpoint, in one file or several.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    shards: Vec<Mmap>,
    pub(crate) entries: BTreeMap<String, Entry>,
}

impl Checkpoint {
    pub(crate) fn open(dir: &Path) -> Result<Self, LoadError> {
        let mut checkpoint = Self {
            shards: Vec::new(),
            entries: BTreeMap::new(),
        };
        if dir.join(SINGLE).is_file() {
            checkpoint.add_shard(&dir.join(SINGLE), &mut Vec::new())?;
        } else if dir.join(INDEX).is_file() {
            checkpoint.add_indexed(dir)?;
        } else {
            return Err(LoadError::NoWeights {
                dir: dir.into(),
                hint: other_weights(dir),
            });
        }
        Ok(checkpoint)
    }

    /// The bytes of a tensor, in the file's dtype and order.
    pub(crate) fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.shards[entry.shard][entry.range.clone()]
    }

    /// Tensors that are there already are noted, not replaced.
    fn add_shard(&mut self, path: &Path, repeated: &mut Vec<String>) -> Result<(), LoadError> {
        let read = |source| LoadError::Read {
            path: path.into(),
            source,
        };
        let file = File::open(path).map_err(read)?;
        // SAFETY: the map is read-only; as with every mapped file, nobody may shorten it while it is open.
        let map = unsafe { Mmap::map(&file) }.map_err(read)?;
        let (header, metadata) =
            SafeTensors::read_metadata(&map).map_err(|error| LoadError::Damaged {
                path: path.into(),
                reason: error.to_string(),
            })?;
        // The file starts with the header's length in eight bytes.
        let start = 8 + header;
        for (name, info) in metadata.tensors() {
            if self.entries.contains_key(&name) {
                repeated.push(format!("`{name}` is in more than one file"));
                continue;
            }
            let (from, to) = info.data_offsets;
            let entry = Entry {
                shard: self.shards.len(),
                range: start + from..start + to,
                dtype: info.dtype,
                shape: info.shape.clone(),
            };
            self.entries.insert(name, entry);
        }
        self.shards.push(map);
        Ok(())
    }

    fn add_indexed(&mut self, dir: &Path) -> Result<(), LoadError> {
        let path = dir.join(INDEX);
        let located = read_index(&path)?;
        let files: BTreeSet<&String> = located.values().collect();
        let broken = |problems| LoadError::Index {
            path: path.clone(),
            problems,
        };

        let absent: Vec<String> = files
            .iter()
            .filter(|file| !dir.join(file).is_file())
            .map(|file| {
                let count = located.values().filter(|at| at == file).count();
                format!("`{file}` is not in the folder ({count} tensors)")
            })
            .collect();
        if !absent.is_empty() {
            return Err(broken(absent));
        }

        let mut problems = Vec::new();
        for file in &files {
            self.add_shard(&dir.join(file), &mut problems)?;
        }
        let not_there = located
            .iter()
            .filter(|(name, _)| !self.entries.contains_key(*name));
        problems.extend(not_there.map(|(name, file)| format!("`{file}` does not hold `{name}`")));
        match problems.is_empty() {
            true => Ok(()),
            false => Err(broken(problems)),
        }
    }
}

/// The file of each tensor.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, LoadError> {
    let text = std::fs::read_to_string(path).map_err(|source| LoadError::Read {
        path: path.into(),
        source,
    })?;
    let broken = |problem: String| LoadError::Index {
        path: path.into(),
        problems: vec![problem],
    };
    let index: Value = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| broken("no object under `weight_map`".into()))?;
    map.iter()
        .map(|(name, file)| match file.as_str() {
            // A shard lies beside its index; anything else would read outside the folder.
            Some(file) if is_plain_name(file) => Ok((name.clone(), file.to_owned())),
            _ => Err(broken(format!("`{name}` is in {file}, not a file name"))),
        })
        .collect()
}

fn is_plain_name(file: &str) -> bool {
    Path::new(file).file_name().is_some_and(|name| name == file)
}

/// Names weights in other formats, for the error.
fn other_weights(dir: &Path) -> String {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    found.retain(|path| {
        path.extension()
            .is_some_and(|e| e == "bin" || e == "pt" || e == "pth" || e == "gguf" || e == "h5")
    });
    found.sort();
    let names: Vec<String> = found
        .iter()
        .filter_map(|path| path.file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    match names.is_empty() {
        true => String::new(),
        false => format!(
            "; it holds {}, which must be converted to safetensors first",
            names.join(", ")
        ),
    }
}
