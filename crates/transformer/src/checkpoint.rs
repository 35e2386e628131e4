//! The weights of a folder: safetensors files or, failing that, PyTorch's. Opening reads what the files say of their
//! tensors; a tensor's bytes are read when it is asked for, and nothing is kept.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde_json::Value;

use crate::error::LoadError;
use crate::header::{self, HeaderError};
use crate::pickle;

/// The two ways of storing weights: in one file, and in several that an index lists. The first that a folder has counts.
const FORMATS: [Format; 2] = [
    Format {
        single: "model.safetensors",
        index: "model.safetensors.index.json",
        add: Checkpoint::add_safetensors,
    },
    Format {
        single: "pytorch_model.bin",
        index: "pytorch_model.bin.index.json",
        add: Checkpoint::add_pickle,
    },
];

struct Format {
    single: &'static str,
    index: &'static str,
    add: fn(&mut Checkpoint, &Path, &mut Vec<String>) -> Result<(), LoadError>,
}

/// A tensor of a checkpoint.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Which of the files.
    file: usize,
    place: Place,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
}

impl Entry {
    /// The size in the file.
    pub(crate) fn bytes(&self) -> u64 {
        let numbers: usize = self.shape.iter().product();
        (numbers * self.dtype.bitsize() / 8) as u64
    }
}

#[derive(Debug)]
enum Place {
    /// In bytes from the start of the file.
    Bytes(Range<u64>),
    Pickled(pickle::Handle),
}

/// All tensors of a checkpoint, in one file or several.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    files: Vec<(PathBuf, File)>,
    pub(crate) entries: BTreeMap<String, Entry>,
}

impl Checkpoint {
    pub(crate) fn open(dir: &Path) -> Result<Self, LoadError> {
        let mut checkpoint = Self {
            files: Vec::new(),
            entries: BTreeMap::new(),
        };
        for format in FORMATS {
            let single = dir.join(format.single);
            if single.is_file() {
                (format.add)(&mut checkpoint, &single, &mut Vec::new())?;
                return Ok(checkpoint);
            }
            let index = dir.join(format.index);
            if index.is_file() {
                checkpoint.add_indexed(&index, format.add)?;
                return Ok(checkpoint);
            }
        }
        Err(LoadError::NoWeights {
            dir: dir.into(),
            hint: other_weights(dir),
        })
    }

    /// The bytes of a tensor, in the file's dtype and order.
    ///
    /// They are read and not mapped: a file that somebody shortens meanwhile is an error and not the end of the process,
    /// and pages that were read do not count as memory of this process.
    pub(crate) fn read(&self, entry: &Entry) -> Result<Vec<u8>, LoadError> {
        let (path, file) = &self.files[entry.file];
        let bytes = match &entry.place {
            Place::Bytes(range) => read_range(file, range),
            Place::Pickled(handle) => handle.read(),
        };
        bytes.map_err(|source| LoadError::Read {
            path: path.clone(),
            source,
        })
    }

    /// Whether there can be so many blocks. To be asked before the model is declared, which takes memory for each.
    pub(crate) fn check_layers(&self, dir: &Path, layers: usize) -> Result<(), LoadError> {
        let tensors = self.entries.len();
        match layers <= tensors {
            true => Ok(()),
            false => Err(LoadError::Layers {
                dir: dir.into(),
                layers,
                tensors,
            }),
        }
    }

