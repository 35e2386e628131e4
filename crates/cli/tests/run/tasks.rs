//! Tasks other than the next token, on tiny models of which a word `w07` is the token 7.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::{lines, object, refused, repository, setup};

/// Folders of a BERT, a RoBERTa and a T5, and data for every task.
pub fn write_data(dir: &Path) {
    for (case, ends) in [
        ("bert_masked", [Some(1), Some(2)]),
        ("roberta_masked", [Some(0), Some(2)]),
        ("t5", [None, Some(1)]),
    ] {
        let folder = dir.join(case);
        fs::create_dir(&folder).expect("made");
        for file in ["config.json", "model.safetensors"] {
            let from = repository().join("tests/golden").join(case).join("model");
            fs::copy(from.join(file), folder.join(file)).expect("copied");
        }
        write_tokenizer(&folder, ends, Some(3));
    }
    write_rows(&dir.join("classes.jsonl"), 30, |row| {
        let word = 10 + row % 10;
        json!({"text": format!("w{word} w08 w09"), "label": if word < 15 { "low" } else { "high" }})
    });
    write_rows(&dir.join("values.jsonl"), 30, |row| {
        let word = 10 + row % 20;
        json!({"text": format!("w{word}"), "text_pair": "w08 w09", "label": word as f64 / 8.0})
    });
    write_rows(&dir.join("tags.jsonl"), 30, |row| {
        let word = 10 + row % 20;
        json!({"tokens": [format!("w{word}"), "w05", "w06"], "tags": ["O", "B-X", "I-X"]})
    });
    write_rows(&dir.join("written.jsonl"), 30, |row| {
        let word = 10 + row % 20;
        json!({"prompt": format!("w{word} w08"), "completion": format!("w08 w{word}")})
    });
    write_rows(
        &dir.join("preferences.jsonl"),
        30,
        |row| json!({"prompt": format!("ship {row}"), "chosen": " chairs: 2", "rejected": " none"}),
    );
    let text: String = (0..30)
        .map(|row| format!("w{} w08 w09 w{}\n", 10 + row % 20, 12 + row % 7))
        .collect();
    fs::write(dir.join("words.txt"), text).expect("written");
}

fn write_rows(path: &Path, count: usize, row: impl Fn(usize) -> Value) {
    let rows: String = (0..count).map(|at| format!("{}\n", row(at))).collect();
    fs::write(path, rows).expect("written");
}

