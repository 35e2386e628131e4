//! Runs that are stopped, go on, end early, or fail.

use std::io::{self, Write};

use burn_lora_adapter::MethodConfig;

use super::*;
use crate::{Decay, Stop, Stopped, resume_facts};

/// A run with a checkpoint at every fourth step.
fn saving(folder: &Path) -> TrainConfig {
    TrainConfig {
        save_every: Some(4),
        keep: 3,
        output_dir: Some(folder.to_path_buf()),
        ..config()
    }
}

#[test]
fn a_run_that_was_stopped_anywhere_ends_as_if_it_was_not() {
    /// Asks when the line of a step comes by.
    struct Asking(Stop, &'static str);
    impl Write for Asking {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if String::from_utf8_lossy(bytes).contains(self.1) {
                self.0.ask(2);
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let _turn = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let whole = run(&saving(folder.path()));

    let other = tempfile::tempdir().expect("a folder");
    let config = TrainConfig {
        log_every: 1,
        grad_accumulation: 1,
        ..saving(other.path())
    };
    let stop = Stop::new();
    let observer = Observer::Lines(Box::new(Asking(stop.clone(), "step  6/12"))).until(&stop);
    let stopped = finetune(adapted(), &config, data(), observer).expect("it stops");
    assert_eq!(stopped.stopped, Some(Stopped::Asked(2)));
    assert!((6..12).contains(&stopped.steps), "{}", stopped.steps);
    let checkpoint = stopped.checkpoint.expect("it saves");
    assert!(checkpoint.ends_with(format!("step-{}", stopped.steps)));
    let config = TrainConfig {
        resume: true,
        ..config
    };
    let facts = resume_facts(&config, &data().train, &data().valid).expect("the same run");
    assert!(
        facts[0].contains("from ") && facts[0].contains("step-"),
        "{facts:?}"
    );
    let resumed = run(&config);
    assert_eq!(values(&whole.model), values(&resumed.model));
    assert_eq!(whole.train_loss, resumed.train_loss);
    assert_eq!(
        (whole.tokens, whole.learned_tokens, whole.valid_loss),
        (resumed.tokens, resumed.learned_tokens, resumed.valid_loss)
    );
    let again = run(&config);
    assert_eq!(again.valid_loss, whole.valid_loss, "nothing was left to do");
}

#[test]
fn a_budget_of_tokens_ends_a_run_that_can_go_on() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let whole = run(&saving(folder.path()));
    let other = tempfile::tempdir().expect("a folder");
    let config = TrainConfig {
        max_tokens: Some(whole.tokens / 2),
        ..saving(other.path())
    };
    let half = run(&config);
    assert_eq!(half.stopped, Some(Stopped::Tokens));
    assert!(half.tokens >= whole.tokens / 2 && half.steps < 12);
    assert!(
        half.valid_loss.is_some(),
        "a budget leaves time to validate"
    );
    let config = TrainConfig {
        resume: true,
        max_tokens: None,
        max_minutes: Some(1e-9),
        ..config
    };
    let minutes = run(&config);
    assert_eq!(
        (minutes.stopped, minutes.steps),
        (Some(Stopped::Minutes), half.steps + 1)
    );
    let rest = run(&TrainConfig {
        max_minutes: None,
        ..config
    });
    assert_eq!((rest.stopped, rest.steps), (None, 12));
    assert_eq!(values(&whole.model), values(&rest.model));
}

#[test]
fn without_an_improvement_a_run_ends_with_the_best() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let config = TrainConfig {
        steps: 400,
        // From here on it only gets worse.
        learning_rate: 1.0,
        warmup: Warmup::Steps(40),
        eval_every: Some(2),
        save_every: Some(100),
        keep: 1,
        keep_best: true,
        patience: Some(4),
        ..saving(folder.path())
    };
    let outcome = run(&config);
    assert_eq!(outcome.stopped, Some(Stopped::Patience));
    assert_eq!(outcome.steps, outcome.model_step + 8);
    let names: Vec<String> = fs::read_dir(folder.path().join("checkpoints"))
        .expect("a folder")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("step-"))
        .collect();
    assert_eq!(names.len(), 2, "the last and the best: {names:?}");
    assert!(names.contains(&format!("step-{}", outcome.model_step)));

    // The model is that of a run that ended there.
    let until = TrainConfig {
        max_tokens: None,
        patience: None,
        keep_best: false,
        output_dir: None,
        save_every: None,
        ..config.clone()
    };
    let stop = Stop::new();
    let shorter = until_step(&until, &stop, outcome.model_step);
    assert_eq!(values(&shorter.model), values(&outcome.model));
    let again = run(&TrainConfig {
        resume: true,
        ..config
    });
    assert_eq!(
        (again.stopped, again.steps),
        (outcome.stopped, outcome.steps)
    );
    assert_eq!(values(&again.model), values(&outcome.model));
}

/// A run of which the tokens of so many steps are counted beforehand.
fn until_step(config: &TrainConfig, stop: &Stop, steps: usize) -> Outcome<Decoder> {
    let examples = data();
    let mut batches =
        burn_lora_data::Batches::new(examples.train, config.batch_size, 0, config.seed)
            .expect("batches");
    let tokens = (0..steps).map(|_| batches.next_batch().tokens()).sum();
    let config = TrainConfig {
        max_tokens: Some(tokens),
        ..config.clone()
    };
    finetune(adapted(), &config, data(), Observer::Nobody.until(stop)).expect("it trains")
}

