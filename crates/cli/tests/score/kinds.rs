//! Models of every kind: the values of Transformers, and what is said where a model cannot be asked.

use std::fs;
use std::path::Path;

use burn_lora::transformer::{
    Decoder, DecoderClassifier, DecoderConfig, FolderOptions, LoadOptions,
};
use serde_json::{Value, json};

use super::common::{TOLERANCE, Tensor, golden, refused, result, tensor, text, words_tokenizer};

/// The rows of a question in the golden cases.
const CHOICES: usize = 2;

/// A golden case, and what its model is asked where the folder does not say.
struct Case {
    name: &'static str,
    task: &'static str,
}

const CASES: [Case; 14] = [
    case("bert_masked", "masked-lm"),
    case("bert_untied_masked", "masked-lm"),
    case("deberta_v3_masked", "masked-lm"),
    case("bert_sequence", "sequence"),
    case("bert_regression", "sequence"),
    case("roberta_sequence", "sequence"),
    case("distilbert_sequence", "sequence"),
    case("bert_token", "tokens"),
    case("modernbert_token", "tokens"),
    case("bert_choice", "choice"),
    case("deberta_v3_choice", "choice"),
    case("t5", "seq2seq"),
    case("t5_v1_1", "seq2seq"),
    case("mt5", "seq2seq"),
];

const fn case(name: &'static str, task: &'static str) -> Case {
    Case { name, task }
}

/// The rows of `[n, t]` numbers, each cut to what stands in its mask.
fn rows_of(reference: &Path, name: &str, kept: &[usize]) -> Vec<Vec<i64>> {
    let numbers = tensor(reference, name);
    let rows = numbers.ints();
    let rows = rows.chunks(numbers.shape[1]).zip(kept);
    rows.map(|(row, length)| row[..*length].to_vec()).collect()
}

fn lengths(reference: &Path, name: &str, is_kept: impl Fn(i64) -> bool) -> Vec<usize> {
    let mask = tensor(reference, name);
    let rows = mask.ints();
    let rows = rows.chunks(mask.shape[1]);
    rows.map(|row| row.iter().filter(|number| is_kept(**number)).count())
        .collect()
}

/// Writes the batch of a case as a row a line.
fn write_rows(case: &Case, path: &Path) {
    let reference = golden(case.name).join("reference.safetensors");
    let kept = lengths(&reference, "attention_mask", |mask| mask == 1);
    let ids = rows_of(&reference, "input_ids", &kept);
    let has_segments = case.name.starts_with("bert") || case.name.starts_with("roberta");
    let segments = has_segments.then(|| rows_of(&reference, "token_type_ids", &kept));
    let rows: Vec<Value> = match case.task {
        "choice" => {
            let questions = ids.chunks(CHOICES).enumerate();
            let row = |(at, ids): (usize, &[Vec<i64>])| {
                let segments = segments.as_ref();
                let of = |segments: &Vec<Vec<i64>>| segments[at * CHOICES..][..CHOICES].to_vec();
                json!({"input_ids": ids, "token_type_ids": segments.map(of)})
            };
            questions.map(row).collect()
        }
        "seq2seq" => {
            let kept = lengths(&reference, "labels", |label| label != -100);
            let labels = rows_of(&reference, "labels", &kept);
            let rows = ids.iter().zip(labels);
            rows.map(|(ids, labels)| json!({"input_ids": ids, "labels": labels}))
                .collect()
        }
        _ => {
            let rows = ids.iter().enumerate();
            rows.map(|(at, ids)| {
                let segments = segments.as_ref().map(|segments| &segments[at]);
                json!({"input_ids": ids, "token_type_ids": segments})
            })
            .collect()
        }
    };
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    fs::write(path, lines.join("\n")).expect("written");
}

