//! The commands that go from rows to an adapter, as a user starts them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

mod parts;
mod plan;
mod reports;
mod tasks;
mod terminal;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs the command on the CPU.
fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_burn-lora"));
    command
        .current_dir(folder)
        .env("BURN_DEVICE", "flex")
        .env("HF_HOME", folder.join("cache"));
    command.args(arguments).output().expect("started")
}

#[track_caller]
fn lines(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[track_caller]
fn object(folder: &Path, arguments: &[&str]) -> Value {
    let text = lines(folder, &[arguments, &["--json"]].concat());
    serde_json::from_str(&text).expect("one object")
}

/// The message of a run that must fail with this code.
#[track_caller]
fn refused(code: i32, folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(!error.contains("panicked"), "{error}");
    assert!(output.stdout.is_empty(), "no result");
    error
}

/// A folder with data, and the setting that names the tiny base.
fn setup() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a folder");
    let base = repository()
        .join("datasets/tiny-base")
        .canonicalize()
        .expect("the tiny base");
    let chats: String = (0..24)
        .map(|row| {
            let messages = json!({"messages": [
                {"role": "user", "content": format!("ships {row}")},
                {"role": "assistant", "content": "two"},
                {"role": "user", "content": "and bells?"},
                {"role": "assistant", "content": "ten"},
            ]});
            format!("{messages}\n")
        })
        .collect();
    fs::write(dir.path().join("chats.jsonl"), chats).expect("written");
    let pairs: String = (0..24)
        .map(|row| format!("ship {row},\" chairs: {}\"\n", row % 3))
        .collect();
    fs::write(
        dir.path().join("pairs.csv"),
        format!("prompt,completion\n{pairs}"),
    )
    .expect("written");
    let text = "Mira sold three chairs to Ilva. ".repeat(300);
    fs::write(dir.path().join("book.txt"), format!("{text}\n\nThe end.\n")).expect("written");
    (dir, format!("model={}", base.display()))
}

