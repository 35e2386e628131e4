//! `docs/verify.md` does what it says: its command, and its lines of Python for every kind of model where there is an
//! interpreter with Transformers (`BURN_LORA_PYTHON`, or the environment in `tests/golden/.venv`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use burn::tensor::{DType, Device};
use burn_lora::transformer::{DecoderClassifier, DecoderConfig};

use super::common::{command, golden, repository, result, text};

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

/// The number that the lines of the page print, if there is a Python to run them.
fn printed(folder: &Path, script: &str) -> Option<f32> {
    assert_eq!(script.lines().count(), 5, "{script}");
    let output = Command::new(python()?)
        .args(["-c", script])
        .env("HF_HUB_OFFLINE", "1")
        .current_dir(folder)
        .output()
        .expect("Python started");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let printed = String::from_utf8_lossy(&output.stdout);
    Some(printed.trim().parse().expect("a number"))
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
    if let Some(difference) = printed(folder.path(), &script) {
        assert!(difference <= 1e-4, "{difference}");
    }
}

/// The block of the page in which a class stands, for another class where the page says that it does as well.
fn script(class: &str, instead: &str, model: &Path) -> String {
    let mut blocks = blocks("python").into_iter();
    let found = blocks.find(|block| block.contains(class));
    let block = found.unwrap_or_else(|| panic!("no block with {class}"));
    block.replace(class, instead).replace("DIR", text(model))
}

#[test]
fn the_lines_for_every_kind_find_no_difference() {
    const LABELS: &str = "AutoModelForSequenceClassification";
    const MASKED: &str = "AutoModelForMaskedLM";
    let page = fs::read_to_string(repository().join("docs/verify.md")).expect("the page");
    let rows = [
        (
            "rows",
            "{\"input_ids\": [4, 5, 6, 7], \"token_type_ids\": [0, 0, 1, 1]}\n[8, 9]\n[7, 7, 3]",
        ),
        ("plain", "[4, 5, 6, 7]\n[8, 9]\n[7, 7, 3]"),
        ("choice", "[[4, 5, 6], [7, 8]]\n[[9, 3], [5, 5, 5, 6]]"),
        (
            "seq2seq",
            "{\"input_ids\": [4, 5, 6], \"labels\": [7, 8, 9]}\n{\"input_ids\": [9], \"labels\": [4]}",
        ),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    for (name, rows) in rows {
        fs::write(folder.path().join(name), rows).expect("written");
    }
    for (model, file, class, instead, task) in [
        ("bert_masked", "rows", MASKED, MASKED, "masked-lm"),
        (
            "distilbert_untied_masked",
            "plain",
            MASKED,
            MASKED,
            "masked-lm",
        ),
        (
            "bert_token",
            "rows",
            MASKED,
            "AutoModelForTokenClassification",
            "tokens",
        ),
        ("bert_sequence", "rows", LABELS, LABELS, "sequence"),
        ("bert_regression", "rows", LABELS, LABELS, "sequence"),
        ("roberta_sequence", "plain", LABELS, LABELS, "sequence"),
        ("deberta_v3_sequence", "plain", LABELS, LABELS, "sequence"),
        (
            "modernbert_choice",
            "choice",
            LABELS,
            "AutoModelForMultipleChoice",
            "choice",
        ),
        (
            "bert_sequence",
            "plain",
            "AutoModel.",
            "AutoModel.",
            "embedding",
        ),
        (
            "t5",
            "seq2seq",
            "AutoModelForSeq2SeqLM",
            "AutoModelForSeq2SeqLM",
            "seq2seq",
        ),
        (
            "mt5",
            "seq2seq",
            "AutoModelForSeq2SeqLM",
            "AutoModelForSeq2SeqLM",
            "seq2seq",
        ),
    ] {
        assert!(page.contains(instead), "the page names {instead}");
        let folder = folder.path();
        let model = golden(model).join("model");
        let arguments = [
            "score",
            "--model",
            text(&model),
            "--ids",
            file,
            "--task",
            task,
            "--output",
            "scores.safetensors",
        ];
        result(folder, &arguments);
        if let Some(difference) = printed(folder, &script(class, instead, &model)) {
            assert!(difference <= 1e-4, "{}: {difference}", model.display());
        }
    }
}

#[test]
fn the_lines_for_a_decoder_that_labels_find_no_difference() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = DecoderConfig::read(&golden("qwen3/model")).expect("valid");
    let model = DecoderClassifier::init(config, 3, &Device::flex(), 5).expect("valid");
    model.save(folder.path(), DType::F32).expect("saved");
    fs::write(folder.path().join("ids"), "[4, 5, 6, 7]\n[8, 9]").expect("written");
    let arguments = [
        "score",
        "--model",
        ".",
        "--ids",
        "ids",
        "--output",
        "scores.safetensors",
    ];
    result(folder.path(), &arguments);
    let blocks = blocks("python");
    let script = blocks
        .iter()
        .find(|block| block.contains("torch.cat(theirs)"));
    let script = script.expect("the block").replace("DIR", ".");
    if let Some(difference) = printed(folder.path(), &script) {
        assert!(difference <= 1e-4, "{difference}");
    }
}
