//! What a run saves on its way, and how it goes on from there.

mod files;
mod same_run;
mod state;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{ModuleOptimizer, OptimizerRecord};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Bytes, Tensor};
use burn_lora_adapter::budget::AllocatorRecord;

pub(crate) use same_run::Marks;
pub(crate) use state::RunState;

use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::step::Memory;
use state::Manifest;

/// The parameters that the trained module shows.
const MODEL: &str = "model.bpk";
/// The optimizer's state of each.
const OPTIMIZER: &str = "optimizer.bpk";
/// What AdaLoRA's allocator has learned, where there is one.
const ALLOCATOR: &str = "allocator.json";
/// Where the run stands, and the hashes of the other files.
const MANIFEST: &str = "checkpoint.json";

/// The checkpoints of a run: `checkpoints/step-120/{model.bpk,optimizer.bpk,checkpoint.json}` in the output folder.
///
/// A checkpoint is written to `step-120.partial`, brought to the disk, and then gets its name, so that a process may be
/// killed at any moment. What is not as it was written is found by its hash and left out when a run is resumed.
///
/// The files hold what the trained module shows: of a module wrapped in `AdapterOnly`, adapters and nothing of the base.
/// The order of the data, the learning rate and the random numbers follow from the step, so they need no file.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

/// A checkpoint as it was read.
pub(crate) struct Resumed {
    /// Where the run stands.
    pub(crate) state: RunState,
    /// The parameters.
    pub(crate) model: ModuleRecord,
    /// The optimizer's state.
    pub(crate) optimizer: OptimizerRecord,
    /// What AdaLoRA's allocator has learned.
    pub(crate) memory: Option<AllocatorRecord>,
    /// Its folder.
    pub(crate) path: PathBuf,
}

/// The latest checkpoint that is whole, and those after it that are not.
pub(crate) struct Latest {
    /// Nothing if the run had not written any.
    pub(crate) resumed: Option<Resumed>,
    /// Folders that were left out, and why.
    pub(crate) skipped: Vec<String>,
}

impl Checkpoints {
    /// The checkpoints of a run, or nothing if it writes none.
    pub(crate) fn of(config: &TrainConfig) -> Option<Self> {
        config.save_every?;
        Some(Self {
            folder: config.output_dir.as_ref()?.join("checkpoints"),
            keep: config.keep,
        })
    }

    /// Readies the folder for a new run, whose settings are written into it, or checks that `config` belongs to the run
    /// to resume, and reads its latest checkpoint.
    ///
    /// # Errors
    /// [`TrainError::Io`], [`TrainError::NoCheckpoint`], [`TrainError::ResumeMismatch`].
    pub(crate) fn open(&self, config: &TrainConfig, marks: &Marks) -> Result<Latest, TrainError> {
        match config.resume {
            true => {
                self.check_same_run(config, marks)?;
                let latest = self.latest()?;
                if let Some(resumed) = &latest.resumed {
                    // A process that was killed between a checkpoint and this has left it undone.
                    let best = resumed.state.standing.best.filter(|_| config.keep_best);
                    self.prune(best.map(|best| best.step))?;
                }
                Ok(latest)
            }
            false => {
                for step in self.steps() {
                    self.delete(step)?;
                }
                fs::create_dir_all(&self.folder).map_err(io_error(&self.folder))?;
                self.write_run(config, marks)?;
                Ok(Latest {
                    resumed: None,
                    skipped: Vec::new(),
                })
            }
        }
    }

    /// The latest checkpoint that is whole. Those after it are put aside, as `torn-step-120`, so that none of them counts as one
    /// that is kept.
    ///
    /// # Errors
    /// [`TrainError::NoCheckpoint`] where there are checkpoints, but none that can be read.
    fn latest(&self) -> Result<Latest, TrainError> {
        self.bring_back()?;
        let mut skipped = Vec::new();
        let mut torn = Vec::new();
        for step in self.steps().into_iter().rev() {
            let path = self.folder_of(step);
            match read(&path) {
                Ok(resumed) => {
                    for step in torn {
                        self.put_aside(step)?;
                    }
                    let resumed = Some(resumed);
                    return Ok(Latest { resumed, skipped });
                }
                Err(fault) => {
                    skipped.push(format!("{}: {fault}", path.display()));
                    torn.push(step);
                }
            }
        }
        match skipped.is_empty() {
            true => Ok(Latest {
                resumed: None,
                skipped,
            }),
            false => Err(TrainError::NoCheckpoint {
                path: self.folder.clone(),
                faults: skipped,
            }),
        }
    }

    /// Saves where a run stands.
    ///
    /// # Errors
    /// [`TrainError::Io`] and [`TrainError::Checkpoint`], with the checkpoints before in their places;
    /// [`TrainError::NotFinite`] for parameters that are no numbers.
    pub(crate) fn save<M: Module + Memory>(
        &self,
        state: &RunState,
        model: &M,
        optimizer: &ModuleOptimizer,
    ) -> Result<PathBuf, TrainError> {
        if !is_finite(model) {
            return Err(TrainError::NotFinite {
                split: "training",
                step: state.step,
                loss: f64::NAN,
            });
        }
        let path = self.folder_of(state.step);
        let failed = |source| TrainError::Checkpoint {
            path: path.clone(),
            source,
        };
        let memory = model.memory();
        let model = model.clone().into_record().into_bytes().map_err(failed)?;
        let optimizer = optimizer.into_bytes().map_err(failed)?;
        let mut content =
            BTreeMap::from([(MODEL, model.to_vec()), (OPTIMIZER, optimizer.to_vec())]);
        if let Some(memory) = memory {
            let memory = serde_json::to_vec(&memory).map_err(json_error(&path))?;
            content.insert(ALLOCATOR, memory);
        }
        let manifest = Manifest::of(state, &content);
        let manifest = serde_json::to_vec_pretty(&manifest).map_err(json_error(&path))?;
        content.insert(MANIFEST, manifest);
        files::write_folder(&path, &content).map_err(io_error(&path))?;
        Ok(path)
    }

