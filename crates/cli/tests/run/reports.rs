use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::{lines, object, refused, setup};

/// A run of six steps with a validation after each third.
fn trained(dir: &Path, model: &str) -> Value {
    fs::write(
        dir.join("run.yaml"),
        "data: {path: pairs.csv}\ntraining: {steps: 6, eval_every: 3, batch_size: 2, max_seq_len: 32}\nevaluation: {rows: 3}\n",
    )
    .expect("written");
    object(dir, &["train", "run.yaml", model, "rank=4"])
}

#[test]
fn a_run_leaves_its_facts_and_a_page() {
    let (dir, model) = setup();
    let result = trained(dir.path(), &model);
    let output = dir.path().join("output");
    let text = fs::read_to_string(output.join("logs/facts.jsonl")).expect("facts");
    let facts: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let of = |kind: &str| {
        facts
            .iter()
            .filter(|fact| fact["kind"] == kind)
            .collect::<Vec<_>>()
    };
    let steps: Vec<u64> = of("train")
        .iter()
        .filter_map(|fact| fact["step"].as_u64())
        .collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
    for fact in of("train") {
        for name in [
            "loss",
            "learning_rate",
            "gradient_norm",
            "tokens_per_second",
            "perplexity",
        ] {
            assert!(fact["metrics"][name].as_f64() > Some(0.0), "{name}: {fact}");
        }
        #[cfg(target_os = "linux")]
        assert!(fact["metrics"]["memory_mib"].as_f64() > Some(1.0), "{fact}");
        assert!(fact["seconds_left"].is_number(), "{fact}");
    }
    let valid = of("valid");
    let steps: Vec<u64> = valid
        .iter()
        .filter_map(|fact| fact["step"].as_u64())
        .collect();
    assert_eq!(steps, [3, 6]);
    assert_eq!(valid[1]["metrics"]["loss"], result["valid_loss"]);

    let events = fs::read_dir(output.join("logs/tensorboard")).expect("events");
    assert_eq!(events.count(), 1);
    let page = fs::read_to_string(output.join("report.html")).expect("a page");
    for part in [
        "aria-label=\"loss\"",
        "aria-label=\"gradient norm\"",
        "<h2>Samples</h2>",
        "model.layers.0.self_attn.q_proj",
        "pairs.csv",
    ] {
        assert!(page.contains(part), "{part}");
    }
    // The page is in no browser here, so that its tags are counted.
    for tag in ["table", "svg", "pre", "figure", "h2", "body"] {
        let count = |text: &str| page.matches(text).count();
        let (open, close) = (
            count(&format!("<{tag}>")) + count(&format!("<{tag} ")),
            count(&format!("</{tag}>")),
        );
        assert_eq!(open, close, "{tag}");
    }
    browser(&output.join("report.html"));
}

#[test]
fn prompts_are_completed_after_each_validation() {
    let (dir, model) = setup();
    let run = [
        "train",
        "run.yaml",
        &model,
        "rank=4",
        "evaluation.samples=2",
    ];
    let bare = trained(dir.path(), &model);
    let adapter = |_: ()| fs::read(dir.path().join("output/adapter/adapter_model.safetensors"));
    let without = adapter(()).expect("an adapter");
    let result = object(dir.path(), &run);
    // To look changes nothing.
    assert_eq!(result["valid_loss"], bare["valid_loss"]);
    assert_eq!(adapter(()).expect("an adapter"), without);

    let text = fs::read_to_string(dir.path().join("output/logs/samples.jsonl")).expect("samples");
    let samples: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let steps: Vec<&Value> = samples.iter().map(|sample| &sample["step"]).collect();
    assert_eq!(steps, [3, 3, 6, 6]);
    assert_eq!(samples[0]["prompt"], samples[2]["prompt"]);
    for sample in &samples {
        let prompt = sample["prompt"].as_str().expect("a text");
        assert!(prompt.starts_with("ship "), "{sample}");
        assert!(sample["generated"].is_string(), "{sample}");
    }
    let page = fs::read_to_string(dir.path().join("output/report.html")).expect("a page");
    assert!(page.contains("<h2>Samples on the way</h2>"));

    let texts = [&run[..], &["data.path=book.txt"]].concat();
    let error = refused(2, dir.path(), &texts);
    assert!(
        error.contains("no row to validate with has a prompt"),
        "{error}"
    );
}

