//! Runs of methods beside the weights, from their words to their folders.

use std::fs;
use std::path::{Path, PathBuf};

use burn_lora_transformer::ModelConfig;

use super::super::*;
use crate::error::TrainError;
use crate::observer::Observer;
use crate::plan::Planner;
use crate::testing::alone;

/// The tiny base, and pairs to learn.
pub(super) fn setup(adapter: &str) -> (tempfile::TempDir, PathBuf, RunConfig) {
    let dir = tempfile::tempdir().expect("a folder");
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/tiny-base");
    let pairs: String = (0..24)
        .map(|row| format!("ship {row},\" chairs: {}\"\n", row % 3))
        .collect();
    let pairs = format!("prompt,completion\n{pairs}");
    fs::write(dir.path().join("pairs.csv"), pairs).expect("written");
    let text = format!(
        "model: {}\ndevice: flex\noutput: {}\ndata: {{path: {}}}\nadapter: {adapter}\n\
         training: {{steps: 6, batch_size: 4, max_seq_len: 64, learning_rate: 0.02, save_every: 3}}\n\
         evaluation: {{generate: false}}\n",
        base.display(),
        dir.path().join("out").display(),
        dir.path().join("pairs.csv").display(),
    );
    let config = RunConfig::parse(&text, &[]).expect("valid");
    (dir, base, config)
}

pub(super) fn trained(config: &RunConfig, base: &Path) -> (RunResult, String) {
    let mut summary = String::new();
    let mut tell = |name: &str, fact: &str| {
        if name == "adapter" {
            summary = fact.to_string();
        }
    };
    let watcher = RunWatcher {
        tell: &mut tell,
        tokenized: &|_, _| {},
        observer: Observer::Nobody,
    };
    let result = run(config, base, watcher).expect("trained");
    (result, summary)
}

/// The files of all weights in a folder of adapters, by their folders' names.
fn weights(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let file = "adapter_model.safetensors";
    if let Ok(bytes) = fs::read(folder.join(file)) {
        return vec![(String::new(), bytes)];
    }
    let mut found: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .filter_map(|entry| {
            let entry = entry.expect("readable");
            let bytes = fs::read(entry.path().join(file)).ok()?;
            Some((entry.file_name().to_string_lossy().into_owned(), bytes))
        })
        .collect();
    found.sort();
    found
}

const ADAPTERS: [(&str, &[&str]); 9] = [
    ("{method: prompt, num_virtual_tokens: 4}", &[""]),
    (
        "{method: prompt, num_virtual_tokens: 4, prompt_tuning_init_text: Mira sold chairs}",
        &[""],
    ),
    ("{method: p-tuning, num_virtual_tokens: 4}", &[""]),
    (
        "{method: p-tuning, num_virtual_tokens: 2, encoder_reparameterization_type: LSTM, encoder_hidden_size: 6}",
        &[""],
    ),
    ("{method: prefix, num_virtual_tokens: 3}", &[""]),
    (
        "{method: prefix, num_virtual_tokens: 3, prefix_projection: true}",
        &[""],
    ),
    (
        "{method: bottleneck, bottleneck_size: 8, placement: houlsby, non_linearity: gelu}",
        &[""],
    ),
    (
        "{method: lora, rank: 2, beside: {method: prefix, num_virtual_tokens: 3}}",
        &["lora", "prefix"],
    ),
    (
        "{method: prompt, num_virtual_tokens: 3, beside: {method: bottleneck, bottleneck_size: 4, placement: parallel}}",
        &["bottleneck", "prompt"],
    ),
];

