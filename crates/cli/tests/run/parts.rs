//! Prompts, prefixes and bottlenecks, from a word of a configuration to what is done with their folders.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::{lines, object, refused, setup, tasks};

/// A run on pairs, with an adapter as it stands in a configuration.
fn write_run(dir: &Path, adapter: &str) {
    let text = format!(
        "data: {{path: pairs.csv}}\noutput: out\nadapter: {adapter}\n\
         training: {{steps: 4, batch_size: 4, max_seq_len: 64, learning_rate: 0.02}}\nevaluation: {{generate: false}}\n"
    );
    fs::write(dir.join("run.yaml"), text).expect("written");
}

fn peft_config(folder: &Path) -> Value {
    let text = fs::read_to_string(folder.join("adapter_config.json")).expect("written");
    serde_json::from_str(&text).expect("JSON")
}

/// The bytes of all weights in the folder of an adapter, or of several.
fn bytes_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("a folder");
    let entries = entries.map(|entry| entry.expect("readable").path());
    entries
        .map(|path| match path.is_dir() {
            true => bytes_of(&path),
            false if path.ends_with("adapter_model.safetensors") => {
                fs::metadata(path).expect("a file").len()
            }
            false => 0,
        })
        .sum()
}

#[test]
fn prompts_go_all_the_way() {
    let (dir, model) = setup();
    let base = &model[6..];
    write_run(
        dir.path(),
        "{method: prompt, num_virtual_tokens: 5, prompt_tuning_init_text: Mira sold three chairs}",
    );
    let planned = object(dir.path(), &["plan", "run.yaml", &model]);
    assert_eq!(planned["method"], "prompt");
    assert_eq!(planned["plan"]["parameters"]["trained"], 5 * 128);
    let shown = lines(dir.path(), &["plan", "run.yaml", &model]);
    assert!(
        shown.contains("adapter     prompt of 5 virtual tokens\n"),
        "{shown}"
    );

    let result = object(dir.path(), &["train", "run.yaml", &model]);
    let adapter = dir.path().join("out/adapter");
    let bytes = fs::metadata(adapter.join("adapter_model.safetensors")).expect("written");
    assert_eq!(planned["plan"]["adapter_bytes"], bytes.len());
    let config = peft_config(&adapter);
    for (field, value) in [
        ("peft_type", json!("PROMPT_TUNING")),
        ("task_type", json!("CAUSAL_LM")),
        ("num_virtual_tokens", json!(5)),
        ("prompt_tuning_init", json!("TEXT")),
        ("prompt_tuning_init_text", json!("Mira sold three chairs")),
        ("base_model_name_or_path", json!(base)),
        ("tokenizer_name_or_path", json!(base)),
    ] {
        assert_eq!(config[field], value, "{field}");
    }
    let card = fs::read_to_string(adapter.join("README.md")).expect("a card");
    assert!(card.contains("- prompt_tuning"), "{card}");
    let report = fs::read_to_string(dir.path().join("out/report.html")).expect("a report");
    assert!(report.contains("prompt of 5 virtual tokens"));
    let written = fs::read_to_string(dir.path().join("out/config.yaml")).expect("written");
    assert!(!written.contains("rank:"), "{written}");

    let evaluate = ["evaluate", "out/config.yaml", "--adapter", "out/adapter"];
    let found = object(dir.path(), &evaluate);
    assert_eq!(found["metrics"], result["metrics"]);
    let bare = object(dir.path(), &["evaluate", "out/config.yaml"]);
    assert!(found["loss"].as_f64() < bare["loss"].as_f64());

    let with = ["--model", base, "--adapter", "out/adapter"];
    let generate = ["generate", "--prompt", "ship 3,", "--max-new-tokens", "4"];
    let answers = object(dir.path(), &[&generate[..], &with].concat());
    assert!(answers["answers"][0]["answer"].is_string(), "{answers}");

    let shown = lines(dir.path(), &["inspect", "out/adapter"]);
    for part in [
        "method      prompt (PROMPT_TUNING)\n",
        "task        CAUSAL_LM\n",
        "setting     num_virtual_tokens: 5\n",
        "setting     prompt_tuning_init_text: \"Mira sold three chairs\"\n",
        "parameters  640 in 1 tensors, ",
        "prompt_embeddings         5 x 128    F32  ",
        "faults      none found without the base",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let found = object(dir.path(), &["inspect", "out/adapter"]);
    assert_eq!(found["settings"]["num_virtual_tokens"], 5);

    fs::write(dir.path().join("texts.jsonl"), "{\"text\": \"ship 3\"}\n").expect("written");
    let score = [
        "score",
        "--data",
        "texts.jsonl",
        "--output",
        "scores.safetensors",
    ];
    let scored = object(dir.path(), &[&score[..], &with].concat());
    assert_eq!(scored["rows"], 1);

    let merge = ["merge", "--output", "merged"];
    let error = refused(3, dir.path(), &[&merge[..], &with].concat());
    for part in ["virtual tokens (PROMPT_TUNING)", "cannot be merged"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!dir.path().join("merged").exists(), "nothing was written");
    let error = refused(
        3,
        dir.path(),
        &[
            "convert",
            "out/adapter",
            "--portable",
            "--output",
            "portable",
        ],
    );
    assert!(error.contains("PROMPT_TUNING"), "{error}");
}

#[test]
fn bottlenecks_go_all_the_way() {
    let (dir, model) = setup();
    let base = &model[6..];
    write_run(
        dir.path(),
        "{method: bottleneck, bottleneck_size: 8, placement: houlsby}",
    );
    let planned = object(dir.path(), &["plan", "run.yaml", &model]);
    let result = object(dir.path(), &["train", "run.yaml", &model]);
    let adapter = dir.path().join("out/adapter");
    let bytes = fs::metadata(adapter.join("adapter_model.safetensors")).expect("written");
    assert_eq!(planned["plan"]["adapter_bytes"], bytes.len());
    let config = peft_config(&adapter);
    assert_eq!(config["peft_type"], "BOTTLENECK");
    assert_eq!(config["base_model_name_or_path"], base);
    let evaluate = ["evaluate", "out/config.yaml", "--adapter", "out/adapter"];
    assert_eq!(object(dir.path(), &evaluate)["metrics"], result["metrics"]);
    let with = ["--model", base, "--adapter", "out/adapter"];
    let generate = ["generate", "--prompt", "ship 3,", "--max-new-tokens", "4"];
    lines(dir.path(), &[&generate[..], &with].concat());
    let found = object(dir.path(), &["inspect", "out/adapter"]);
    assert_eq!(found["method"], "bottleneck");
    assert_eq!(
        found["parameters"],
        planned["plan"]["parameters"]["trained"]
    );
    let merge = ["merge", "--output", "merged"];
    let error = refused(3, dir.path(), &[&merge[..], &with].concat());
    assert!(error.contains("bottlenecks (BOTTLENECK)"), "{error}");
}

#[test]
fn lora_with_prefixes_is_two_folders_in_one() {
    let (dir, model) = setup();
    let base = &model[6..];
    write_run(
        dir.path(),
        "{rank: 2, targets: 'q_proj,v_proj', beside: {method: prefix, num_virtual_tokens: 3}}",
    );
    let planned = lines(dir.path(), &["plan", "run.yaml", &model]);
    assert!(
        planned.contains("layers, rank 2; prefix of 3 virtual tokens\n"),
        "{planned}"
    );
    let result = object(dir.path(), &["train", "run.yaml", &model]);
    let adapter = dir.path().join("out/adapter");
    assert_eq!(peft_config(&adapter.join("lora"))["peft_type"], "LORA");
    assert_eq!(
        peft_config(&adapter.join("prefix"))["peft_type"],
        "PREFIX_TUNING"
    );
    let evaluate = |adapter: &str| {
        object(
            dir.path(),
            &["evaluate", "out/config.yaml", "--adapter", adapter],
        )
    };
    assert_eq!(evaluate("out/adapter")["metrics"], result["metrics"]);
    for alone in ["out/adapter/lora", "out/adapter/prefix"] {
        assert_ne!(evaluate(alone)["metrics"], result["metrics"], "{alone}");
    }
    let shown = object(dir.path(), &["inspect", "out/adapter"]);
    let methods: Vec<&Value> = shown["adapters"]
        .as_array()
        .expect("several")
        .iter()
        .map(|one| &one["method"])
        .collect();
    assert_eq!(methods, ["lora", "prefix"]);
    let with = ["--model", base, "--adapter", "out/adapter"];
    let generate = ["generate", "--prompt", "ship 3,", "--max-new-tokens", "4"];
    lines(dir.path(), &[&generate[..], &with].concat());
    let merge = ["merge", "--output", "merged"];
    let error = refused(3, dir.path(), &[&merge[..], &with].concat());
    assert!(error.contains("(PREFIX_TUNING)"), "{error}");

    // Of one kind a model takes one.
    let copy = adapter.join("another");
    fs::create_dir(&copy).expect("made");
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(adapter.join("prefix").join(file), copy.join(file)).expect("copied");
    }
    let error = refused(
        3,
        dir.path(),
        &["evaluate", "out/config.yaml", "--adapter", "out/adapter"],
    );
    assert!(
        error.contains("another, prefix are adapters of one kind"),
        "{error}"
    );
    let error = refused(
        3,
        dir.path(),
        &["evaluate", "out/config.yaml", "--adapter", "out"],
    );
    assert!(error.contains("has adapter_config.json"), "{error}");
}