#[test]
fn a_data_set_is_shown_as_it_will_be_learned() {
    let (dir, model) = setup();
    let shown = lines(
        dir.path(),
        &[
            "inspect",
            "pairs.csv",
            &model,
            "--rows",
            "1",
            "--model",
            &model[6..],
        ],
    );
    assert!(!shown.contains('\u{1b}'), "no colors in a pipe");
    for part in [
        "format      prompt_completion (\"prompt\" and \"completion\")",
        "rows        24",
        "duplicates  0",
        "pairs.csv:2  ",
        "  given   \"ship 0\"\n  learned \" chairs: 0<eos>\"",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let found = object(
        dir.path(),
        &[
            "inspect",
            "chats.jsonl",
            "--model",
            &model[6..],
            "chat_template=chatml",
            "--rows",
            "2",
        ],
    );
    assert_eq!(found["report"]["rows"], 24);
    let segments = found["rows"][1]["row"][0]["segments"]
        .as_array()
        .expect("segments");
    let learned: Vec<&str> = segments
        .iter()
        .filter(|segment| segment["learned"] == true)
        .map(|segment| segment["text"].as_str().expect("a text"))
        .collect();
    assert_eq!(learned, ["two<|im_end|>", "ten<|im_end|>"]);
    let last = object(
        dir.path(),
        &[
            "inspect",
            "chats.jsonl",
            "--model",
            &model[6..],
            "chat_template=chatml",
            "learn=last_turn",
            "--rows",
            "1",
        ],
    );
    assert!(last["report"]["learned_tokens"].as_u64() < found["report"]["learned_tokens"].as_u64());
}

#[test]
fn faults_of_the_data_and_of_the_configuration_are_told() {
    let (dir, model) = setup();
    let error = refused(
        4,
        dir.path(),
        &["inspect", "chat.jsonl", "--model", &model[6..]],
    );
    assert!(error.contains("did you mean chats.jsonl?"), "{error}");
    let error = refused(
        3,
        dir.path(),
        &["inspect", "chats.jsonl", "--model", &model[6..]],
    );
    assert!(error.contains("`chat_template: chatml`"), "{error}");
    let error = refused(2, dir.path(), &["inspect", "chats.jsonl"]);
    assert!(error.contains("--model is missing"), "{error}");
    fs::write(dir.path().join("bad.jsonl"), "{\"prompt\": \"a\"}\n{\n").expect("written");
    let error = refused(
        4,
        dir.path(),
        &["inspect", "bad.jsonl", "--model", &model[6..]],
    );
    assert!(
        error.contains("bad.jsonl:1: \"completion\" is missing")
            && error.contains("bad.jsonl:2: not JSON"),
        "{error}"
    );
    fs::write(
        dir.path().join("c.yaml"),
        "modle: x\ndata: {path: pairs.csv}\ntraining: {steps: no}\n",
    )
    .expect("written");
    let error = refused(2, dir.path(), &["train", "c.yaml"]);
    for part in [
        "modle is no setting: did you mean model?",
        "training.steps: invalid type",
        "model is missing",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!dir.path().join("output").exists(), "nothing was done");
    let error = refused(2, dir.path(), &["train", "none.yaml"]);
    assert!(error.contains("cannot read none.yaml"), "{error}");
}

#[test]
fn training_leaves_an_adapter_its_configuration_and_a_result() {
    let (dir, model) = setup();
    fs::write(
        dir.path().join("c.yaml"),
        "data: {path: pairs.csv, cache: tokens}\noutput: out\n",
    )
    .expect("written");
    let settings = [
        "train",
        "c.yaml",
        &model,
        "steps=3",
        "batch_size=4",
        "rank=2",
        "max_seq_len=64",
    ];
    let dry = lines(dir.path(), &[&settings[..], &["--dry-run"]].concat());
    assert!(
        dry.contains("examples: 22 to learn, 2 to validate with, 2 to measure at the end"),
        "{dry}"
    );
    assert!(!dir.path().join("out").exists(), "nothing was trained");

    let output = run(dir.path(), &settings);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    assert!(told.contains(", from the cache"), "{told}");
    let last = String::from_utf8(output.stdout).expect("UTF-8");
    let result = last
        .trim_end()
        .lines()
        .last()
        .and_then(|line| line.strip_prefix("RESULT "))
        .expect("a result");
    let result: Value = serde_json::from_str(result).expect("an object");
    for key in [
        "train_loss",
        "valid_loss",
        "tokens_per_second",
        "seconds",
        "peak_memory_bytes",
    ] {
        assert!(result[key].is_number(), "{key}: {result}");
    }
    assert_eq!(result["steps"], 3);
    assert!(result["tokens"].as_u64() > Some(0) && result["metrics"]["exact_match"].is_number());
    let adapter = dir
        .path()
        .join(result["adapter"].as_str().expect("a folder"));
    assert!(adapter.join("adapter_model.safetensors").exists());

    // The configuration beside it is whole, and makes the same run again, bit for bit.
    let weights = fs::read(adapter.join("adapter_model.safetensors")).expect("weights");
    let written = fs::read_to_string(dir.path().join("out/config.yaml")).expect("a configuration");
    assert!(written.contains("weight_decay: 0.01"), "{written}");
    let again = object(dir.path(), &["train", "out/config.yaml", "output=again"]);
    assert_eq!(again["valid_loss"], result["valid_loss"]);
    let adapter = dir.path().join("again/adapter/adapter_model.safetensors");
    assert_eq!(fs::read(adapter).expect("weights"), weights);

    // What was measured at the end is measured again, of the adapter and of the merged model; and they say the same.
    let measured = object(
        dir.path(),
        &["evaluate", "out/config.yaml", "--adapter", "out/adapter"],
    );
    assert_eq!(measured["loss"], result["metrics"]["loss"]);
    let bare = object(dir.path(), &["evaluate", "out/config.yaml"]);
    assert_ne!(bare["loss"], measured["loss"]);
    let base = &model[6..];
    object(
        dir.path(),
        &[
            "merge",
            "--model",
            base,
            "--adapter",
            "out/adapter",
            "--output",
            "merged",
        ],
    );
    let merged = object(dir.path(), &["evaluate", "out/config.yaml", "model=merged"]);
    let loss = |value: &Value| value["loss"].as_f64().expect("a loss");
    assert!(
        (loss(&merged) - loss(&measured)).abs() < 1e-5,
        "{merged} and {measured}"
    );
    fs::write(dir.path().join("prompts.txt"), "ship 1,\n\nship 2,\n").expect("written");
    let ask = ["generate", "--file", "prompts.txt", "--max-new-tokens", "5"];
    let answers = object(
        dir.path(),
        &[&ask[..], &["--model", base, "--adapter", "out/adapter"]].concat(),
    );
    assert_eq!(answers["answers"].as_array().map(Vec::len), Some(2));
    let of_merged = object(dir.path(), &[&ask[..], &["--model", "merged"]].concat());
    assert_eq!(answers["answers"], of_merged["answers"]);
    let chat = [
        "generate",
        "--model",
        "merged",
        "--prompt",
        "hi",
        "--max-new-tokens",
        "2",
        "--as-chat",
    ];
    assert!(refused(3, dir.path(), &chat).contains("chat template"));
    let chat = lines(
        dir.path(),
        &[&chat[..], &["--chat-template", "chatml"]].concat(),
    );
    assert!(!chat.contains("im_start"), "the answer alone: {chat}");
    let error = refused(
        2,
        dir.path(),
        &["merge", "--model", base, "--output", "merged"],
    );
    assert!(error.contains("--adapter is missing"), "{error}");
}

#[test]
fn every_recipe_runs() {
    let (dir, model) = setup();
    tasks::write_data(dir.path());
    let found = object(dir.path(), &["recipes", "list"]);
    let names: Vec<&str> = found["recipes"]
        .as_array()
        .expect("recipes")
        .iter()
        .filter_map(|recipe| recipe["name"].as_str())
        .collect();
    let known = [
        "chat",
        "classification",
        "completion",
        "dpo",
        "gpt2-e2e",
        "masked",
        "orpo",
        "prompt",
        "regression",
        "roberta-glue",
        "seq2seq",
        "tagging",
        "text",
    ];
    assert_eq!(names, known);
    for name in names {
        let file = format!("{name}.yaml");
        assert!(lines(dir.path(), &["recipes", "copy", name]).contains(&file));
        assert_eq!(
            fs::read_to_string(dir.path().join(&file))
                .expect("written")
                .trim_end(),
            lines(dir.path(), &["recipes", "print", name]).trim_end()
        );
        let own: &[&str] = match name {
            "chat" => &[
                "data.path=chats.jsonl",
                "chat_template=chatml",
                "max_seq_len=256",
            ],
            "completion" | "prompt" => &["data.path=pairs.csv"],
            "gpt2-e2e" => &[
                "data.path=pairs.csv",
                "targets=q_proj,v_proj",
                "max_seq_len=64",
            ],
            "text" => &["data.path=book.txt", "max_seq_len=64", "valid_fraction=0.1"],
            "dpo" | "orpo" => &[
                "data.path=preferences.jsonl",
                "max_seq_len=64",
                "valid_fraction=0.2",
            ],
            "classification" => &[
                "data.path=classes.jsonl",
                "max_seq_len=16",
                "model=bert_masked",
            ],
            "roberta-glue" => &[
                "data.path=classes.jsonl",
                "max_seq_len=16",
                "model=roberta_masked",
            ],
            // A correlation wants more than the two rows of the others.
            "regression" => &[
                "data.path=values.jsonl",
                "valid_fraction=0.3",
                "evaluation.rows=9",
                "max_seq_len=16",
                "model=bert_masked",
            ],
            "tagging" => &[
                "data.path=tags.jsonl",
                "max_seq_len=16",
                "model=bert_masked",
            ],
            "masked" => &[
                "data.path=words.txt",
                "text_rows=line",
                "max_seq_len=16",
                "valid_fraction=0.2",
                "model=bert_masked",
            ],
            "seq2seq" => &[
                "data.path=written.jsonl",
                "max_seq_len=16",
                "model=t5",
                "rank=4",
            ],
            other => panic!("{other} is not tried"),
        };
        let few = [
            "steps=2",
            "warmup=1",
            "eval_every=2",
            "save_every=null",
            "batch_size=2",
            "evaluation.rows=2",
        ];
        let result = object(
            dir.path(),
            &[&["train", &file, &model], &few[..], own].concat(),
        );
        assert_eq!(result["steps"], 2, "{name}");
        assert!(
            result["valid_loss"].as_f64().is_some_and(f64::is_finite),
            "{name}: {result}"
        );
        for metric in tasks::metrics(name) {
            let value = &result["metrics"][metric];
            assert!(
                value.as_f64().is_some_and(f64::is_finite),
                "{name}: {metric}: {result}"
            );
        }
        // What is written beside the adapter is enough to measure it again.
        let config =
            Path::new(result["adapter"].as_str().expect("a folder")).with_file_name("config.yaml");
        let config = config.to_str().expect("UTF-8");
        let adapter = result["adapter"].as_str().expect("a folder");
        let again = object(dir.path(), &["evaluate", config, "--adapter", adapter]);
        assert_eq!(again["metrics"], result["metrics"], "{name}");
    }
    let error = refused(2, dir.path(), &["recipes", "print", "chatt"]);
    assert!(error.contains("there are chat, classification"), "{error}");
    let error = refused(1, dir.path(), &["recipes", "copy", "chat"]);
    assert!(
        error.contains("cannot write chat.yaml"),
        "an old file stays: {error}"
    );
    fs::create_dir(dir.path().join("folder")).expect("made");
    lines(dir.path(), &["recipes", "copy", "chat", "folder"]);
    assert!(dir.path().join("folder/chat.yaml").exists());
}

#[test]
fn one_word_changes_the_method() {
    let (dir, model) = setup();
    lines(dir.path(), &["recipes", "copy", "completion"]);
    for (method, peft_type) in [
        ("dora", "LORA"),
        ("vera", "VERA"),
        ("loha", "LOHA"),
        ("lokr", "LOKR"),
        ("adalora", "ADALORA"),
        ("ia3", "IA3"),
        ("full", "FULL"),
    ] {
        let arguments = [
            "train",
            "completion.yaml",
            &model,
            &format!("adapter.method={method}"),
            "data.path=pairs.csv",
            &format!("output={method}"),
            "steps=3",
            "warmup=1",
            "eval_every=3",
            "save_every=null",
            "batch_size=2",
            "evaluation.rows=2",
        ];
        let result = object(dir.path(), &arguments);
        assert_eq!(result["steps"], 3, "{method}");
        let config = dir.path().join(method).join("adapter/adapter_config.json");
        let config = fs::read_to_string(config).expect("written");
        assert!(config.contains(&format!("\"{peft_type}\"")), "{config}");
    }
    let error = refused(2, dir.path(), &["train", "completion.yaml", "method=doraa"]);
    assert!(error.contains("did you mean \"dora\"?"), "{error}");
}

#[test]
fn one_word_changes_where_the_factors_start() {
    let (dir, model) = setup();
    lines(dir.path(), &["recipes", "copy", "completion"]);
    let train = |settings: &[&str]| {
        let common = [
            "train",
            "completion.yaml",
            &model,
            "data.path=pairs.csv",
            "rank=2",
            "steps=3",
            "warmup=1",
            "eval_every=3",
            "save_every=null",
            "batch_size=2",
            "evaluation.rows=2",
            "evaluation.generate=false",
            "adapter.initialization_batches=2",
        ];
        object(dir.path(), &[&common[..], settings].concat())
    };
    for (word, rank) in [
        ("orthogonal", 2),
        ("pissa", 4),
        ("pissa_niter_4", 4),
        ("olora", 4),
        ("eva", 2),
        ("corda", 4),
        ("lora_ga", 4),
    ] {
        let settings = [&format!("initialization={word}"), &format!("output={word}")];
        let result = train(&settings.map(String::as_str));
        let adapter = format!("{word}/adapter");
        let config = fs::read_to_string(dir.path().join(&adapter).join("adapter_config.json"));
        let config: Value = serde_json::from_str(&config.expect("written")).expect("JSON");
        assert_eq!(config["init_lora_weights"], true, "{word}");
        assert_eq!(config["r"], rank, "{word}");
        // The folder means over the base as it is what was trained over the base that the initialization left.
        let written = format!("{word}/config.yaml");
        let measured = object(dir.path(), &["evaluate", &written, "--adapter", &adapter]);
        let loss = |value: &Value| value.as_f64().expect("a loss");
        let (trained, again) = (loss(&result["metrics"]["loss"]), loss(&measured["loss"]));
        assert!(
            (trained - again).abs() < 1e-4,
            "{word}: {trained} and {again}"
        );
    }
    // Settings by PEFT's keys; biases of the base beside the factors.
    let kept = train(&[
        "initialization=corda",
        "initialization_options={corda_method: kpm}",
        "bias=all",
        "output=kpm",
    ]);
    assert!(kept["metrics"]["loss"].is_number());
    let start = ["train", "completion.yaml", "data.path=pairs.csv"];
    let wrong = [
        "initialization=pisa",
        "initialization_options={rho: 2}",
        "bias=some",
    ];
    let error = refused(2, dir.path(), &[&start[..], &wrong[..]].concat());
    assert!(error.contains("did you mean \"pissa\"?"), "{error}");
    assert!(error.contains("adapter.bias must be none"), "{error}");
    let wrong = ["initialization=eva", "initialization_options={whitn: true}"];
    let error = refused(2, dir.path(), &[&start[..], &wrong[..]].concat());
    assert!(error.contains("did you mean whiten?"), "{error}");
}

#[test]
fn an_adapter_is_extracted_from_a_model_and_its_tuned_self() {
    let (dir, model) = setup();
    lines(dir.path(), &["recipes", "copy", "completion"]);
    let train = [
        "train",
        "completion.yaml",
        &model,
        "data.path=pairs.csv",
        "rank=2",
        "output=out",
        "steps=3",
        "warmup=1",
        "eval_every=3",
        "save_every=null",
        "learning_rate=1e-2",
        "evaluation.rows=4",
        "evaluation.generate=false",
    ];
    let trained = object(dir.path(), &train);
    let base = &model[6..];
    let merge = [
        "merge",
        "--model",
        base,
        "--adapter",
        "out/adapter",
        "--output",
        "tuned",
    ];
    object(dir.path(), &merge);
    let extract = ["extract", "--base", base, "--tuned", "tuned"];
    let found = object(
        dir.path(),
        &[&extract[..], &["--rank", "2", "--output", "extracted"]].concat(),
    );
    let layers = found["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 28);
    assert_eq!(found["other_differences"], json!([]));
    for layer in layers {
        assert!(layer["energy"].as_f64() > Some(0.9999), "{layer}");
        assert_eq!(layer["rank"], 2);
    }
    let evaluate = ["evaluate", "out/config.yaml", "--adapter", "extracted"];
    let again = object(dir.path(), &evaluate);
    let loss = |value: &Value| value.as_f64().expect("a loss");
    let (expected, actual) = (loss(&trained["metrics"]["loss"]), loss(&again["loss"]));
    assert!((expected - actual).abs() < 1e-4, "{expected} and {actual}");

    let less = [
        "--rank",
        "2",
        "--energy",
        "0.5",
        "--output",
        "less",
        "--targets",
        "q_proj,v_proj",
    ];
    let text = lines(dir.path(), &[&extract[..], &less[..]].concat());
    assert!(text.contains("extracted 8 layers"), "{text}");
    assert!(text.contains("further tensors differ"), "{text}");
    let error = refused(
        3,
        dir.path(),
        &[&extract[..], &["--rank", "0", "--output", "x"]].concat(),
    );
    assert!(error.contains("the rank is 0"), "{error}");
    let none = ["--rank", "1", "--output", "x", "--targets", "q_prj"];
    let error = refused(3, dir.path(), &[&extract[..], &none[..]].concat());
    assert!(error.contains("match no linear layer"), "{error}");
}

#[test]
fn adapters_are_combined() {
    let (dir, model) = setup();
    lines(dir.path(), &["recipes", "copy", "completion"]);
    for (output, seed) in [("a", "1"), ("b", "2")] {
        let arguments = [
            "train",
            "completion.yaml",
            &model,
            "data.path=pairs.csv",
            &format!("output={output}"),
            &format!("training.seed={seed}"),
            "rank=4",
            "steps=3",
            "warmup=1",
            "eval_every=3",
            "save_every=null",
            "evaluation.rows=0",
        ];
        lines(dir.path(), &arguments);
    }
    let both = ["combine", "a/adapter", "b/adapter", "--output", "both"];
    let cat = ["--method", "cat", "--weights", "0.5,-1"];
    let found = object(dir.path(), &[&both[..], &cat[..]].concat());
    assert_eq!((&found["rank"], &found["layers"]), (&json!(8), &json!(28)));
    let ties = ["--method", "ties", "--density", "0.5", "--portable"];
    lines(dir.path(), &[&both[..], &ties[..]].concat());
    let weights = || fs::read(dir.path().join("both/adapter_model.safetensors")).expect("written");
    let of_all = weights();
    let each = |densities: &'static str| {
        let each = ["--method", "ties", "--densities", densities, "--portable"];
        [&both[..], &each[..]].concat()
    };
    lines(dir.path(), &each("0.5,0.8"));
    assert_ne!(weights(), of_all, "the second adapter keeps more");
    lines(dir.path(), &each("0.5,0.5"));
    assert_eq!(weights(), of_all);
    let wrong = [each("0.5"), vec!["--weights", "1,2,3"]].concat();
    let error = refused(2, dir.path(), &wrong);
    let all = "--weights has 3 numbers for 2 adapters; --densities has 1 numbers for 2 adapters";
    assert!(error.contains(all), "{error}");
    let error = refused(
        2,
        dir.path(),
        &[each("0.5,0.8"), vec!["--density", "0.5"]].concat(),
    );
    assert!(error.contains("cannot be used with"), "{error}");
    let prompt = [
        "--adapter",
        "both",
        "--prompt",
        "ship 3,",
        "--model",
        &model[6..],
    ];
    // Without a number an answer has as many tokens as there are positions for it.
    lines(dir.path(), &[&["generate"], &prompt[..]].concat());
    let generated = [&["generate"], &prompt[..], &["--max-new-tokens", "4"]].concat();
    assert!(run(dir.path(), &generated).status.success());

    let convert = ["convert", "a/adapter", "--portable", "--output", "portable"];
    assert_eq!(object(dir.path(), &convert)["layers"], 28);
    let config = fs::read_to_string(dir.path().join("portable/adapter_config.json"));
    let config: Value = serde_json::from_str(&config.expect("written")).expect("JSON");
    assert_eq!(config["lora_alpha"], config["r"]);
    let error = refused(2, dir.path(), &["convert", "pairs.csv", "--output", "x"]);
    assert!(error.contains("--alpha is missing"), "{error}");
    let loralib = ["convert", "pairs.csv", "--alpha", "8", "--output", "x"];
    let error = refused(3, dir.path(), &loralib);
    assert!(error.contains("pairs.csv: not a PyTorch file"), "{error}");

    let error = refused(2, dir.path(), &[&both[..], &["--weights", "1"]].concat());
    assert!(error.contains("1 numbers for 2 adapters"), "{error}");
    let error = refused(2, dir.path(), &[&both[..], &["--method", "tie"]].concat());
    assert!(error.contains("did you mean \"ties\"?"), "{error}");
    let error = refused(3, dir.path(), &[&both[..], &["--method", "ties"]].concat());
    assert!(error.contains("needs a density"), "{error}");
}

#[test]
fn an_adapter_of_mlx_becomes_one_of_peft() {
    use safetensors::tensor::{Dtype, TensorView};

    let dir = tempfile::tempdir().expect("a folder");
    let mlx = dir.path().join("mlx");
    fs::create_dir(&mlx).expect("made");
    let config = json!({"lora_parameters": {"rank": 2, "scale": 20.0}});
    fs::write(mlx.join("adapter_config.json"), config.to_string()).expect("written");
    let numbers: Vec<u8> = (0..12).flat_map(|n| (n as f32).to_le_bytes()).collect();
    let layer = "model.layers.0.self_attn.q_proj";
    let view = |shape: [usize; 2]| {
        TensorView::new(Dtype::F32, shape.to_vec(), &numbers).expect("a tensor")
    };
    let tensors = [
        (format!("{layer}.lora_a"), view([6, 2])),
        (format!("{layer}.lora_b"), view([2, 6])),
    ];
    let bytes = safetensors::serialize(tensors, None).expect("a file");
    fs::write(mlx.join("adapters.safetensors"), bytes).expect("written");

    lines(dir.path(), &["convert", "mlx", "--output", "peft"]);
    let read = |name: &str| fs::read(dir.path().join("peft").join(name)).expect("written");
    let config: Value = serde_json::from_slice(&read("adapter_config.json")).expect("JSON");
    assert_eq!(
        (&config["r"], &config["lora_alpha"]),
        (&json!(2), &json!(40))
    );
    let file = read("adapter_model.safetensors");
    let file = safetensors::SafeTensors::deserialize(&file).expect("tensors");
    let a = format!("base_model.model.{layer}.lora_A.weight");
    assert_eq!(file.tensor(&a).expect("the factor").shape(), [2, 6]);
}

#[test]
fn the_doctor_tells_what_works_and_makes_ready() {
    let (dir, model) = setup();
    let found = object(dir.path(), &["doctor"]);
    let flex = found["backends"].as_array().expect("backends").iter();
    let mut flex = flex.filter(|backend| backend["name"] == "flex");
    let state = &flex.next().expect("it is built")["state"];
    assert_eq!(state["dtypes"], json!(["f32", "bf16", "f16"]));
    assert_eq!(found["warm"], Value::Null);

    let small = ["--max-seq-len", "16", "--batch-size", "2", "--rank", "4"];
    let warm = [&["doctor", "--warm", &model[6..]], &small[..]].concat();
    let found = object(dir.path(), &warm);
    let seconds = found["warm"]["step_seconds"].as_array().expect("steps");
    assert!(seconds.len() == 2 && seconds.iter().all(|step| step.as_f64() > Some(0.0)));

    let error = refused(3, dir.path(), &["doctor", "--warm", "nowhere/at/all"]);
    assert!(error.contains("nowhere"), "{error}");
    let long = ["doctor", "--warm", &model[6..], "--max-seq-len", "100000"];
    let error = refused(2, dir.path(), &long);
    assert!(error.contains("100000"), "{error}");
}

#[test]
fn shells_are_told_how_to_complete() {
    let (dir, _) = setup();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            lines(dir.path(), &["completions", shell]).contains("inspect"),
            "{shell}"
        );
    }
}