/// The largest difference where `kept` numbers of each row count; all of them of what has no tokens.
fn difference(ours: &Tensor, theirs: &Tensor, kept: &[usize]) -> f32 {
    assert_eq!(ours.shape, theirs.shape);
    let row: usize = ours.shape[1..].iter().product();
    let width = ours.shape[2..].iter().product::<usize>();
    let (ours, theirs) = (ours.floats(), theirs.floats());
    let rows = ours.chunks(row).zip(theirs.chunks(row)).zip(kept);
    let gaps = rows.flat_map(|((ours, theirs), kept)| {
        let pairs = ours.iter().zip(theirs).take(kept * width);
        pairs.map(|(ours, theirs)| (ours - theirs).abs())
    });
    gaps.fold(0.0, |worst, gap| {
        if gap > worst || gap.is_nan() {
            gap
        } else {
            worst
        }
    })
}

fn base(model: &Path) -> Vec<String> {
    let words = [
        "score",
        "--model",
        text(model),
        "--ids",
        "ids.jsonl",
        "--output",
        "o.safetensors",
    ];
    words.map(String::from).to_vec()
}

fn scored(folder: &Path, arguments: &[String]) -> Value {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    result(folder, &[&arguments[..], &["--device", "flex"]].concat())
}

#[test]
fn the_logits_of_every_kind_are_those_of_transformers() {
    let folder = tempfile::tempdir().expect("a folder");
    let scores = folder.path().join("o.safetensors");
    for case in &CASES {
        write_rows(case, &folder.path().join("ids.jsonl"));
        let reference = golden(case.name).join("reference.safetensors");
        let bare = base(&golden(case.name).join("model"));
        let adapter = golden(case.name).join("adapter");
        let mut runs = vec![(bare.clone(), "base")];
        if adapter.is_dir() {
            let adapter = ["--adapter".to_owned(), text(&adapter).to_owned()];
            runs.push(([&bare[..], &adapter].concat(), "trained"));
        }
        for (mut arguments, stage) in runs {
            arguments.extend(["--batch-size", "2"].map(String::from));
            let found = scored(folder.path(), &arguments);
            assert_eq!(found["task"], case.task, "{}", case.name);
            let ours = tensor(&scores, "logits");
            let theirs = tensor(&reference, &format!("{stage}.logits"));
            let kept = match case.task {
                "masked-lm" | "tokens" => lengths(&reference, "attention_mask", |mask| mask == 1),
                "seq2seq" => lengths(&reference, "labels", |label| label != -100),
                // All labels of each row.
                _ => vec![theirs.shape[1]; theirs.shape[0]],
            };
            let gap = difference(&ours, &theirs, &kept);
            assert!(gap <= TOLERANCE, "{}, {stage}: {gap}", case.name);
        }
        check_inputs(case, &reference, &scores);
    }
}

/// What went into the model stands in the file as Transformers would take it.
fn check_inputs(case: &Case, reference: &Path, scores: &Path) {
    let tokens = lengths(reference, "attention_mask", |mask| mask == 1);
    let has_segments = case.name.starts_with("bert") || case.name.starts_with("roberta");
    let mut counted = vec![
        ("input_ids", tokens.clone()),
        ("attention_mask", tokens.clone()),
    ];
    if has_segments {
        counted.push(("token_type_ids", tokens));
    }
    if case.task == "seq2seq" {
        let written = lengths(reference, "labels", |label| label != -100);
        let width = tensor(reference, "labels").shape[1];
        counted.push(("labels", vec![width; written.len()]));
        counted.push(("decoder_input_ids", written));
    }
    for (name, counted) in counted {
        let (ours, theirs) = (tensor(scores, name), tensor(reference, name));
        let width = theirs.shape[1];
        let (ours, theirs) = (ours.ints(), theirs.ints());
        assert_eq!(ours.len(), theirs.len(), "{}: {name}", case.name);
        let rows = ours.chunks(width).zip(theirs.chunks(width)).zip(&counted);
        for ((ours, theirs), counted) in rows {
            assert_eq!(
                ours[..*counted],
                theirs[..*counted],
                "{}: {name}",
                case.name
            );
        }
    }
}

