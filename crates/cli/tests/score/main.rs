//! `burn-lora score`: the values of Transformers, the file, and what it says to bad input.

mod common;
mod hub;
mod kinds;
mod minilm;
mod verify;

use std::fs;
use std::path::Path;

use common::{
    TOLERANCE, golden, largest_difference, refused, repository, result, run, tensor, text,
    write_ids,
};
use serde_json::Value;

const CASES: [&str; 4] = ["llama", "llama_tied", "qwen2", "gpt2"];

#[test]
fn logits_and_log_probabilities_are_those_of_transformers() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ids, scores) = (
        folder.path().join("ids.json"),
        folder.path().join("scores.safetensors"),
    );
    for case in CASES {
        let lengths = write_ids(case, &ids);
        let reference = golden(case).join("reference.safetensors");
        let (model, adapter) = (golden(case).join("model"), golden(case).join("adapter"));
        let base = [
            "score",
            "--model",
            text(&model),
            "--ids",
            "ids.json",
            "--output",
            "scores.safetensors",
        ];
        let tuned = [&base[..], &["--adapter", text(&adapter)]].concat();
        for (arguments, stage, batch) in [(&base[..], "base", "2"), (&tuned, "trained", "1")] {
            let arguments = [arguments, &["--batch-size", batch, "--device", "flex"]].concat();
            let found = result(folder.path(), &arguments);
            let logits = tensor(&scores, "logits");
            let expected = tensor(&reference, &format!("{stage}.logits"));
            let gap = largest_difference(&logits, &expected, &lengths);
            assert!(gap <= TOLERANCE, "{case}, {stage}: {gap}");
            assert_eq!(
                tensor(&scores, "input_ids").ints(),
                tensor(&reference, "input_ids").ints()
            );
            assert_eq!(
                tensor(&scores, "attention_mask").ints(),
                tensor(&reference, "attention_mask").ints()
            );
            check_log_probs(&scores, &lengths, &found);
            assert_eq!(found["rows"], lengths.len());
            assert_eq!(found["tokens"], lengths.iter().sum::<usize>());
            assert_eq!(
                found["output_bytes"],
                fs::metadata(&scores).expect("a file").len()
            );
        }
    }
}

/// The log-probabilities against those of the logits in the same file, and their mean.
fn check_log_probs(scores: &Path, lengths: &[usize], found: &Value) {
    let (logits, ids) = (tensor(scores, "logits"), tensor(scores, "input_ids").ints());
    let log_probs = tensor(scores, "log_probs");
    let (seq, vocab) = (logits.shape[1], logits.shape[2]);
    let (logits, log_probs) = (logits.floats(), log_probs.floats());
    let (mut sum, mut count) = (0.0, 0);
    for (row, length) in lengths.iter().enumerate() {
        for at in 0..seq {
            let found = log_probs[row * seq + at];
            if at == 0 || at >= *length {
                assert_eq!(found, 0.0);
                continue;
            }
            let place = (row * seq + at - 1) * vocab;
            let logits = &logits[place..place + vocab];
            let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            let token = ids[row * seq + at] as usize;
            let expected = f64::from(logits[token]) - total.ln();
            assert!((f64::from(found) - expected).abs() < 1e-5, "{row}, {at}");
            sum -= expected;
            count += 1;
        }
    }
    let mean = found["mean_nll"].as_f64().expect("a number");
    assert!((mean - sum / f64::from(count)).abs() < 1e-5);
    assert_eq!(found["predicted_tokens"], count);
}

#[test]
fn texts_are_tokens_of_the_folders_tokenizer() {
    let folder = tempfile::tempdir().expect("a folder");
    let rows = "{\"text\": \"the market opens\"}\n{\"text\": \"a\"}\n{\"text\": \"not read\"}\n";
    fs::write(folder.path().join("rows.jsonl"), rows).expect("written");
    let model = repository().join("datasets/tiny-base");
    let arguments = [
        "score",
        "--model",
        text(&model),
        "--data",
        "rows.jsonl",
        "--output",
        "out.safetensors",
        "--limit",
        "2",
        "--max-length",
        "3",
        "--no-logits",
        "--dtype",
        "bf16",
    ];
    let found = result(folder.path(), &arguments);
    assert_eq!(
        (&found["rows"], &found["dtype"]),
        (&2.into(), &"bf16".into())
    );
    let scores = folder.path().join("out.safetensors");
    let ids = tensor(&scores, "input_ids");
    assert_eq!(ids.shape, [2, 3]);
    let bytes = fs::metadata(&scores).expect("a file").len();
    assert!(bytes < 1000, "{bytes} bytes without logits");
    // The tokens themselves give the same.
    let mask = tensor(&scores, "attention_mask").ints();
    let rows: Vec<Vec<i64>> = (ids.ints().chunks(3).zip(mask.chunks(3)))
        .map(|(ids, mask)| ids[..mask.iter().sum::<i64>() as usize].to_vec())
        .collect();
    fs::write(
        folder.path().join("ids.json"),
        serde_json::json!(rows).to_string(),
    )
    .expect("written");
    let arguments = [
        "score",
        "--model",
        text(&model),
        "--ids",
        "ids.json",
        "--output",
        "again.safetensors",
        "--no-logits",
        "--dtype",
        "bf16",
    ];
    let again = result(folder.path(), &arguments);
    assert_eq!(again["mean_nll"], found["mean_nll"]);
}

#[test]
fn without_json_there_are_lines_without_colors() {
    let folder = tempfile::tempdir().expect("a folder");
    write_ids("gpt2", &folder.path().join("ids.json"));
    let model = golden("gpt2/model");
    let output = run(
        folder.path(),
        &[
            "score",
            "--model",
            text(&model),
            "--ids",
            "ids.json",
            "--output",
            "o.safetensors",
        ],
    );
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(lines.starts_with("rows      3, "), "{lines}");
    assert!(!lines.contains('\u{1b}'), "{lines}");
    assert!(output.stderr.is_empty());
}

