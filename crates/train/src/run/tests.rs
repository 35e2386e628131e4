mod options;
mod part_runs;
mod parts;

use burn_lora_adapter::MethodConfig;

use super::*;
use crate::error::TrainError;
use crate::optimizer::{LionOptions, OptimizerChoice, SgdOptions};

fn faults(text: &str, settings: &[&str]) -> Vec<String> {
    let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
    match RunConfig::parse(text, &settings) {
        Err(TrainError::Config { faults }) => faults,
        other => panic!("{other:?}"),
    }
}

const SMALL: &str = "model: base\ndata: {path: rows.jsonl}\n";

#[test]
fn a_configuration_is_read_and_written() {
    let text = "model: base\ndata:\n  path: rows\n  columns: {prompt: question}\n  learn: last_turn\ntraining:\n  \
                learning_rate: 1e-4\n  warmup: 0.1\n  steps: 7\nadapter:\n";
    let config = RunConfig::parse(text, &["rank=4".into(), "data.format=messages".into()])
        .expect("a configuration");
    assert_eq!(
        (config.training.learning_rate, config.training.steps),
        (1e-4, 7)
    );
    assert_eq!((config.adapter.rank, config.adapter.alpha), (4, 16.0));
    assert_eq!(config.lora_config().method, MethodConfig::Lora);
    assert_eq!(config.data.columns["prompt"], "question");
    let again = RunConfig::parse(&config.to_yaml(), &[]).expect("what was written");
    assert_eq!(again, config);
}

#[test]
fn every_fault_is_told_at_once() {
    let text = "model: base\nrank: 3\ndata:\n  pth: rows\n  valid_fraction: 2\ntraining:\n  stesp: 3\n  batch_size: big\n  \
                learning_rate: -1\nadapter: 5\n";
    let found = faults(
        text,
        &["alhpa=3", "adapter.alpha=-2", "method=doraa", "nonsense"],
    );
    let expected = [
        "\"nonsense\" is no key=value",
        "rank is no setting: did you mean adapter.rank?",
        "data.pth is no setting: did you mean path?",
        "training.stesp is no setting: did you mean steps?",
        "training.batch_size: invalid type: string \"big\"",
        "data.valid_fraction must be at least 0 and below 1",
        "adapter.alpha must be above 0",
        "adapter.method: there is no method \"doraa\" (did you mean \"dora\"?)",
        "training.learning_rate must be above 0",
        "data.path is missing",
    ];
    for part in expected {
        assert!(
            found.iter().any(|fault| fault.starts_with(part)),
            "{part}: {found:#?}"
        );
    }
    let near = "alhpa is no setting: did you mean adapter.alpha?";
    assert!(found.iter().any(|fault| fault == near), "{found:#?}");
}

#[test]
fn settings_go_before_the_file_and_must_be_plain() {
    let config = RunConfig::parse(
        SMALL,
        &["training.warmup=5".into(), "targets=q_proj,v_proj".into()],
    )
    .expect("a configuration");
    assert_eq!(config.training.warmup.to_string(), "5");
    assert_eq!(config.adapter.targets, "q_proj,v_proj");
    let found = faults(SMALL, &["rows=3", "valid=x", "path="]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        faults("model: a\nmodel: b\n", &[])[0].contains("duplicate"),
        "keys that stand twice"
    );
    assert!(faults("- a\n", &[])[0].contains("no list of `key: value`"));
    assert!(faults("model: [", &[])[0].starts_with("not YAML"));
}

#[test]
fn an_optimizer_is_a_name_or_a_section() {
    let config = RunConfig::parse(SMALL, &["optimizer=lion".into()]).expect("a name");
    assert_eq!(
        config.training.optimizer,
        OptimizerChoice::Lion(LionOptions::default())
    );
    let again = RunConfig::parse(&config.to_yaml(), &[]).expect("what was written");
    assert_eq!(again, config);
    let setting = "training.optimizer={name: sgd, momentum: 0.5}";
    let config = RunConfig::parse(SMALL, &[setting.into()]).expect("a section");
    let sgd = SgdOptions {
        momentum: 0.5,
        ..SgdOptions::default()
    };
    assert_eq!(config.training.optimizer, OptimizerChoice::Sgd(sgd));
    let found = faults(SMALL, &["optimizer={name: lion, beta2: 0.9}"]);
    let expected = "training.optimizer: lion has no setting beta2: did you mean beta_2?";
    assert_eq!(found, [expected]);
    let found = faults(SMALL, &["optimizer={name: adamw, beta_2: 1.5}"]);
    assert_eq!(found, ["training.optimizer.beta_2 must lie in [0, 1)"]);
}

#[test]
fn any_text_is_read_or_refused() {
    for text in [
        "",
        "\0",
        "a: &a [*a]",
        "? [1]: 2",
        "training: [1]",
        "data: {columns: {1: 2}}",
        "!!binary x",
    ] {
        let _ = RunConfig::parse(text, &[]);
    }
}