#[test]
fn each_task_takes_each_method() {
    let (dir, model) = setup();
    tasks::write_data(dir.path());
    let llama = &model["model=".len()..];
    let methods = [
        "{method: prompt, num_virtual_tokens: 2}",
        "{method: p-tuning, num_virtual_tokens: 2, encoder_hidden_size: 4}",
        "{method: prefix, num_virtual_tokens: 2}",
        "{method: bottleneck, bottleneck_size: 4, placement: houlsby}",
        "{rank: 2, beside: [{method: prompt, num_virtual_tokens: 2}, {method: bottleneck, bottleneck_size: 4}]}",
    ];
    for (data, model, task) in [
        ("words.txt", llama, "causal"),
        ("classes.jsonl", "bert_masked", "classification"),
        ("classes.jsonl", llama, "classification"),
        ("values.jsonl", "roberta_masked", "regression"),
        ("tags.jsonl", "bert_masked", "tagging"),
        ("words.txt", "bert_masked", "masked"),
        ("written.jsonl", "t5", "seq2seq"),
        ("preferences.jsonl", llama, "dpo"),
        ("preferences.jsonl", llama, "orpo"),
    ] {
        for (at, method) in methods.iter().enumerate() {
            let what = format!("{task} by {model}: {method}");
            let text = format!(
                "model: {model}\ntask: {task}\noutput: {task}{at}\ndata: {{path: {data}, text_rows: line}}\n\
                 adapter: {method}\ntraining: {{steps: 2, batch_size: 8, max_seq_len: 24, learning_rate: 0.01}}\n\
                 evaluation: {{rows: 4, generate: false}}\n"
            );
            fs::write(dir.path().join("run.yaml"), text).expect("written");
            let planned = object(dir.path(), &["plan", "run.yaml"]);
            let result = object(dir.path(), &["train", "run.yaml"]);
            assert_eq!(result["steps"], 2, "{what}: {result}");
            let config = format!("{task}{at}/config.yaml");
            let adapter = format!("{task}{at}/adapter");
            let found = object(dir.path(), &["evaluate", &config, "--adapter", &adapter]);
            assert_eq!(found["metrics"], result["metrics"], "{what}");
            // A plan is of the head that the folder names.
            if !["classification", "regression", "tagging"].contains(&task) {
                let bytes = bytes_of(&dir.path().join(&adapter));
                assert_eq!(planned["plan"]["adapter_bytes"], bytes, "{what}");
            }
        }
    }
}

