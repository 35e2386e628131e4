//! What a run saves on its way, and how it goes on from there.

mod part;
mod strategy;

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::store::ModuleRecord;

use part::Part;
use strategy::EverySteps;

use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::loss_scale::LossScale;
use crate::watch::Watch;

/// The files of one checkpoint.
const PARTS: [&str; 3] = [MODEL, OPTIMIZER, SCHEDULER];
pub(crate) const MODEL: &str = "model";
pub(crate) const OPTIMIZER: &str = "optimizer";
pub(crate) const SCHEDULER: &str = "scheduler";

/// The settings of the run, beside its checkpoints.
const RUN: &str = "run.json";

/// The loss scale of a model in f16, in the folder of a checkpoint.
const LOSS_SCALE: &str = "loss_scale.json";

/// Settings that a resumed run may change.
const FREE: [&str; 4] = ["keep", "log_every", "output_dir", "resume"];

/// The checkpoints of a run: `checkpoints/step-120/{model,optimizer,scheduler}.bpk` in the output folder.
///
/// The parts hold what the trained module shows: of a module wrapped in `AdapterOnly`, adapters and nothing of the base.
/// The order of the data and the random numbers follow from the step, so they need no file.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoints {
    folder: PathBuf,
    steps: usize,
    interval: usize,
    save_every: usize,
    keep: usize,
}

impl Checkpoints {
    /// The checkpoints of a run, or nothing if it writes none.
    pub(crate) fn of(config: &TrainConfig) -> Option<Self> {
        Some(Self {
            folder: config.output_dir.as_ref()?.join("checkpoints"),
            steps: config.steps,
            interval: config.interval(),
            save_every: config.save_every?,
            keep: config.keep,
        })
    }

    /// Readies the folder for a new run, whose settings are written into it, or checks that `config` belongs to the run
    /// to resume. The result is the interval to resume after.
    ///
    /// # Errors
    /// [`TrainError::Io`], [`TrainError::NoCheckpoint`], [`TrainError::ResumeMismatch`].
    pub(crate) fn open(&self, config: &TrainConfig) -> Result<Option<usize>, TrainError> {
        let run = self.folder.join(RUN);
        if config.resume {
            let step = self.saved().last().copied();
            let step = step.ok_or_else(|| TrainError::NoCheckpoint {
                path: self.folder.clone(),
            })?;
            check_same_run(&run, config)?;
            return Ok(Some(step.div_ceil(self.interval)));
        }
        for step in self.saved() {
            let path = self.folder_of(step);
            fs::remove_dir_all(&path).map_err(io_error(&path))?;
        }
        fs::create_dir_all(&self.folder).map_err(io_error(&self.folder))?;
        let text = serde_json::to_string_pretty(config).map_err(|error| json_error(&run, error))?;
        fs::write(&run, text).map_err(io_error(&run))?;
        Ok(None)
    }

    /// The step at the end of an interval.
    pub(crate) fn step_of(&self, interval: usize) -> usize {
        (interval * self.interval).min(self.steps)
    }

    fn folder_of(&self, step: usize) -> PathBuf {
        self.folder.join(format!("step-{step}"))
    }

    /// Steps of which all parts are there, ascending.
    fn saved(&self) -> Vec<usize> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let step = |name: &str| name.strip_prefix("step-")?.parse::<usize>().ok();
        let complete = |step: &usize| {
            let folder = self.folder_of(*step);
            PARTS.iter().all(|part| part_file(&folder, part).is_file())
        };
        let mut steps: Vec<usize> = entries
            .filter_map(|entry| step(entry.file_name().to_str()?))
            .filter(complete)
            .collect();
        steps.sort_unstable();
        steps
    }

    /// Checks that a checkpoint's parameters fit the module, which burn-train would panic about.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`].
    pub(crate) fn check<M: Module>(&self, module: &M, interval: usize) -> Result<(), TrainError> {
        let path = part_file(&self.folder_of(self.step_of(interval)), MODEL);
        let record =
            ModuleRecord::load(&path).and_then(|record| module.clone().try_load_record(record));
        record
            .map(|_| ())
            .map_err(|source| TrainError::Checkpoint { path, source })
    }

    /// Writes and reads one part of all checkpoints; with that of the model goes the loss scale.
    pub(crate) fn part(&self, part: &'static str, watch: &Watch, loss_scale: &LossScale) -> Part {
        Part {
            checkpoints: self.clone(),
            part,
            watch: watch.clone(),
            loss_scale: (part == MODEL).then(|| loss_scale.clone()),
        }
    }

    /// When checkpoints are written and deleted.
    pub(crate) fn strategy(&self) -> EverySteps {
        EverySteps {
            saved: self
                .saved()
                .into_iter()
                .map(|step| step.div_ceil(self.interval))
                .collect(),
            checkpoints: self.clone(),
        }
    }
}

