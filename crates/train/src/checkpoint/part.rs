use std::fs;
use std::path::PathBuf;

use burn::train::checkpoint::{Checkpoint, Checkpointer, CheckpointerError};

use super::{Checkpoints, part_file};
use crate::watch::Watch;

/// One part of all checkpoints of a run, by burn-train's interface. Its epoch is our interval.
pub(crate) struct Part {
    pub(super) checkpoints: Checkpoints,
    pub(super) part: &'static str,
    pub(super) watch: Watch,
}

impl Part {
    fn path(&self, interval: usize) -> (PathBuf, PathBuf) {
        let folder = self
            .checkpoints
            .folder_of(self.checkpoints.step_of(interval));
        let file = part_file(&folder, self.part);
        (folder, file)
    }

    /// Writes beside the final place and moves, so that a checkpoint is whole or not there.
    fn write<R: Checkpoint>(&self, interval: usize, record: R) -> Result<(), CheckpointerError> {
        let (folder, file) = self.path(interval);
        fs::create_dir_all(&folder).map_err(CheckpointerError::IOError)?;
        let unfinished = folder.join(format!("{}.unfinished.bpk", self.part));
        record.save(unfinished.clone())?;
        fs::rename(unfinished, file).map_err(CheckpointerError::IOError)
    }
}

impl<R: Checkpoint> Checkpointer<R> for Part {
    fn save(&self, interval: usize, record: R) -> Result<(), CheckpointerError> {
        self.write(interval, record)
            .inspect_err(|error| self.watch.failed(error))
    }

    fn delete(&self, interval: usize) -> Result<(), CheckpointerError> {
        let (folder, file) = self.path(interval);
        if file.exists() {
            fs::remove_file(file).map_err(CheckpointerError::IOError)?;
        }
        // Succeeds for the last part; before that the folder is not empty.
        let _ = fs::remove_dir(folder);
        Ok(())
    }

    fn restore(&self, interval: usize) -> Result<R, CheckpointerError> {
        R::load(self.path(interval).1)
    }
}