    /// The name of the file that holds a tensor.
    pub(crate) fn file_name(&self, entry: &Entry) -> String {
        let (path, _) = &self.files[entry.file];
        let name = path.file_name().unwrap_or(path.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// The names of the files and their sizes.
    pub(crate) fn file_sizes(&self) -> Vec<(String, u64)> {
        let sizes = self.files.iter().map(|(path, file)| {
            let name = path.file_name().unwrap_or(path.as_os_str());
            let bytes = file.metadata().map_or(0, |metadata| metadata.len());
            (name.to_string_lossy().into_owned(), bytes)
        });
        sizes.collect()
    }

    fn add_safetensors(
        &mut self,
        path: &Path,
        repeated: &mut Vec<String>,
    ) -> Result<(), LoadError> {
        let read = |source| LoadError::Read {
            path: path.into(),
            source,
        };
        let mut file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let tensors = header::read(&mut file, length).map_err(|error| match error {
            HeaderError::Read(source) => read(source),
            HeaderError::Faults(faults) => LoadError::Damaged {
                path: path.into(),
                faults,
            },
        })?;
        for tensor in tensors {
            let entry = Entry {
                file: self.files.len(),
                place: Place::Bytes(tensor.range),
                dtype: tensor.dtype,
                shape: tensor.shape,
            };
            self.add(tensor.name, entry, repeated);
        }
        self.files.push((path.into(), file));
        Ok(())
    }

    fn add_pickle(&mut self, path: &Path, repeated: &mut Vec<String>) -> Result<(), LoadError> {
        let file = File::open(path).map_err(|source| LoadError::Read {
            path: path.into(),
            source,
        })?;
        for tensor in pickle::read(path)? {
            let entry = Entry {
                file: self.files.len(),
                place: Place::Pickled(tensor.handle),
                dtype: tensor.dtype,
                shape: tensor.shape,
            };
            self.add(tensor.name, entry, repeated);
        }
        self.files.push((path.into(), file));
        Ok(())
    }

    /// Tensors that are there already are noted, not replaced.
    fn add(&mut self, name: String, entry: Entry, repeated: &mut Vec<String>) {
        match self.entries.entry(name) {
            Slot::Occupied(slot) => {
                repeated.push(format!("`{}` is in more than one file", slot.key()));
            }
            Slot::Vacant(slot) => {
                slot.insert(entry);
            }
        }
    }

    fn add_indexed(
        &mut self,
        path: &Path,
        add: fn(&mut Self, &Path, &mut Vec<String>) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let located = read_index(path)?;
        let files: BTreeSet<&String> = located.values().collect();
        let broken = |problems| LoadError::Index {
            path: path.into(),
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
            add(self, &dir.join(file), &mut problems)?;
        }
        for (name, file) in &located {
            match self.entries.get(name).map(|entry| self.file_name(entry)) {
                Some(found) if found == *file => (),
                Some(found) => problems.push(format!("`{name}` is in `{found}`, not in `{file}`")),
                None => problems.push(format!("`{file}` does not hold `{name}`")),
            }
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(broken(problems)),
        }
    }
}

fn read_range(mut file: &File, range: &Range<u64>) -> std::io::Result<Vec<u8>> {
    let length = range.end - range.start;
    // The range was seen to lie within the file, so it is not a size that nobody has.
    let mut bytes = Vec::with_capacity(length as usize);
    file.seek(SeekFrom::Start(range.start))?;
    file.take(length).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == length {
        true => Ok(bytes),
        false => Err(std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            "the file became shorter while it was read",
        )),
    }
}

/// The file of each tensor.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, LoadError> {
    let text = std::fs::read_to_string(path).map_err(|source| LoadError::Read {
        path: path.into(),
        source,
    })?;
    let broken = |problems| LoadError::Index {
        path: path.into(),
        problems,
    };
    let index: Value =
        serde_json::from_str(&text).map_err(|error| broken(vec![error.to_string()]))?;
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| broken(vec!["no object under `weight_map`".into()]))?;

    let mut located = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, file) in map {
        match file.as_str() {
            // A shard lies beside its index; anything else would read outside the folder.
            Some(file) if is_plain_name(file) => {
                located.insert(name.clone(), file.to_owned());
            }
            _ => problems.push(format!("`{name}` is in {file}, not a file name")),
        }
    }
    match problems.is_empty() {
        true => Ok(located),
        false => Err(broken(problems)),
    }
}

fn is_plain_name(file: &str) -> bool {
    Path::new(file).file_name().is_some_and(|name| name == file)
}

/// Names weights in other formats, for the error.
fn other_weights(dir: &Path) -> String {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    let others = ["safetensors", "bin", "pt", "pth", "gguf", "h5", "msgpack"];
    found.retain(|path| {
        path.extension()
            .is_some_and(|extension| others.iter().any(|other| extension == *other))
    });
    found.sort();
    let names: Vec<String> = found
        .iter()
        .filter_map(|path| path.file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    match names.is_empty() {
        true => String::new(),
        false => format!("; it holds {}, which is none of them", names.join(", ")),
    }
}