#[test]
fn each_is_planned_trained_saved_and_loaded() {
    let _turn = alone();
    for (adapter, folders) in ADAPTERS {
        let (_dir, base, config) = setup(adapter);
        let before = evaluate_run(&config, &base, None, &|_, _| {}).expect("evaluated");
        let (result, summary) = trained(&config, &base);
        let loss = result.metrics["loss"];
        assert!(
            loss < before.metrics["loss"] - 0.1,
            "{adapter}: {loss}, {before:?}"
        );

        // What was counted beforehand is what is trained, and nothing else is.
        let model = ModelConfig::read(&base).expect("known");
        let lora = config.weights_config();
        let planner = Planner::with_parts(&model, lora.as_ref(), &config.adapter.parts());
        let plan = planner.expect("planned").plan(&(&config).into());
        let told: String = summary.chars().filter(|letter| *letter != ',').collect();
        let (trainable, all) = (plan.parameters.trained, plan.parameters.total);
        let expected = format!("trainable params: {trainable} || all params: {all} ");
        assert!(told.starts_with(&expected), "{adapter}: {told}, {expected}");

        let folder = result.adapter.clone().expect("written");
        let written = weights(&folder);
        let names: Vec<&str> = written.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, folders, "{adapter}");
        let bytes: usize = written.iter().map(|(_, bytes)| bytes.len()).sum();
        assert_eq!(plan.adapter_bytes, bytes as u64, "{adapter}");

        // Onto a base that is loaded anew, to the last bit.
        let found = evaluate_run(&config, &base, Some(&folder), &|_, _| {}).expect("evaluated");
        assert_eq!(found.metrics, result.metrics, "{adapter}");

        // From its middle.
        fs::remove_dir_all(config.output.join("checkpoints/step-6")).expect("there");
        let mut again = config.clone();
        again.training.resume = true;
        let (resumed, _) = trained(&again, &base);
        assert_eq!(resumed.metrics, result.metrics, "{adapter}");
        assert_eq!(weights(&folder), written, "{adapter}");
    }
}

#[test]
fn another_adapter_is_no_resumption() {
    let _turn = alone();
    let (_dir, base, config) =
        setup("{method: lora, rank: 2, beside: {method: prefix, num_virtual_tokens: 3}}");
    trained(&config, &base);
    for (setting, part) in [
        ("adapter.beside=[]", "adapter.beside: "),
        (
            "adapter={method: prefix, num_virtual_tokens: 3}",
            "adapter.method: \"lora\", now \"prefix\"",
        ),
    ] {
        let settings = [setting.to_string(), "training.resume=true".to_string()];
        let other = RunConfig::parse(&config.to_yaml(), &settings).expect("valid");
        let watcher = RunWatcher {
            tell: &mut |_, _| {},
            tokenized: &|_, _| {},
            observer: Observer::Nobody,
        };
        let error = run(&other, &base, watcher).expect_err("refused");
        assert!(
            matches!(&error, RunError::Train(TrainError::ResumeMismatch { .. })),
            "{error}"
        );
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_model_that_has_no_room_is_not_loaded() {
    let (_dir, base, config) = setup("{method: prompt}");
    for (settings, part) in [
        (
            vec!["num_virtual_tokens=100000"],
            "100000 of them leave no room in 256 positions",
        ),
        (
            vec!["adapter={method: bottleneck, bottleneck_size: 1000}"],
            "their width 1000 exceeds 128, the model's",
        ),
    ] {
        let settings: Vec<String> = settings.into_iter().map(String::from).collect();
        let config = RunConfig::parse(&config.to_yaml(), &settings).expect("valid by itself");
        let watcher = RunWatcher {
            tell: &mut |_, _| {},
            tokenized: &|_, _| {},
            observer: Observer::Nobody,
        };
        let error = run(&config, &base, watcher).expect_err("refused");
        assert!(error.to_string().contains(part), "{error}");
        assert!(!config.output.exists(), "nothing was written");
    }
}

#[test]
fn what_another_run_left_is_not_loaded_with_this_one() {
    let _turn = alone();
    let (_dir, base, both) =
        setup("{method: lora, rank: 2, beside: {method: prefix, num_virtual_tokens: 3}}");
    let folder = trained(&both, &base).0.adapter.expect("written");
    let settings = ["adapter={method: prompt, num_virtual_tokens: 2}".to_string()];
    let one = RunConfig::parse(&both.to_yaml(), &settings).expect("valid");
    trained(&one, &base);
    assert_eq!(weights(&folder).len(), 1);
    assert!(!folder.join("prefix/adapter_config.json").exists());
    trained(&both, &base);
    let names = weights(&folder).into_iter().map(|(name, _)| name);
    assert_eq!(names.collect::<Vec<_>>(), ["lora", "prefix"]);
    assert!(!folder.join("adapter_config.json").exists());
}