fn part_file(folder: &Path, part: &str) -> PathBuf {
    folder.join(format!("{part}.bpk"))
}

/// Compares the settings in `run.json` with those of the run that would go on.
fn check_same_run(path: &Path, config: &TrainConfig) -> Result<(), TrainError> {
    let text = fs::read_to_string(path).map_err(io_error(path))?;
    let old: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| json_error(path, error))?;
    let new = serde_json::to_value(config).map_err(|error| json_error(path, error))?;
    let differences: Vec<String> = new
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !FREE.contains(&name.as_str()))
        .filter(|(name, value)| old.get(name) != Some(value))
        .map(|(name, value)| {
            let old = old.get(name).unwrap_or(&serde_json::Value::Null);
            format!("{name}: {old}, now {value}")
        })
        .collect();
    match differences.is_empty() {
        true => Ok(()),
        false => Err(TrainError::ResumeMismatch {
            path: path.to_path_buf(),
            differences,
        }),
    }
}

pub(crate) fn io_error(path: &Path) -> impl Fn(std::io::Error) -> TrainError + '_ {
    move |source| TrainError::Io {
        path: path.to_path_buf(),
        source,
    }
}

fn json_error(path: &Path, error: serde_json::Error) -> TrainError {
    TrainError::Io {
        path: path.to_path_buf(),
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use burn::train::checkpoint::CheckpointingAction;

    use super::*;

    fn config(folder: &Path) -> TrainConfig {
        TrainConfig {
            steps: 25,
            eval_every: Some(5),
            save_every: Some(10),
            output_dir: Some(folder.to_path_buf()),
            ..TrainConfig::default()
        }
    }

    #[test]
    fn saves_at_multiples_and_at_the_end_and_keeps_the_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut strategy = Checkpoints::of(&config(folder.path()))
            .expect("it saves")
            .strategy();
        use CheckpointingAction::{Delete, Save};
        assert_eq!(strategy.actions(1), []);
        assert_eq!(strategy.actions(2), [Save]);
        assert_eq!(strategy.actions(3), []);
        assert_eq!(strategy.actions(4), [Save]);
        assert_eq!(strategy.actions(5), [Save, Delete(2)]);
    }

    #[test]
    fn resuming_needs_a_checkpoint_and_the_same_settings() {
        let folder = tempfile::tempdir().expect("a folder");
        let started = config(folder.path());
        let checkpoints = Checkpoints::of(&started).expect("it saves");
        assert_eq!(checkpoints.open(&started).expect("a new run"), None);

        let resumed = TrainConfig {
            resume: true,
            log_every: 1,
            ..started.clone()
        };
        assert!(matches!(
            checkpoints.open(&resumed),
            Err(TrainError::NoCheckpoint { .. })
        ));
        let step = folder.path().join("checkpoints/step-20");
        fs::create_dir_all(&step).expect("a folder");
        for part in PARTS {
            fs::write(part_file(&step, part), b"").expect("a file");
        }
        assert_eq!(checkpoints.open(&resumed).expect("the same run"), Some(4));

        let other = TrainConfig {
            learning_rate: 1e-3,
            seed: 1,
            ..resumed
        };
        let Err(TrainError::ResumeMismatch { differences, .. }) = checkpoints.open(&other) else {
            panic!("another run");
        };
        assert_eq!(
            differences,
            ["learning_rate: 0.0002, now 0.001", "seed: 42, now 1"]
        );

        checkpoints.open(&started).expect("a new run");
        assert!(
            !step.exists(),
            "a new run leaves no checkpoint of the old one"
        );
    }
}