#[test]
fn log_probabilities_are_of_the_token_at_each_place_or_of_the_label() {
    let folder = tempfile::tempdir().expect("a folder");
    let scores = folder.path().join("o.safetensors");
    for case in [case("bert_masked", "masked-lm"), case("t5", "seq2seq")] {
        write_rows(&case, &folder.path().join("ids.jsonl"));
        let found = scored(folder.path(), &base(&golden(case.name).join("model")));
        let logits = tensor(&scores, "logits");
        let [_, seq, vocab] = logits.shape[..] else {
            panic!("{:?}", logits.shape)
        };
        let (name, absent) = match case.task {
            "seq2seq" => ("labels", -100),
            _ => ("input_ids", 0),
        };
        let tokens = tensor(&scores, name).ints();
        let mask = match case.task {
            "seq2seq" => tokens
                .iter()
                .map(|token| i64::from(*token != absent))
                .collect(),
            _ => tensor(&scores, "attention_mask").ints(),
        };
        let log_probs = tensor(&scores, "log_probs").floats();
        assert_eq!(log_probs.len() % seq, 0);
        let (mut sum, mut count) = (0.0, 0);
        for (at, logits) in logits.floats().chunks(vocab).enumerate() {
            if mask[at] == 0 {
                assert_eq!(log_probs[at], 0.0);
                continue;
            }
            let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            let expected = f64::from(logits[tokens[at] as usize]) - total.ln();
            assert!((f64::from(log_probs[at]) - expected).abs() < 1e-5);
            sum -= expected;
            count += 1;
        }
        let mean = found["mean_nll"].as_f64().expect("a number");
        assert!((mean - sum / f64::from(count)).abs() < 1e-5);
        assert_eq!(found["predicted_tokens"], count);
    }
}

#[test]
fn an_embedding_is_the_mean_of_the_hidden_states() {
    let folder = tempfile::tempdir().expect("a folder");
    let case = case("bert_sequence", "sequence");
    write_rows(&case, &folder.path().join("ids.jsonl"));
    let reference = golden(case.name).join("reference.safetensors");
    let mut arguments = base(&golden(case.name).join("model"));
    arguments.extend(["--task", "embedding"].map(String::from));
    assert_eq!(scored(folder.path(), &arguments)["task"], "embedding");
    let ours = tensor(&folder.path().join("o.safetensors"), "embeddings");
    let hidden = tensor(&reference, "base.hidden");
    let [rows, seq, d] = hidden.shape[..] else {
        panic!("{:?}", hidden.shape)
    };
    assert_eq!(ours.shape, [rows, d]);
    let (ours, hidden) = (ours.floats(), hidden.floats());
    let kept = lengths(&reference, "attention_mask", |mask| mask == 1);
    for (row, kept) in kept.iter().enumerate() {
        for column in 0..d {
            let states = (0..*kept).map(|at| hidden[(row * seq + at) * d + column]);
            let mean = states.sum::<f32>() / *kept as f32;
            assert!((ours[row * d + column] - mean).abs() <= TOLERANCE);
        }
    }
}