    /// Deletes all checkpoints but the last few, and the best.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub(crate) fn prune(&self, best: Option<usize>) -> Result<(), TrainError> {
        let steps = self.steps();
        let surplus = steps.len().saturating_sub(self.keep);
        for step in &steps[..surplus] {
            if Some(*step) != best {
                self.delete(*step)?;
            }
        }
        Ok(())
    }

    /// The parameters of a checkpoint.
    ///
    /// # Errors
    /// [`TrainError::NoCheckpoint`] if it is not whole.
    pub(crate) fn model_at(&self, step: usize) -> Result<ModuleRecord, TrainError> {
        let path = self.folder_of(step);
        let read = read(&path).map_err(|fault| TrainError::NoCheckpoint {
            path,
            faults: vec![fault],
        });
        Ok(read?.model)
    }

    /// The latest checkpoint, by its name.
    pub(crate) fn last(&self) -> Option<PathBuf> {
        self.steps().last().map(|step| self.folder_of(*step))
    }

    pub(crate) fn folder_of(&self, step: usize) -> PathBuf {
        self.folder.join(format!("step-{step}"))
    }

    fn delete(&self, step: usize) -> Result<(), TrainError> {
        let path = self.folder_of(step);
        files::remove(&path).map_err(io_error(&path))
    }

    fn put_aside(&self, step: usize) -> Result<(), TrainError> {
        let path = self.folder_of(step);
        let aside = self.folder.join(format!("torn-step-{step}"));
        files::remove(&aside)
            .and_then(|()| fs::rename(&path, &aside))
            .map_err(io_error(&path))
    }

    /// The steps that have a folder, ascending.
    fn steps(&self) -> Vec<usize> {
        let mut steps: Vec<usize> = self.names().iter().filter_map(|name| step(name)).collect();
        steps.sort_unstable();
        steps
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// Gives those their names back that were to be replaced when the process ended, and removes what was not finished.
    fn bring_back(&self) -> Result<(), TrainError> {
        for name in self.names() {
            let path = self.folder.join(&name);
            let done = match name.strip_suffix(".old") {
                Some(own) if step(own).is_some() && !self.folder.join(own).exists() => {
                    fs::rename(&path, self.folder.join(own))
                }
                _ if name.starts_with("step-") && step(&name).is_none() => files::remove(&path),
                _ => Ok(()),
            };
            done.map_err(io_error(&path))?;
        }
        Ok(())
    }
}

/// `120` of `step-120`.
fn step(name: &str) -> Option<usize> {
    name.strip_prefix("step-")?.parse().ok()
}

/// Reads a checkpoint, or tells what is wrong with it.
fn read(folder: &Path) -> Result<Resumed, String> {
    let manifest = fs::read(folder.join(MANIFEST)).map_err(|e| format!("{MANIFEST}: {e}"))?;
    let manifest: Manifest =
        serde_json::from_slice(&manifest).map_err(|e| format!("{MANIFEST}: {e}"))?;
    let bytes = |name: &str| -> Result<Bytes, String> {
        let content = manifest.read(folder, name);
        Ok(Bytes::from_bytes_vec(
            content.map_err(|fault| format!("{name}: {fault}"))?,
        ))
    };
    let failed = |name: &'static str| move |error: RecordError| format!("{name}: {error}");
    let memory = match manifest.has(ALLOCATOR) {
        true => serde_json::from_slice(&bytes(ALLOCATOR)?).map_err(|e| e.to_string())?,
        false => None,
    };
    Ok(Resumed {
        memory,
        model: ModuleRecord::from_bytes(bytes(MODEL)?).map_err(failed(MODEL))?,
        optimizer: OptimizerRecord::from_bytes(bytes(OPTIMIZER)?).map_err(failed(OPTIMIZER))?,
        state: manifest.state,
        path: folder.to_path_buf(),
    })
}

/// Whether all parameters that a module shows are numbers.
fn is_finite<M: Module>(module: &M) -> bool {
    struct Sums(Vec<Tensor<1>>);
    impl ModuleVisitor for Sums {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            // Infinite values become NaN, and one NaN makes the sum one.
            let value = param.val().without_autodiff();
            self.0.push(value.mul_scalar(0.0).sum());
        }
    }
    let mut sums = Sums(Vec::new());
    module.visit(&mut sums);
    if sums.0.is_empty() {
        return true;
    }
    let sums = Tensor::cat(sums.0, 0).sum().try_into_scalar::<f64>();
    sums.is_ok_and(f64::is_finite)
}

pub(crate) fn io_error(path: &Path) -> impl Fn(std::io::Error) -> TrainError + '_ {
    move |source| TrainError::Io {
        path: path.to_path_buf(),
        source,
    }
}

fn json_error(path: &Path) -> impl Fn(serde_json::Error) -> TrainError + '_ {
    move |error| io_error(path)(error.into())
}

#[cfg(test)]
mod tests;
