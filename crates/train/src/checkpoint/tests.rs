use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::Device;
use burn_lora_data::Example;

use super::*;

impl Memory for Linear {}

fn config(folder: &Path) -> TrainConfig {
    TrainConfig {
        steps: 25,
        eval_every: Some(5),
        save_every: Some(10),
        output_dir: Some(folder.to_path_buf()),
        ..TrainConfig::default()
    }
}

fn state(step: usize) -> RunState {
    RunState {
        step,
        ..RunState::default()
    }
}

fn layer(weight: f32) -> Linear {
    let layer = LinearConfig::new(2, 2)
        .with_bias(false)
        .init(&Device::flex());
    Linear {
        weight: layer.weight.map(|value| value.zeros_like() + weight),
        bias: None,
    }
}

fn checkpoints(folder: &Path, steps: &[usize]) -> Checkpoints {
    let checkpoints = Checkpoints::of(&config(folder)).expect("it saves");
    checkpoints
        .open(&config(folder), &Marks::default())
        .expect("a new run");
    for step in steps {
        let optimizer = SgdConfig::new().init();
        checkpoints
            .save(&state(*step), &layer(*step as f32), &optimizer)
            .expect("saved");
    }
    checkpoints
}

fn resumed(config: &TrainConfig) -> TrainConfig {
    TrainConfig {
        resume: true,
        ..config.clone()
    }
}

#[test]
fn the_last_are_kept_and_the_best() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoints = checkpoints(folder.path(), &[5, 10, 15, 20]);
    checkpoints.prune(Some(10)).expect("pruned");
    assert_eq!(checkpoints.steps(), [10, 15, 20]);
    checkpoints.prune(None).expect("pruned");
    assert_eq!(checkpoints.steps(), [15, 20]);
}

#[test]
fn the_latest_that_is_whole_is_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoints = checkpoints(folder.path(), &[10, 20, 30, 40]);
    let place = |name: &str| folder.path().join("checkpoints").join(name);
    // As killed while it was written, while it was replaced, and as a disk may have it.
    fs::rename(place("step-40"), place("step-40.partial")).expect("renamed");
    fs::write(place("step-30/model.bpk"), "torn").expect("written");
    fs::rename(place("step-20"), place("step-20.old")).expect("renamed");
    let latest = checkpoints
        .open(&resumed(&config(folder.path())), &Marks::default())
        .expect("one is whole");
    let found = latest.resumed.expect("a checkpoint");
    assert_eq!(found.state.step, 20);
    let layer = layer(0.0).load_record(found.model);
    assert_eq!(layer.weight.val().into_scalar_at(), 20.0);
    assert_eq!(latest.skipped.len(), 1);
    assert!(
        latest.skipped[0].contains("model.bpk: 4 bytes of "),
        "{:?}",
        latest.skipped
    );
    assert!(!place("step-40.partial").exists(), "nobody needs it");
    assert!(place("torn-step-30").exists());
    assert_eq!(
        checkpoints.steps(),
        [10, 20],
        "of which the last two are kept"
    );

    for step in ["step-20", "step-10"] {
        let mut bytes = fs::read(place(step).join("optimizer.bpk")).expect("a file");
        *bytes.last_mut().expect("a byte") ^= 1;
        fs::write(place(step).join("optimizer.bpk"), bytes).expect("written");
    }
    let Err(TrainError::NoCheckpoint { faults, .. }) = checkpoints.latest() else {
        panic!("none is whole");
    };
    assert_eq!(faults.len(), 2, "{faults:?}");
}

trait First {
    fn into_scalar_at(self) -> f32;
}

impl First for Tensor<2> {
    fn into_scalar_at(self) -> f32 {
        self.into_data().iter::<f32>().next().expect("a number")
    }
}

#[test]
fn resuming_needs_the_same_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = config(folder.path());
    let checkpoints = Checkpoints::of(&started).expect("it saves");
    let marks = |id: u32| {
        let example = Example::new(vec![1, id], 1).expect("valid");
        Marks::of(&[example], &[])
    };
    let Err(TrainError::NoCheckpoint { .. }) = checkpoints.open(&resumed(&started), &marks(2))
    else {
        panic!("no run was here");
    };
    checkpoints.open(&started, &marks(2)).expect("a new run");
    let same = TrainConfig {
        log_every: 1,
        ..resumed(&started)
    };
    let latest = checkpoints.open(&same, &marks(2)).expect("the same run");
    assert!(
        latest.resumed.is_none(),
        "killed before its first checkpoint"
    );

    let other = TrainConfig {
        learning_rate: 1e-3,
        seed: 1,
        ..same
    };
    let Err(TrainError::ResumeMismatch { differences, .. }) = checkpoints.open(&other, &marks(3))
    else {
        panic!("another run");
    };
    assert_eq!(
        differences[..2],
        ["learning_rate: 0.0002, now 0.001", "seed: 42, now 1"]
    );
    assert!(
        differences[2].starts_with("train_data: \"1 examples, "),
        "{differences:?}"
    );
    let allowed = TrainConfig {
        allow_changes: true,
        ..other.clone()
    };
    checkpoints
        .open(&allowed, &marks(3))
        .expect("it was asked for");
    checkpoints
        .open(&other, &marks(3))
        .expect("these are its settings now");
}

#[test]
fn a_new_run_leaves_no_checkpoint_of_the_old_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoints = checkpoints(folder.path(), &[10]);
    checkpoints
        .open(&config(folder.path()), &Marks::default())
        .expect("a new run");
    assert!(checkpoints.steps().is_empty());
}

#[test]
fn parameters_that_are_no_numbers_are_not_saved() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoints = checkpoints(folder.path(), &[10]);
    for value in [f32::NAN, f32::INFINITY] {
        let optimizer = SgdConfig::new().init();
        let error = checkpoints.save(&state(20), &layer(value), &optimizer);
        assert!(matches!(error, Err(TrainError::NotFinite { step: 20, .. })));
    }
    assert_eq!(checkpoints.steps(), [10]);
}