#[test]
fn a_decoder_labels_rows_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let device = burn::tensor::Device::flex();
    let config = DecoderConfig::read(&golden("llama/model")).expect("valid");
    let model = DecoderClassifier::init(config, 3, &device, 5).expect("valid");
    let saved = folder.path().join("model");
    fs::create_dir(&saved).expect("created");
    model.save(&saved, burn::tensor::DType::F32).expect("saved");
    fs::write(folder.path().join("ids.jsonl"), "[4, 5, 6]\n[7]").expect("written");
    let found = scored(folder.path(), &base(&saved));
    assert_eq!(found["task"], "sequence");
    let ours = tensor(&folder.path().join("o.safetensors"), "logits");
    assert_eq!(ours.shape, [2, 3]);
    let ids = burn::tensor::Tensor::from_ints([[4, 5, 6], [7, 0, 0]], &device);
    let expected = model.forward(ids, &[3, 1]).into_data();
    let expected: Vec<f32> = expected.try_to_vec().expect("f32");
    for (ours, expected) in ours.floats().iter().zip(expected) {
        assert!((ours - expected).abs() <= TOLERANCE);
    }
    // The folder of a language model has no such head.
    let language = golden("llama/model");
    let asked = [&base(&language)[..], &["--task".into(), "sequence".into()]].concat();
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    let error = refused(3, folder.path(), &asked);
    assert!(
        error.contains("no trained head") && error.contains("score.weight"),
        "{error}"
    );
    // The library gives it a fresh one, and says so.
    let options = FolderOptions::new(device.clone());
    let fresh = DecoderClassifier::load_with(&language, &options).expect("loaded");
    assert_eq!(fresh.fresh(), ["score.weight"]);
    let options = LoadOptions::new(burn::tensor::DType::F32, device);
    assert!(
        Decoder::load(&saved, &options).is_err(),
        "a classifier is no language model"
    );
}

