//! What is planned from `config.json` alone, beside the models and the adapters that are there.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{DType, Device};
use burn_lora::adapter::{
    AdapterOnly, DEFAULT_NAME, LoraConfig, MethodConfig, Targets, attach, outline, peft,
    peft::PeftMetadata, summary,
};
use burn_lora::data::{Batch, Example};
use burn_lora::kernels::adamw_together;
use burn_lora::train::{PlanOptions, Planner, TrainConfig, gradients, optimizer};
use burn_lora::transformer::{
    Decoder, DecoderConfig, LlamaConfig, LoadOptions, MaskedLm, ModelConfig, MultipleChoice,
    SequenceClassifier, T5, TokenClassifier,
};
use burn_lora_tests::{
    CASES, Golden, MethodCase, gpt2, llama, methods_for, methods_for_kernels, vision,
};

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(case)
}

/// The folder of a model as its class says: a head that the file does not name is added.
fn config(case: &str) -> ModelConfig {
    ModelConfig::read(&folder(case).join("model")).unwrap()
}

/// Counts and bytes of a plan are those of the model under its adapter.
fn check<M: Module>(name: &str, model: &M, lora: &LoraConfig, planner: &Planner) {
    let plan = planner.plan(&Default::default());
    let found = summary(model);
    assert_eq!(plan.parameters.trained, found.trainable, "{name}: trained");
    // VeRA's projections are no parameters of any layer.
    assert_eq!(plan.parameters.total, found.total, "{name}: all");
    let scratch = tempfile::tempdir().unwrap();
    let metadata = PeftMetadata::default();
    let bytes = peft::save(model, DEFAULT_NAME, lora, &metadata, scratch.path()).unwrap();
    assert_eq!(plan.adapter_bytes, bytes, "{name}: bytes");
}

/// The model under a fresh adapter like the one in the case's folder, or on all linear layers.
fn check_folder<M: Module>(name: &str, base: M) {
    let adapter = folder(name).join("adapter");
    let lora = match adapter.is_dir() {
        true => peft::load(base.clone(), DEFAULT_NAME, &adapter).unwrap().1,
        false => LoraConfig::new(4, 8.0),
    };
    let planner = Planner::new(&config(name), &lora).unwrap();
    let model = attach(base, DEFAULT_NAME, &lora).unwrap();
    check(name, &model, &lora, &planner);
}

#[test]
fn p_decoders_are_planned_exactly() {
    for name in CASES {
        check_folder(name, Golden::open(name).base(&Device::flex()));
    }
}

#[test]
fn p_encoders_are_planned_exactly() {
    let device = Device::flex();
    let mut count = 0;
    for entry in std::fs::read_dir(folder("")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let model = folder(&name).join("model");
        if !model.join("config.json").is_file() {
            continue;
        }
        let ModelConfig::Encoder(config) = config(&name) else {
            continue;
        };
        let class = ModelConfig::Encoder(config);
        let class = class.architecture().unwrap_or_default();
        if class.ends_with("ForSequenceClassification") {
            check_folder(&name, SequenceClassifier::load(&model, &device).unwrap());
        } else if class.ends_with("ForTokenClassification") {
            check_folder(&name, TokenClassifier::load(&model, &device).unwrap());
        } else if class.ends_with("ForMultipleChoice") {
            check_folder(&name, MultipleChoice::load(&model, &device).unwrap());
        } else if class.ends_with("ForMaskedLM") {
            check_folder(&name, MaskedLm::load(&model, &device).unwrap());
        } else {
            continue;
        }
        count += 1;
    }
    assert!(count >= 30, "{count} encoders");
}

#[test]
fn p_t5_is_planned_exactly() {
    let options = LoadOptions::new(DType::F32, Device::flex());
    for entry in std::fs::read_dir(folder("")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let case = folder(&name);
        let is_t5 = name.contains("t5") && case.join("adapter").is_dir();
        if is_t5 {
            check_folder(&name, T5::load(&case.join("model"), &options).unwrap());
        }
    }
}

#[test]
fn p_every_method_is_planned_exactly() {
    let device = Device::flex();
    let lora = llama(&device, DType::F32);
    for method in methods_for(&lora.config(), "down_proj") {
        let planner = Planner::new(&config("llama"), &method).unwrap();
        let name = format!("llama, {}", method.method);
        let model = attach(lora.base.clone(), DEFAULT_NAME, &method).unwrap();
        check(&name, &model, &method, &planner);
    }
    let conv1d = gpt2(&device, DType::F32);
    for method in methods_for(&conv1d.config(), "c_fc") {
        let planner = Planner::new(&config("gpt2"), &method).unwrap();
        let name = format!("gpt2, {}", method.method);
        let model = attach(conv1d.base.clone(), DEFAULT_NAME, &method).unwrap();
        check(&name, &model, &method, &planner);
    }
    // A module of the user's own, of convolutions.
    let own = vision(&device, DType::F32);
    let methods = methods_for(&own.config(), "head").into_iter();
    for method in methods.chain(methods_for_kernels(&own.config())) {
        if matches!(method.method, MethodConfig::Vera(_)) {
            continue;
        }
        let found = outline(&own.base, &method).unwrap();
        let model = attach(own.base.clone(), DEFAULT_NAME, &method).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let metadata = PeftMetadata::default();
        let bytes = peft::save(&model, DEFAULT_NAME, &method, &metadata, scratch.path()).unwrap();
        assert_eq!(found.file_bytes, bytes, "{}", method.method);
        assert_eq!(
            found.trained(),
            summary(&model).trainable,
            "{}",
            method.method
        );
    }
}

