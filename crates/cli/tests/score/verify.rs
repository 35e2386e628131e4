//! `docs/verify.md` does what it says: its command, and its five lines of Python where there is an interpreter with
//! Transformers (`BURN_LORA_PYTHON`, or the environment in `tests/golden/.venv`).

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::common::{command, repository, text};

/// The blocks of a language in the page.
fn blocks(language: &str) -> Vec<String> {
    let page = fs::read_to_string(repository().join("docs/verify.md")).expect("the page");
    let start = format!("```{language}\n");
    page.split(&start)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

fn python() -> Option<PathBuf> {
    let named = std::env::var_os("BURN_LORA_PYTHON").map(PathBuf::from);
    let beside = repository().join("tests/golden/.venv/bin/python");
    named.or_else(|| beside.exists().then_some(beside))
}

#[test]
fn the_lines_of_the_page_find_no_difference() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = repository().join("datasets/tiny-base");
    let texts =
        "{\"text\": \"The market opens at nine.\"}\n{\"text\": \"Prices rose, then fell again\"}\n";
    fs::write(folder.path().join("texts.jsonl"), texts).expect("written");

    let shell = blocks("sh");
    let line = shell[0].trim().replace("DIR", text(&model));
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words[..2], ["burn-lora", "score"]);
    let output = command(folder.path())
        .args(&words[1..])
        .output()
        .expect("started");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(folder.path().join("scores.safetensors").is_file());

    let script = blocks("python")[0].replace("DIR", text(&model));
    assert_eq!(script.lines().count(), 5);
    let Some(python) = python() else {
        return;
    };
    let output = Command::new(python)
        .args(["-c", &script])
        .env("HF_HUB_OFFLINE", "1")
        .current_dir(folder.path())
        .output()
        .expect("Python started");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let printed = String::from_utf8_lossy(&output.stdout);
    let difference: f32 = printed.trim().parse().expect("a number");
    assert!(difference <= 1e-4, "{difference}");
}
