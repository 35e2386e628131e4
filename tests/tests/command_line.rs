//! The example `finetune` as a user starts it: a whole short run, and what it says to bad input.
//!
//! `cargo test --workspace` builds the examples before it runs the tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn finetune(arguments: &[&str]) -> Output {
    let tests = std::env::current_exe().expect("a test has a path");
    // target/<profile>/deps/<this test> stands beside target/<profile>/examples/finetune.
    let profile = tests
        .parent()
        .and_then(Path::parent)
        .expect("a target folder");
    let example = profile.join("examples").join("finetune");
    Command::new(example)
        .args(arguments)
        .env_remove("BURN_DEVICE")
        .output()
        .expect("cargo has built the example")
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn refused(arguments: &[&str]) -> String {
    let output = finetune(arguments);
    let error = String::from_utf8_lossy(&output.stderr).to_string();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(!error.contains("panicked"), "{error}");
    error
}

#[test]
fn a_short_run_ends_with_the_result_and_a_peft_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().to_str().expect("UTF-8");
    let run = finetune(&[
        "--output",
        output,
        "--steps",
        "4",
        "--eval-every",
        "2",
        "--eval-rows",
        "4",
        "--batch-size",
        "4",
        "--device",
        "flex",
    ]);
    let text = String::from_utf8_lossy(&run.stdout).to_string();
    assert!(
        run.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&run.stderr)
    );

    let last = text.lines().last().expect("a last line");
    let result = last
        .strip_prefix("RESULT ")
        .expect("the result is the last line");
    let result: Value = serde_json::from_str(result).expect("JSON");
    for key in [
        "base_loss",
        "tuned_loss",
        "base_score",
        "tuned_score",
        "trainable_params",
        "total_params",
        "adapter_bytes",
        "seconds",
        "tokens_per_second",
    ] {
        assert!(result[key].is_number(), "{key} in {result}");
    }
    assert_eq!(result["device"], "flex");
    assert!(
        result["tuned_loss"].as_f64() < result["base_loss"].as_f64(),
        "{result}"
    );

    let weights = folder.path().join("adapter/adapter_model.safetensors");
    let bytes = std::fs::metadata(weights).expect("the adapter").len();
    assert_eq!(result["adapter_bytes"].as_u64(), Some(bytes));
    // The file holds the adapter and not the base: 4 bytes a trained parameter, and a header.
    let trained = result["trainable_params"].as_u64().expect("a count");
    assert!(
        (4 * trained..4 * trained + 20_000).contains(&bytes),
        "{bytes} bytes for {trained}"
    );
    assert!(folder.path().join("adapter/adapter_config.json").exists());
}

#[test]
fn help_explains_every_option() {
    let output = finetune(&["--help"]);
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).to_string();
    for option in [
        "--model",
        "--data",
        "--output",
        "--rank",
        "--alpha",
        "--dropout",
        "--targets",
        "--learning-rate",
        "--batch-size",
        "--max-seq-len",
        "--steps",
        "--seed",
        "--dtype",
        "--device",
    ] {
        assert!(text.contains(option), "{option} is missing from:\n{text}");
    }
}

#[test]
fn a_device_that_is_not_built_names_the_feature() {
    let error = refused(&["--device", "rocm"]);
    assert!(error.contains("--features rocm"), "{error}");
    let error = refused(&["--device", "flx"]);
    assert!(error.contains("flex"), "{error}");
}

#[test]
fn a_target_that_matches_nothing_is_refused_with_the_nearest() {
    let error = refused(&["--targets", "q_proj,v_porj"]);
    assert!(
        error.contains("v_porj") && error.contains("\"v_proj\""),
        "{error}"
    );
}

#[test]
fn faulty_rows_are_all_listed_with_their_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rows.jsonl");
    let rows = "{\"prompt\": \"a\", \"completion\": \"b\"}\nnot json\n{\"prompt\": \"a\", \"completion\": \"\"}\n";
    std::fs::write(&file, rows).expect("written");
    let error = refused(&["--data", file.to_str().expect("UTF-8")]);
    assert!(error.contains("rows.jsonl"), "{error}");
    for line in ["2", "3"] {
        assert!(error.contains(line), "line {line} in {error}");
    }
}

#[test]
fn a_folder_without_a_model_is_refused() {
    let data = repository().join("datasets");
    let error = refused(&["--model", data.to_str().expect("UTF-8")]);
    assert!(
        error.contains("tokenizer.json") || error.contains("config.json"),
        "{error}"
    );
}