#[test]
fn what_is_wrong_is_told_before_the_model_is_read() {
    let (dir, model) = setup();
    // The folder holds no weights, which nobody gets to miss.
    let base = Path::new(&model[6..]);
    fs::create_dir(dir.path().join("bare")).expect("made");
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        if base.join(file).exists() {
            fs::copy(base.join(file), dir.path().join("bare").join(file)).expect("copied");
        }
    }
    write_run(dir.path(), "{method: prompt}");
    for (settings, parts) in [
        (
            vec!["rank=8", "target_modules=[q_proj]"],
            vec![
                "adapter.rank is no setting of prompt; there are method, num_virtual_tokens",
                "target_modules is no setting",
            ],
        ),
        (
            vec!["adapter.method=prefixes"],
            vec!["did you mean \"prefix\"?"],
        ),
        (
            vec!["num_virtual_tokens=600"],
            vec!["600 of them leave no room in 256 positions"],
        ),
        (
            vec!["adapter={method: bottleneck, bottleneck_size: 500}"],
            vec!["their width 500 exceeds 128"],
        ),
        (vec!["packing=true"], vec!["no place for virtual tokens"]),
    ] {
        let run = [&["train", "run.yaml", "model=bare"], &settings[..]].concat();
        let error = refused(2, dir.path(), &run);
        for part in parts {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