#[test]
fn texts_pairs_choices_and_targets_are_tokens_of_the_folders_tokenizer() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let model = |name: &str| {
        let model = at.join(name);
        fs::create_dir(&model).expect("created");
        for file in ["config.json", "model.safetensors"] {
            let from = golden(name).join("model").join(file);
            fs::copy(from, model.join(file)).expect("copied");
        }
        fs::write(model.join("tokenizer.json"), words_tokenizer(40)).expect("written");
    };
    for name in ["bert_sequence", "bert_choice", "t5"] {
        model(name);
    }
    let run = |name: &str, row: &str| {
        fs::write(at.join("rows.jsonl"), row).expect("written");
        let arguments = [
            "score",
            "--model",
            name,
            "--data",
            "rows.jsonl",
            "--output",
            "o.safetensors",
        ];
        result(at, &arguments);
        let ints = |name: &str| tensor(&at.join("o.safetensors"), name);
        (ints("input_ids"), ints)
    };
    // w1 begins, w2 separates.
    let (ids, ints) = run("bert_sequence", r#"{"text": "w5 w6", "text_pair": "w7"}"#);
    assert_eq!(ids.ints(), [1, 5, 6, 2, 7, 2]);
    assert_eq!(ints("token_type_ids").ints(), [0, 0, 0, 0, 1, 1]);
    let (ids, ints) = run(
        "bert_choice",
        r#"{"text": "w5", "choices": ["w6", "w7 w8"]}"#,
    );
    assert_eq!(ids.shape, [1, 2, 6]);
    assert_eq!(ids.ints(), [1, 5, 2, 6, 2, 0, 1, 5, 2, 7, 8, 2]);
    assert_eq!(
        ints("attention_mask").ints(),
        [1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1]
    );
    for row in [
        r#"{"source": "w5 w6", "target": "w9"}"#,
        r#"{"prompt": "w5 w6", "completion": "w9"}"#,
    ] {
        let (ids, ints) = run("t5", row);
        assert_eq!(ids.ints(), [1, 5, 6, 2]);
        assert_eq!(ints("labels").ints(), [1, 9, 2]);
        assert_eq!(ints("decoder_input_ids").ints(), [0, 1, 9]);
    }
    let refused = |name: &str, rows: &str| {
        fs::write(at.join("rows.jsonl"), rows).expect("written");
        let arguments = [
            "score",
            "--model",
            name,
            "--data",
            "rows.jsonl",
            "--output",
            "o.safetensors",
        ];
        refused(4, at, &arguments)
    };
    let error = refused(
        "t5",
        "{\"source\": \"w5\"}\n{\"source\": 1, \"target\": \"w5\"}\nx",
    );
    for part in [
        "3 faulty rows",
        ":1: \"target\" is missing; the row has \"source\"",
        ":2: \"source\" is 1, not a text",
        ":3: expected",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
    let rows = "{\"text\": \"w5\"}\n{\"text\": \"w5\", \"choices\": []}\n{\"text\": \"w5\", \"choices\": [\"w6\", 1]}";
    let error = refused("bert_choice", rows);
    assert!(
        error.contains("3 faulty rows") && error.contains("the choice 1 is no text"),
        "{error}"
    );
    let long = format!("{{\"text\": \"{}\"}}", "w5 ".repeat(40));
    let error = refused("bert_sequence", &long);
    assert!(
        error.contains("42 tokens, and the model has 30 positions"),
        "{error}"
    );
}

#[test]
fn a_tokenizer_larger_than_the_embedding_is_refused_or_gets_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    for (name, rows) in [("distilbert_untied_masked", 40), ("mt5", 45)] {
        let model = at.join(name);
        fs::create_dir(&model).expect("created");
        for file in ["config.json", "model.safetensors"] {
            let from = golden(name).join("model").join(file);
            fs::copy(from, model.join(file)).expect("copied");
        }
        let tokens = rows + 3;
        fs::write(model.join("tokenizer.json"), words_tokenizer(tokens)).expect("written");
        let row = format!(r#"{{"text": "w{rows}", "source": "w{rows}", "target": "w5"}}"#);
        fs::write(at.join("rows.jsonl"), row).expect("written");
        let arguments = [
            "score",
            "--model",
            name,
            "--data",
            "rows.jsonl",
            "--output",
            "o.safetensors",
        ];
        let error = refused(3, at, &arguments);
        for part in [
            format!("has {tokens}"),
            format!("{rows} rows"),
            "--resize".into(),
        ] {
            assert!(error.contains(&part), "{part} in {error}");
        }
        let found = result(at, &[&arguments[..], &["--resize-embeddings"]].concat());
        assert_eq!(found["new_rows"], 3, "{name}");
        let logits = tensor(&at.join("o.safetensors"), "logits");
        assert_eq!(logits.shape[2], tokens, "{name}");
    }
}

#[test]
fn what_a_model_cannot_be_asked_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    fs::write(at.join("ids.jsonl"), "[4, 5, 6]").expect("written");
    let check = |code: i32, model: &Path, more: &[&str], parts: &[&str]| {
        let base = base(model);
        let base: Vec<&str> = base.iter().map(String::as_str).collect();
        let error = refused(code, at, &[&base[..], more].concat());
        for part in parts {
            assert!(error.contains(part), "{part} in {error}");
        }
        assert!(!at.join("o.safetensors").exists());
    };
    let (bert, t5) = (golden("bert_sequence/model"), golden("t5/model"));
    check(
        2,
        &bert,
        &["--task", "seq2seq"],
        &["seq2seq", "`bert`", "masked-lm"],
    );
    check(
        2,
        &t5,
        &["--task", "sequence"],
        &["`t5`", "--task takes seq2seq"],
    );
    check(2, &bert, &["--no-logits"], &["leaves nothing"]);
    check(
        3,
        &bert,
        &["--task", "masked-lm"],
        &["no trained head", "cls.predictions.bias"],
    );
    check(4, &t5, &[], &["\"labels\" is missing"]);
    check(
        3,
        &bert,
        &["--num-labels", "7"],
        &["classifier.weight is [3, 16], expected [7, 16]"],
    );
    let unknown = at.join("unknown");
    fs::create_dir(&unknown).expect("created");
    fs::write(
        unknown.join("config.json"),
        r#"{"model_type": "distilbart"}"#,
    )
    .expect("written");
    check(
        3,
        &unknown,
        &[],
        &["nearest: `distilbert`", "llama", "mt5", "deberta-v2"],
    );
    fs::write(
        at.join("ids.jsonl"),
        r#"{"input_ids": [4, 5], "token_type_ids": [0, 2]}"#,
    )
    .expect("written");
    check(
        4,
        &bert,
        &[],
        &["segment 2, and the model knows those below 2"],
    );
}
