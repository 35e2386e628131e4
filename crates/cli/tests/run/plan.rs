use std::fs;

use serde_json::{Value, json};

use crate::{lines, object, refused, setup};

#[test]
fn a_plan_of_a_model_is_that_of_its_run() {
    let (dir, model) = setup();
    let base = &model[6..];
    let found = object(
        dir.path(),
        &[
            "plan",
            base,
            "rank=4",
            "batch_size=2",
            "max_seq_len=32",
            "--fit",
            "1GiB",
        ],
    );
    assert_eq!(found["command"], "plan");
    let plan = &found["plan"];
    assert_eq!(plan["parameters"]["base"], 820_352);
    let parts = plan["memory"].as_object().expect("parts");
    let sum: u64 = parts
        .iter()
        .filter(|(name, _)| *name != "total")
        .filter_map(|(_, bytes)| bytes.as_u64())
        .sum();
    assert_eq!(parts["total"], sum);
    assert_eq!(parts["weights"], 820_352 * 4);
    assert!(
        found["fit"]["batch_size"].as_u64() > Some(2),
        "{}",
        found["fit"]
    );
    assert_eq!(plan["seconds"], Value::Null);

    // The adapter that is planned is the one that is written.
    fs::write(
        dir.path().join("run.yaml"),
        "data: {path: pairs.csv}\ntraining: {steps: 1, batch_size: 2, max_seq_len: 32}\nevaluation: {rows: 0}\n",
    )
    .expect("written");
    let planned = object(dir.path(), &["plan", "run.yaml", &model, "rank=4"]);
    assert_eq!(planned["plan"]["parameters"], plan["parameters"]);
    let result = object(dir.path(), &["train", "run.yaml", &model, "rank=4"]);
    let adapter = dir.path().join(result["adapter"].as_str().expect("a path"));
    let bytes = fs::metadata(adapter.join("adapter_model.safetensors"))
        .expect("written")
        .len();
    assert_eq!(planned["plan"]["adapter_bytes"], bytes);
}

#[test]
fn a_plan_for_people_has_every_part() {
    let (dir, model) = setup();
    let shown = lines(
        dir.path(),
        &[
            "plan",
            &model[6..],
            "recompute=2",
            "--tflops",
            "0.1",
            "--method",
            "dora",
            "--fit",
            "64MiB",
        ],
    );
    for part in [
        "adapter     dora on ",
        "parameters  820,352 in the base, ",
        "on disk     ",
        "memory      about ",
        "  weights      ",
        "  activations  ",
        "work        ",
        "time        at least ",
        "fits        into 64.0 MiB: ",
        "rows if all blocks are computed again",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    // A folder without weights is enough.
    let config = fs::read(std::path::Path::new(&model[6..]).join("config.json")).expect("read");
    fs::create_dir(dir.path().join("bare")).expect("made");
    fs::write(dir.path().join("bare/config.json"), config).expect("written");
    let found = object(dir.path(), &["plan", "bare"]);
    assert_eq!(found["plan"]["parameters"]["base"], 820_352);
    assert_eq!(found["checkpoint_bytes"], Value::Null);
    // And for the sizes of GPT-3 there is no folder.
    let found = object(
        dir.path(),
        &[
            "plan",
            "gpt3:175B",
            "--dtype",
            "f16",
            "targets=c_attn",
            "rank=4",
        ],
    );
    assert_eq!(
        found["plan"]["parameters"]["base"],
        json!(174_604_259_328u64)
    );
}

#[test]
fn a_measured_speed_makes_a_time() {
    let (dir, model) = setup();
    let found = object(dir.path(), &["plan", &model[6..], "--device", "flex"]);
    let rate = found["flops_per_second"].as_f64().expect("measured");
    let flops = found["plan"]["flops"]["total"].as_f64().expect("counted");
    let seconds = found["plan"]["seconds"].as_f64().expect("a time");
    assert!(rate > 1e8, "{rate}");
    assert!((seconds - flops / rate).abs() < 1e-9 * seconds);
}

#[test]
fn a_device_of_another_machine_is_planned_for() {
    let (dir, model) = setup();
    let base = &model[6..];
    let found = object(
        dir.path(),
        &["plan", base, "--device", "cuda:1", "--tflops", "100"],
    );
    let memory = &found["plan"]["memory"];
    assert!(memory["pools"].as_u64() > Some(0), "{memory}");
    assert_eq!(found["flops_per_second"], json!(1e14));
}

#[test]
fn a_plan_says_what_is_wrong() {
    let (dir, model) = setup();
    let base = &model[6..];
    let told = refused(2, dir.path(), &["plan", base, "rnk=4", "--method", "doraa"]);
    assert!(told.contains("did you mean adapter.rank?"), "{told}");
    assert!(told.contains("did you mean \"dora\"?"), "{told}");
    let told = refused(3, dir.path(), &["plan", base, "targets=q_prj"]);
    assert!(told.contains("q_proj"), "{told}");
    let told = refused(3, dir.path(), &["plan", "gpt3:174B"]);
    assert!(told.contains("175B"), "{told}");
    refused(2, dir.path(), &["plan", base, "--fit", "24 parsecs"]);
    refused(2, dir.path(), &["plan", base, "--tflops", "0"]);
    refused(6, dir.path(), &["plan", base, "--device", "abacus"]);
}
