//! Folders of files that are whole or not there, and files whose bytes are known.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// By what a file is known again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    bytes: u64,
    sha256: String,
}

impl Mark {
    pub(super) fn of(content: &[u8]) -> Self {
        Self {
            bytes: content.len() as u64,
            sha256: hex(&Sha256::digest(content)),
        }
    }

    /// The content of a file, or what is wrong with it.
    pub(super) fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        let content = fs::read(path).map_err(|error| error.to_string())?;
        if content.len() as u64 != self.bytes {
            return Err(format!("{} bytes of {}", content.len(), self.bytes));
        }
        match Self::of(&content) == *self {
            true => Ok(content),
            false => Err("its content is not what was written".into()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a folder: its files beside the place, down to the disk, then the name. Whenever the process ends, the folder is
/// whole or has not got its name.
pub(super) fn write_folder(folder: &Path, files: &BTreeMap<&str, Vec<u8>>) -> io::Result<()> {
    let partial = folder.with_extension("partial");
    let old = folder.with_extension("old");
    for leftover in [&partial, &old] {
        remove(leftover)?;
    }
    fs::create_dir_all(&partial)?;
    let written = files.iter().try_for_each(|(name, content)| {
        let mut file = File::create(partial.join(name))?;
        file.write_all(content)?;
        file.sync_all()
    });
    let named = written.and_then(|()| sync(&partial)).and_then(|()| {
        if folder.exists() {
            fs::rename(folder, &old)?;
        }
        fs::rename(&partial, folder)
    });
    if let Err(error) = named {
        // What could not be finished only takes room.
        let _ = remove(&partial);
        return Err(error);
    }
    if let Some(parent) = folder.parent() {
        sync(parent)?;
    }
    remove(&old)
}

/// Writes a file in the same way.
pub(super) fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written
        .and_then(|()| fs::rename(&partial, path))
        .inspect_err(|_| {
            let _ = fs::remove_file(&partial);
        })
}

/// Removes a folder that may not be there.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Brings the names in a folder to the disk, where folders can be opened.
fn sync(folder: &Path) -> io::Result<()> {
    match cfg!(unix) {
        true => File::open(folder)?.sync_all(),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_takes_the_place_of_another_as_a_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("step-3");
        write_folder(&folder, &BTreeMap::from([("a", vec![1]), ("b", vec![2])])).expect("written");
        fs::create_dir(dir.path().join("step-3.partial")).expect("what a killed process left");
        write_folder(&folder, &BTreeMap::from([("a", vec![3])])).expect("written");
        assert_eq!(fs::read(folder.join("a")).expect("there"), [3]);
        assert!(!folder.join("b").exists());
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn a_file_that_changed_is_known() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a");
        let mark = Mark::of(b"abc");
        assert!(mark.read(&path).is_err());
        for (content, fault) in [("ab", "2 bytes of 3"), ("abd", "not what was written")] {
            fs::write(&path, content).expect("written");
            let found = mark.read(&path).expect_err("it changed");
            assert!(found.contains(fault), "{found}");
        }
        fs::write(&path, "abc").expect("written");
        assert_eq!(mark.read(&path), Ok(b"abc".to_vec()));
    }
}