#[test]
fn each_fault_has_its_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    write_ids("llama", &at.join("ids.json"));
    fs::write(at.join("bad.json"), "[[1, 2], [67], []]").expect("written");
    fs::write(at.join("foreign.json"), "[[1, 2], [67], [3, 99999]]").expect("written");
    fs::write(at.join("long.json"), format!("[[{}1]]", "1,".repeat(64))).expect("written");
    let model = golden("llama/model");
    let score = |more: &[&'static str]| {
        let given = [
            "score",
            "--model",
            text(&model),
            "--output",
            "o.safetensors",
        ]
        .map(str::to_owned);
        let mut arguments = given.to_vec();
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        arguments
    };
    let check = |code: i32, arguments: &[String], parts: &[&str]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let error = refused(code, at, &arguments);
        for part in parts {
            assert!(error.contains(part), "{part} in {error}");
        }
    };
    check(2, &score(&[]), &["--data", "--ids"]);
    check(
        2,
        &score(&["--ids", "ids.json", "--batch-size", "0"]),
        &["--batch-size"],
    );
    check(
        4,
        &score(&["--ids", "nowhere.json"]),
        &["error: cannot read nowhere.json"],
    );
    check(
        4,
        &score(&["--ids", "bad.json"]),
        &["1 faulty rows", "bad.json, row 3: the row is empty"],
    );
    check(
        4,
        &score(&["--ids", "foreign.json"]),
        &[
            "2 faulty rows",
            "row 2: token 67",
            "below 67",
            "row 3: token 99999",
        ],
    );
    check(
        4,
        &score(&["--ids", "long.json"]),
        &["65 tokens, and the model has 64 positions"],
    );
    check(
        3,
        &score(&["--data", "ids.json"]),
        &["has no tokenizer.json"],
    );
    check(
        6,
        &score(&["--ids", "ids.json", "--device", "rocm"]),
        &["--features rocm"],
    );
    check(
        3,
        &score(&["--ids", "ids.json", "--adapter", "./nowhere"]),
        &["./nowhere is no folder here"],
    );
    let error = refused(
        3,
        at,
        &[
            "score",
            "--model",
            "./nowhere",
            "--ids",
            "ids.json",
            "--output",
            "o",
        ],
    );
    assert!(
        error.contains("no folder here, and no name of a model on the hub"),
        "{error}"
    );
    let arguments = [
        "score",
        "--model",
        text(&model),
        "--ids",
        "ids.json",
        "--output",
        "no/where",
    ];
    let error = refused(1, at, &arguments);
    assert!(error.contains("cannot write no/where"), "{error}");
    let error = refused(
        2,
        at,
        &[
            "score", "--model", "ids.json", "--ids", "ids.json", "--output", "o",
        ],
    );
    assert!(error.contains("ids.json is a file"), "{error}");
    assert!(
        !at.join("o.safetensors").exists(),
        "nothing is left of a run that failed"
    );
}

#[test]
fn with_json_an_error_is_an_object_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(
        folder.path(),
        &[
            "score", "--json", "--model", "./x", "--ids", "y", "--output", "z",
        ],
    );
    assert_eq!(output.status.code(), Some(3));
    let object: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(object["error"]["exit_code"], 3);
    assert!(
        object["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("./x"))
    );
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: ./x"));
}

#[test]
fn a_tokenizer_larger_than_the_embedding_is_refused_or_gets_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let base = repository().join("datasets/tiny-base");
    let model = folder.path().join("model");
    fs::create_dir(&model).expect("created");
    for name in ["config.json", "model.safetensors", "tokenizer_config.json"] {
        fs::copy(base.join(name), model.join(name)).expect("copied");
    }
    let tokenizer = fs::read_to_string(base.join("tokenizer.json")).expect("read");
    let mut tokenizer: Value = serde_json::from_str(&tokenizer).expect("JSON");
    let config = fs::read_to_string(base.join("config.json")).expect("read");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    let rows = config["vocab_size"].as_u64().expect("a number");
    let added = tokenizer["added_tokens"].as_array_mut().expect("a list");
    for id in rows..rows + 5 {
        added.push(serde_json::json!({
            "id": id, "content": format!("<extra{id}>"), "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true,
        }));
    }
    fs::write(model.join("tokenizer.json"), tokenizer.to_string()).expect("written");
    let row = serde_json::json!({"text": format!("a <extra{rows}> b")});
    fs::write(folder.path().join("rows.jsonl"), row.to_string()).expect("written");
    let arguments = [
        "score",
        "--model",
        "model",
        "--data",
        "rows.jsonl",
        "--output",
        "o.safetensors",
    ];
    let error = refused(3, folder.path(), &arguments);
    assert!(
        error.contains(&format!("the tokenizer has {}", rows + 5)),
        "{error}"
    );
    assert!(
        error.contains(&format!("the embedding {rows} rows")),
        "{error}"
    );
    let found = result(
        folder.path(),
        &[&arguments[..], &["--resize-embeddings"]].concat(),
    );
    assert_eq!(found["new_rows"], 5);
}

#[test]
fn help_explains_every_option_and_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(folder.path(), &["--help"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["score", "--json", "Exit codes:", "6  the device"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let output = run(folder.path(), &["score", "--help"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in [
        "--model",
        "--adapter",
        "--data",
        "--ids",
        "--output",
        "--dtype",
        "--device",
        "--batch-size",
        "--revision",
        "log_probs",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