/// Where there is a Chromium, the page is what it makes of it.
#[allow(clippy::print_stderr, reason = "says that nothing was looked at")]
fn browser(page: &Path) {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|program| program.is_file());
    let Some(program) = found else {
        eprintln!("no Chromium here: the page was not opened");
        return;
    };
    let home = tempfile::tempdir().expect("a folder");
    let output = std::process::Command::new(program)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
        .arg(format!("--user-data-dir={}", home.path().display()))
        .arg(format!("file://{}", page.display()))
        .env("HOME", home.path())
        .output()
        .expect("started");
    let dom = String::from_utf8_lossy(&output.stdout);
    assert!(
        dom.contains("</html>"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(dom.contains("<polyline class=\"s0\""), "a curve");
    assert!(!dom.contains("<script"), "no script");
    assert!(dom.contains("<h2>Configuration</h2>"));
    // What the parser had to repair would stand elsewhere.
    let (data, end) = (
        dom.find("<h2>Data</h2>"),
        dom.find("<h2>Configuration</h2>"),
    );
    assert!(data.is_some() && data < end);
}

#[test]
fn a_checkpoint_is_shown_by_its_headers() {
    let (dir, model) = setup();
    let base = &model[6..];
    let shown = lines(dir.path(), &["inspect", base]);
    for part in [
        "model       ",
        "parameters  820,352 in ",
        "  attention ",
        "  inner layers ",
        "dtype       ",
        "file        model.safetensors, ",
        "tokenizer   ",
        "chat        it has no chat template",
        "fits        every tensor",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let found = object(dir.path(), &["inspect", base]);
    assert_eq!(
        (&found["kind"], &found["fits"]),
        (&"checkpoint".into(), &true.into())
    );
    let modules = found["modules"].as_array().expect("kinds");
    let sum: u64 = modules
        .iter()
        .filter_map(|kind| kind["parameters"].as_u64())
        .sum();
    assert_eq!(found["parameters"], sum);

    // Another number of blocks than the weights have.
    let broken = dir.path().join("broken");
    fs::create_dir(&broken).expect("made");
    let config = fs::read_to_string(Path::new(base).join("config.json")).expect("read");
    let mut config: Value = serde_json::from_str(&config).expect("JSON");
    let blocks = config["num_hidden_layers"].as_u64().expect("a number");
    config["num_hidden_layers"] = (blocks + 1).into();
    fs::write(broken.join("config.json"), config.to_string()).expect("written");
    fs::copy(
        Path::new(base).join("model.safetensors"),
        broken.join("model.safetensors"),
    )
    .expect("copied");
    let found = object(dir.path(), &["inspect", "broken"]);
    assert_eq!(found["fits"], false);
    let missing = found["missing"].as_array().expect("names");
    let next = format!("model.layers.{blocks}.self_attn.q_proj.weight");
    assert!(missing.iter().any(|name| *name == *next), "{missing:?}");
    assert!(found["tokenizer"]["fault"].is_string());
}

#[test]
fn an_adapter_is_shown_by_its_folder() {
    let (dir, model) = setup();
    trained(dir.path(), &model);
    let shown = lines(dir.path(), &["inspect", "output/adapter"]);
    for part in [
        "method      lora (LORA)",
        "rank        4, alpha 16",
        "model.layers.0.self_attn.q_proj",
        "faults      none found",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let found = object(dir.path(), &["inspect", "output/adapter"]);
    let layers = found["layers"].as_array().expect("layers");
    assert!(
        layers
            .iter()
            .all(|layer| layer["norm"].as_f64() > Some(0.0)),
        "{found}"
    );
    // The page has the same norms, computed of the model.
    let page = fs::read_to_string(dir.path().join("output/report.html")).expect("a page");
    let norm = layers[0]["norm"].as_f64().expect("a number");
    let digits = format!("{norm:.10}");
    let shown = digits.trim_start_matches("0.").trim_start_matches('0');
    assert!(page.contains(&shown[..3]), "{norm}");

    // Another rank than the tensors have.
    let config = dir.path().join("output/adapter/adapter_config.json");
    let text = fs::read_to_string(&config).expect("read");
    let text = text.replace("\"r\": 4", "\"r\": 3");
    fs::write(&config, text).expect("written");
    let found = object(dir.path(), &["inspect", "output/adapter"]);
    let faults = found["faults"].as_array().expect("faults");
    assert_eq!(faults.len(), layers.len(), "{found}");
    assert!(
        faults[0]
            .as_str()
            .is_some_and(|fault| fault.contains("rank 4, the configuration says 3")),
        "{faults:?}"
    );
}

#[test]
fn every_command_answers_with_one_object() {
    let (dir, model) = setup();
    for arguments in [
        &["completions", "bash"][..],
        &["recipes"],
        &["recipes", "print", "chat"],
        &["doctor"],
    ] {
        let found = object(dir.path(), arguments);
        assert!(found.is_object(), "{arguments:?}");
    }
    let found = object(dir.path(), &["doctor"]);
    #[cfg(target_os = "linux")]
    assert!(
        found["memory"]["available_bytes"].as_u64() > Some(0),
        "{found}"
    );
    assert_eq!(found["backends"][0]["name"], "flex");

    // A conversation: the words grow beside the object.
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_burn-lora"))
        .args([
            "generate",
            "--model",
            &model[6..],
            "--chat",
            "--chat-template",
            "chatml",
        ])
        .args(["--max-new-tokens", "4", "--system", "Be brief.", "--json"])
        .env("BURN_DEVICE", "flex")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("started");
    let mut input = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut input, b"two ships\n\n").expect("written");
    drop(input);
    let output = child.wait_with_output().expect("ended");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let found: Value = serde_json::from_slice(&output.stdout).expect("one object");
    let roles: Vec<&str> = found["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .filter_map(|message| message["role"].as_str())
        .collect();
    assert_eq!(roles, ["system", "user", "assistant"]);
}