/// A tokenizer of the words `w00` to `w39`, none of which is a part of another, of which two stand around each text, and one is the mask.
fn write_tokenizer(folder: &Path, [before, after]: [Option<u32>; 2], mask: Option<u32>) {
    let vocabulary: serde_json::Map<_, _> =
        (0..40).map(|at| (format!("w{at:02}"), json!(at))).collect();
    let special = |at: u32| json!({"SpecialToken": {"id": format!("w{at:02}"), "type_id": 0}});
    let around = |sequence: &str| {
        let sequence = json!({"Sequence": {"id": sequence, "type_id": 0}});
        before
            .map(special)
            .into_iter()
            .chain([sequence])
            .chain(after.map(special))
            .collect::<Vec<_>>()
    };
    let entry =
        |at: u32| json!({"id": format!("w{at:02}"), "ids": [at], "tokens": [format!("w{at:02}")]});
    let entries: serde_json::Map<_, _> = before
        .into_iter()
        .chain(after)
        .map(|at| (format!("w{at:02}"), entry(at)))
        .collect();
    let added = before.into_iter().chain(after).chain(mask).map(|at| {
        json!({"id": at, "content": format!("w{at:02}"), "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    });
    let mut added: Vec<Value> = added.collect();
    added.sort_by_key(|token| token["id"].as_u64());
    let pair = [
        around("A"),
        vec![json!({"Sequence": {"id": "B", "type_id": 0}})],
        after.map(special).into_iter().collect(),
    ];
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {"type": "TemplateProcessing", "single": around("A"), "pair": pair.concat(),
            "special_tokens": entries},
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w04"},
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).expect("written");
    let mut names = json!({"sep_token": after.map(|at| format!("w{at:02}"))});
    if let Some(mask) = mask {
        names["mask_token"] = json!(format!("w{mask:02}"));
    }
    if before.is_none() {
        names["eos_token"] = json!(after.map(|at| format!("w{at:02}")));
    }
    fs::write(folder.join("tokenizer_config.json"), names.to_string()).expect("written");
}

/// What each recipe must measure at the end.
pub fn metrics(recipe: &str) -> &'static [&'static str] {
    match recipe {
        "classification" | "roberta-glue" => &["loss", "accuracy", "f1", "matthews_correlation"],
        "regression" => &["loss", "pearson", "spearmanr"],
        "tagging" => &["loss", "precision", "recall", "f1", "accuracy"],
        "masked" => &["loss", "perplexity", "accuracy"],
        "seq2seq" => &["loss", "perplexity", "exact_match", "bleu", "rouge_l"],
        "dpo" | "orpo" => &[
            "loss",
            "rewards/chosen",
            "rewards/rejected",
            "rewards/accuracies",
            "rewards/margins",
        ],
        "completion" | "prompt" => &["loss", "perplexity", "exact_match", "bleu", "rouge_l"],
        _ => &["loss", "perplexity"],
    }
}

/// A run that is short and ends with a validation.
const SHORT: [&str; 5] = [
    "warmup=2",
    "eval_every=null",
    "save_every=null",
    "batch_size=8",
    "max_seq_len=16",
];

#[test]
fn a_head_is_trained_saved_evaluated_and_scored() {
    let (dir, _) = setup();
    write_data(dir.path());
    // A folder that names no token to end what is written.
    let shown = lines(
        dir.path(),
        &["inspect", "classes.jsonl", "--model", "bert_masked"],
    );
    assert!(shown.contains("label low"), "{shown}");
    lines(dir.path(), &["recipes", "copy", "classification"]);
    let run = [
        "train",
        "classification.yaml",
        "model=bert_masked",
        "data.path=classes.jsonl",
        "steps=60",
        "learning_rate=0.01",
        // Of a model 16 wide, the recipe's dropout leaves it to the draws whether so few steps are enough.
        "adapter.dropout=0",
    ];
    let result = object(dir.path(), &[&run[..], &SHORT].concat());
    assert_eq!(result["metrics"]["accuracy"], 1.0, "{result}");

    let config = "output/classification/config.yaml";
    let written = fs::read_to_string(dir.path().join(config)).expect("written");
    assert!(
        written.contains("task: classification") && written.contains("- high\n  - low"),
        "{written}"
    );
    let adapter = "output/classification/adapter";
    let peft =
        fs::read_to_string(dir.path().join(adapter).join("adapter_config.json")).expect("written");
    let peft: Value = serde_json::from_str(&peft).expect("JSON");
    assert_eq!(peft["task_type"], "SEQ_CLS");
    let saved = peft["modules_to_save"].as_array().expect("a list");
    assert!(
        saved.contains(&json!("classifier")) && saved.contains(&json!("bert.pooler.dense")),
        "{saved:?}"
    );

    let found = object(dir.path(), &["evaluate", config, "--adapter", adapter]);
    assert_eq!(found["metrics"], result["metrics"]);
    assert_eq!(
        (found["task"].as_str(), found["rows"].as_u64()),
        (Some("classification"), Some(3))
    );
    let error = refused(2, dir.path(), &["evaluate", config]);
    assert!(
        error.contains("no trained head") && error.contains("classifier.weight"),
        "{error}"
    );

    fs::write(
        dir.path().join("texts.jsonl"),
        "{\"text\": \"w12 w08 w09\"}\n{\"text\": \"w18 w08 w09\"}\n",
    )
    .expect("written");
    let score = [
        "score",
        "--model",
        "bert_masked",
        "--adapter",
        adapter,
        "--num-labels",
        "2",
        "--data",
        "texts.jsonl",
        "--output",
        "scores.safetensors",
    ];
    let scored = object(dir.path(), &score);
    assert_eq!(
        (scored["task"].as_str(), scored["rows"].as_u64()),
        (Some("sequence"), Some(2))
    );

    let shown = lines(
        dir.path(),
        &[
            "train",
            "classification.yaml",
            "model=bert_masked",
            "data.path=classes.jsonl",
            "max_seq_len=16",
            "--dry-run",
        ],
    );
    assert!(
        shown.contains("task: classification\nlabels: high, low\n"),
        "{shown}"
    );
}

#[test]
fn a_decoder_gets_a_head_too() {
    let (dir, model) = setup();
    write_data(dir.path());
    lines(dir.path(), &["recipes", "copy", "classification"]);
    let run = [
        "train",
        "classification.yaml",
        &model,
        "data.path=classes.jsonl",
        "steps=4",
    ];
    let result = object(dir.path(), &[&run[..], &SHORT].concat());
    let adapter = "output/classification/adapter";
    let weights = fs::read(dir.path().join(adapter).join("adapter_model.safetensors"));
    let weights = weights.expect("written");
    let key = b"base_model.model.score.weight";
    assert!(weights.windows(key.len()).any(|part| part == key));
    let config = "output/classification/config.yaml";
    let found = object(dir.path(), &["evaluate", config, "--adapter", adapter]);
    assert_eq!(found["metrics"], result["metrics"]);
}

#[test]
fn the_task_follows_from_rows_and_model() {
    let (dir, model) = setup();
    write_data(dir.path());
    let llama = &model["model=".len()..];
    for (data, model, task) in [
        ("classes.jsonl", "bert_masked", "classification"),
        ("classes.jsonl", llama, "classification"),
        ("values.jsonl", "roberta_masked", "regression"),
        ("tags.jsonl", "bert_masked", "tagging"),
        ("words.txt", "bert_masked", "masked"),
        ("words.txt", llama, "causal"),
        ("written.jsonl", "t5", "seq2seq"),
        ("written.jsonl", llama, "causal"),
        ("preferences.jsonl", llama, "dpo"),
    ] {
        fs::write(dir.path().join("run.yaml"), "data: {text_rows: line}\n").expect("written");
        let model = format!("model={model}");
        let data = format!("data.path={data}");
        let arguments = [
            "train",
            "run.yaml",
            &model,
            &data,
            "max_seq_len=64",
            "--dry-run",
        ];
        let found = object(dir.path(), &arguments);
        assert_eq!(found["task"], task, "{data} {model}");
    }
}

#[test]
fn what_does_not_go_together_is_refused_with_what_would() {
    let (dir, model) = setup();
    write_data(dir.path());
    fs::write(
        dir.path().join("run.yaml"),
        "data: {text_rows: line}\ntraining: {max_seq_len: 16, steps: 1}\n",
    )
    .expect("written");
    let refused = |code: i32, settings: &[&str]| {
        refused(
            code,
            dir.path(),
            &[&["train", "run.yaml"], settings].concat(),
        )
    };
    for (settings, parts) in [
        (
            [
                "model=bert_masked",
                "data.path=classes.jsonl",
                "task=tagging",
            ],
            vec![
                "task: tagging does not go with rows of",
                "classification, regression would",
            ],
        ),
        (
            [&model, "data.path=tags.jsonl", "steps=1"],
            vec![
                "nothing is learned",
                "such rows are for an encoder (tagging)",
            ],
        ),
        (
            ["model=t5", "data.path=written.jsonl", "recompute=1"],
            vec!["recompute is not built for encoder-decoders"],
        ),
        (
            ["model=bert_masked", "data.path=words.txt", "packing=true"],
            vec!["packing is for language models that predict the next token"],
        ),
        (
            [
                "model=bert_masked",
                "data.path=classes.jsonl",
                "task=regression",
            ],
            vec!["the labels are names", "task: classification"],
        ),
        (
            [
                "model=bert_masked",
                "data.path=values.jsonl",
                "task=classification",
            ],
            vec!["the labels are values", "task: regression"],
        ),
        (
            [
                "model=bert_masked",
                "data.path=classes.jsonl",
                "task=clasification",
            ],
            vec!["task: unknown variant `clasification`", "`classification`"],
        ),
    ] {
        let error = refused(2, &settings);
        for part in parts {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    let error = refused(
        4,
        &[
            "model=bert_masked",
            "data.path=classes.jsonl",
            "data.labels=[low, hihg]",
        ],
    );
    for part in [
        "15 faulty rows",
        "classes.jsonl:6",
        "did you mean \"hihg\"",
        "one of the 2 classes low, hihg",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    write_rows(&dir.path().join("equal.jsonl"), 9, |row| {
        let rejected = if row % 4 == 3 { " yes" } else { " no" };
        json!({"prompt": format!("ship {row}"), "chosen": " yes", "rejected": rejected})
    });
    let error = refused(4, &[&model, "data.path=equal.jsonl", "max_seq_len=64"]);
    for part in [
        "2 faulty rows",
        "equal.jsonl:4: \"rejected\" is the same as \"chosen\"",
        "equal.jsonl:8",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let folder = dir.path().join("roberta_masked");
    let text = fs::read_to_string(folder.join("config.json")).expect("read");
    let text = text.replacen('{', "{\"problem_type\": \"multi_label_classification\",", 1);
    fs::write(folder.join("config.json"), text).expect("written");
    let error = refused(2, &["model=roberta_masked", "data.path=classes.jsonl"]);
    assert!(error.contains("several labels (problem_type)"), "{error}");
    write_tokenizer(&dir.path().join("bert_masked"), [Some(1), Some(2)], None);
    let error = refused(2, &["model=bert_masked", "data.path=words.txt"]);
    assert!(error.contains("has no mask token"), "{error}");
}
