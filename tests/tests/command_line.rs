//! The examples `finetune` and `generate` as a user starts them: a whole short run, and what they say to bad input.
//!
//! `cargo test --workspace` builds the examples before it runs the tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn finetune(arguments: &[&str]) -> Output {
    run("finetune", arguments)
}

fn run(example: &str, arguments: &[&str]) -> Output {
    let tests = std::env::current_exe().expect("a test has a path");
    // target/<profile>/deps/<this test> stands beside target/<profile>/examples/<example>.
    let profile = tests
        .parent()
        .and_then(Path::parent)
        .expect("a target folder");
    let example = profile.join("examples").join(example);
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
    refusal(finetune(arguments))
}

fn refusal(output: Output) -> String {
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

/// What `generate` prints with the small base on the CPU.
fn generated(arguments: &[&str]) -> String {
    let output = run("generate", &[&["--device", "flex"], arguments].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_prompt_is_continued_up_to_a_stop_string() {
    let prompt = ["--prompt", "On Thursday the Osprey"];
    let text = generated(&prompt);
    assert!(text.starts_with("On Thursday the Osprey "), "{text}");
    let sentence = generated(&[prompt.as_slice(), &["--stop", "."]].concat());
    let (expected, _) = text.split_once('.').expect("a sentence");
    assert_eq!(sentence, format!("{expected}\n"));
}

#[test]
fn several_prompts_are_each_continued_as_alone() {
    let prompts = ["On Thursday the Osprey", "At"];
    let both = generated(&["--prompt", prompts[0], "--prompt", prompts[1]]);
    let alone = prompts.map(|prompt| generated(&["--prompt", prompt]));
    assert_eq!(both, alone.concat());
}

#[test]
fn beams_and_draws_can_be_asked_for() {
    let prompt = ["--prompt", "At"];
    let with = |more: &[&str]| generated(&[prompt.as_slice(), more].concat());
    let beams = [
        "--beams",
        "4",
        "--length-penalty",
        "0.9",
        "--no-repeat-ngram-size",
        "4",
    ];
    assert!(with(&beams).starts_with("At"));
    let draw = |seed| with(&["--temperature", "1.5", "--top-p", "0.95", "--seed", seed]);
    assert_eq!(draw("1"), draw("1"));
    assert_ne!(draw("1"), draw("2"));
}

#[test]
fn a_request_that_cannot_be_met_is_refused_with_every_fault() {
    let arguments = [
        "--prompt",
        "At",
        "--top-p",
        "1.5",
        "--stop",
        "",
        "--max-new-tokens",
        "300",
    ];
    let error = refusal(run("generate", &arguments));
    for fault in ["top_p 1.5", "stop strings [0]", "max_new_tokens 300"] {
        assert!(error.contains(fault), "{fault} is missing from {error}");
    }
}
