use std::fs;
use std::path::PathBuf;

use burn::train::checkpoint::{Checkpoint, Checkpointer, CheckpointerError};

use super::{Checkpoints, LOSS_SCALE, part_file};
use crate::loss_scale::LossScale;
use crate::watch::Watch;

/// One part of all checkpoints of a run, by burn-train's interface. Its epoch is our interval.
pub(crate) struct Part {
    pub(super) checkpoints: Checkpoints,
    pub(super) part: &'static str,
    pub(super) watch: Watch,
    /// Kept in a file beside this part, for a model that needs it.
    pub(super) loss_scale: Option<LossScale>,
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
        if let Some(state) = self.loss_scale.as_ref().and_then(LossScale::state) {
            let text = serde_json::to_string(&state).map_err(std::io::Error::from);
            let written = text.and_then(|text| fs::write(folder.join(LOSS_SCALE), text));
            written.map_err(CheckpointerError::IOError)?;
        }
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
        if self.loss_scale.is_some() {
            // There is one for a model in f16 only.
            let _ = fs::remove_file(folder.join(LOSS_SCALE));
        }
        // Succeeds for the last part; before that the folder is not empty.
        let _ = fs::remove_dir(folder);
        Ok(())
    }

    fn restore(&self, interval: usize) -> Result<R, CheckpointerError> {
        let (folder, file) = self.path(interval);
        let kept = folder.join(LOSS_SCALE);
        if let Some(loss_scale) = &self.loss_scale
            && kept.exists()
        {
            let text = fs::read_to_string(kept).map_err(CheckpointerError::IOError)?;
            let state = serde_json::from_str(&text).map_err(std::io::Error::from);
            loss_scale.restore(state.map_err(CheckpointerError::IOError)?);
        }
        R::load(file)
    }
}