#[test]
fn p_adapters_of_peft_are_planned_exactly() {
    let device = Device::flex();
    for case in MethodCase::all().filter(|case| case.base != "vision") {
        let base = Golden::open(case.base).base(&device);
        let (_, lora) = peft::load(base.clone(), DEFAULT_NAME, &case.adapter_folder()).unwrap();
        let planner = Planner::new(&config(case.base), &lora).unwrap();
        let model = attach(base, DEFAULT_NAME, &lora).unwrap();
        check(case.name, &model, &lora, &planner);
    }
}

#[test]
fn p_whole_modules_and_faults_are_those_of_attaching() {
    let config = config("llama");
    let lora = LoraConfig::new(4, 8.0).with_modules_to_save(["lm_head"]);
    let planner = Planner::new(&config, &lora).unwrap();
    let model = attach(
        Golden::open("llama").base(&Device::flex()),
        DEFAULT_NAME,
        &lora,
    )
    .unwrap();
    check("modules_to_save", &model, &lora, &planner);

    let wrong = LoraConfig::new(4, 8.0).with_targets(Targets::names(["q_prj"]));
    let planned = Planner::new(&config, &wrong).unwrap_err().to_string();
    let base: Decoder = Golden::open("llama").base(&Device::flex());
    let attached = attach(base, DEFAULT_NAME, &wrong).unwrap_err().to_string();
    assert_eq!(planned, attached);
    assert!(planned.contains("q_proj"), "{planned}");
}

/// Tells the child to measure.
const VARIABLE: &str = "BURN_LORA_PLAN_TEST";

/// A line of `/proc/self/status`, in bytes.
#[cfg(target_os = "linux")]
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    let kilobytes = line.split_whitespace().next().unwrap();
    1024 * kilobytes.parse::<u64>().unwrap()
}

/// The memory of real steps, in a process of its own whose peak begins when the model is there. Estimates are within a
/// third of it; the longer measurements of docs/measurements.md are closer.
#[cfg(target_os = "linux")]
#[test]
fn p_memory_is_that_of_a_step() {
    let config = LlamaConfig {
        vocab_size: 2048,
        hidden_size: 256,
        intermediate_size: 768,
        num_hidden_layers: 6,
        num_attention_heads: 8,
        num_key_value_heads: 8,
        head_dim: 32,
        max_position_embeddings: 256,
        ..LlamaConfig::default()
    };
    let lora = LoraConfig::new(8, 16.0).with_targets(Targets::names(["q_proj", "v_proj"]));
    let (batch_size, seq_len) = (8, 128);
    if let Some(measured) = std::env::var_os(VARIABLE) {
        let recompute = std::env::var("BURN_LORA_PLAN_RECOMPUTE").unwrap();
        let device = Device::flex();
        let base = Decoder::init(DecoderConfig::Llama(config.clone()), &device, 1).unwrap();
        let base = base.with_recompute(recompute.parse().unwrap());
        let mut model = AdapterOnly::new(attach(base, DEFAULT_NAME, &lora).unwrap()).train();
        let row = Example::new(vec![7; seq_len], 1).unwrap();
        let batches = [Batch::new(&vec![row; batch_size], 0).to_device(&device.autodiff())];
        let mut optimizer = optimizer(&model, &TrainConfig::default());
        // Where this is refused, the peak is that of the making of the model, and the test says so.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = status("VmRSS:");
        for _ in 0..3 {
            let (grads, loss) = gradients(&model, &batches);
            model = adamw_together(|| optimizer.step(1e-4, model, grads));
            drop(loss.into_data());
        }
        let used = status("VmHWM:") - before;
        std::fs::write(measured, used.to_string()).unwrap();
        return;
    }
    let planner = Planner::new(
        &ModelConfig::Decoder(DecoderConfig::Llama(config.clone())),
        &lora,
    )
    .unwrap();
    for recompute in [0, 6] {
        let dir = tempfile::tempdir().unwrap();
        let measured = dir.path().join("bytes");
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "plan::p_memory_is_that_of_a_step"])
            .env(VARIABLE, &measured)
            .env("BURN_LORA_PLAN_RECOMPUTE", recompute.to_string())
            .output()
            .unwrap();
        assert!(
            child.status.success(),
            "{}",
            String::from_utf8_lossy(&child.stdout)
        );
        let measured: u64 = std::fs::read_to_string(&measured).unwrap().parse().unwrap();
        let memory = planner
            .plan(&PlanOptions {
                batch_size,
                seq_len,
                recompute,
                ..PlanOptions::default()
            })
            .memory;
        let planned = memory.total - memory.weights - memory.adapter;
        let ratio = planned as f64 / measured as f64;
        assert!(
            (0.67..1.33).contains(&ratio),
            "{recompute} blocks again: planned {planned}, measured {measured}, {ratio:.2}"
        );
    }
}