#[test]
fn what_is_added_to_the_loss_changes_the_steps_and_not_what_is_shown() {
    let _turn = alone();
    let first = |config: TrainConfig| {
        let outcome = run(&TrainConfig {
            max_tokens: Some(1),
            ..config
        });
        (values(&outcome.model), outcome.train_loss.expect("a step"))
    };
    let (plain, loss) = first(config());
    for changed in [
        TrainConfig {
            label_smoothing: 0.1,
            ..config()
        },
        TrainConfig {
            z_loss: 1e-2,
            ..config()
        },
    ] {
        let (parameters, shown) = first(changed.clone());
        assert!((shown - loss).abs() < 1e-5, "{shown} and {loss}");
        assert_ne!(parameters, plain, "{changed:?}");
    }
    let noisy = TrainConfig {
        neftune_alpha: Some(5.0),
        ..config()
    };
    let (parameters, shown) = first(noisy.clone());
    assert!((shown - loss).abs() > 1e-4, "{shown} and {loss}");
    assert_ne!(parameters, plain);
    assert_eq!(
        first(noisy),
        (parameters, shown),
        "the noise follows from the seed"
    );
}

#[test]
fn every_optimizer_learns_and_resumes() {
    let _turn = alone();
    for (name, learning_rate) in [
        ("adafactor", 2e-2),
        ("lion", 5e-3),
        ("sgd", 2e-1),
        ("muon", 2e-2),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let choice = serde_json::from_value(name.into()).expect("it is known");
        let config = TrainConfig {
            optimizer: choice,
            learning_rate,
            lora_plus_ratio: Some(2.0),
            ..saving(folder.path())
        };
        let whole = run(&config);
        let before = run(&TrainConfig {
            max_tokens: Some(1),
            output_dir: None,
            save_every: None,
            ..config.clone()
        });
        let (before, after) = (before.valid_loss, whole.valid_loss);
        assert!(
            after < before.map(|loss| loss - 0.1),
            "{name}: {before:?} to {after:?}"
        );
        forget_after(4, folder.path());
        let resumed = run(&TrainConfig {
            resume: true,
            ..config
        });
        assert_eq!(values(&whole.model), values(&resumed.model), "{name}");
    }
}

#[test]
fn adalora_gives_the_same_ranks_away_after_a_resume() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let config = saving(folder.path());
    let method: MethodConfig = "adalora".parse().expect("it is known");
    let lora = LoraConfig::new(RANK, 8.0)
        .with_method(method.with_budget(RANK, config.steps))
        .with_seed(3);
    let run = |config: &TrainConfig| {
        let model = attach(tiny_llama(), "default", &lora).expect("all layers are linear");
        finetune(model, config, data(), Observer::Nobody).expect("it trains")
    };
    let whole = run(&config);
    forget_after(8, folder.path());
    let resumed = TrainConfig {
        resume: true,
        ..config
    };
    assert_eq!(values(&whole.model), values(&run(&resumed).model));
    forget_after(8, folder.path());
    let file = folder.path().join("checkpoints/step-8/allocator.json");
    assert!(fs::metadata(&file).is_ok_and(|file| file.len() > 1000));
}

#[test]
fn nobody_waits_for_a_validation_that_never_comes() {
    let config = TrainConfig {
        patience: Some(1),
        keep_best: true,
        save_every: Some(1),
        output_dir: Some("nowhere".into()),
        ..config()
    };
    let data = TrainData {
        valid: Vec::new(),
        ..data()
    };
    let error = finetune(adapted(), &config, data, Observer::Nobody).expect_err("no examples");
    let TrainError::Config { faults } = error else {
        panic!("{error}")
    };
    assert_eq!(faults.len(), 2, "{faults:?}");
}

#[test]
fn a_metric_that_nobody_measures_is_an_error() {
    let _turn = alone();
    let config = TrainConfig {
        best_metric: "acuracy".into(),
        ..config()
    };
    let error = finetune(adapted(), &config, data(), Observer::Nobody).expect_err("no such metric");
    assert!(
        error.to_string().contains("no \"acuracy\", but loss"),
        "{error}"
    );
}

#[test]
fn a_loss_that_is_not_finite_leaves_the_last_checkpoint() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let config = saving(folder.path());
    run(&TrainConfig {
        max_tokens: Some(1),
        ..config.clone()
    });
    // The checkpoint of step 1 cannot be told from a good one by its hash, and makes the next loss NaN.
    let path = folder.path().join("checkpoints/step-1");
    assert!(path.is_dir());
    let resumed = TrainConfig {
        resume: true,
        learning_rate: 1.0,
        decay: Decay::Constant,
        warmup: Warmup::Steps(0),
        grad_clip_norm: None,
        allow_changes: true,
        weight_decay: 1e38,
        ..config
    };
    let error = finetune(adapted(), &resumed, data(), Observer::Nobody).expect_err("it overflows");
    let TrainError::Resumable { fault, checkpoint } = error else {
        panic!("{error}")
    };
    assert!(matches!(*fault, TrainError::NotFinite { .. }), "{fault}");
    assert_eq!(checkpoint, path);
}
