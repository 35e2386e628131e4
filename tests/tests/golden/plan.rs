//! What is planned from `config.json` alone, beside the models and the adapters that are there.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{DType, Device};
use burn_lora::adapter::{
    DEFAULT_NAME, LoraConfig, MethodConfig, Targets, attach, outline, peft, peft::PeftMetadata,
    summary,
};
use burn_lora::train::Planner;
use burn_lora::transformer::{
    Decoder, LoadOptions, MaskedLm, ModelConfig, MultipleChoice, SequenceClassifier, T5,
    TokenClassifier,
};
use burn_lora_tests::{CASES, Golden, MethodCase, gpt2, llama, methods_for, vision};

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
    for method in methods_for(&own.config(), "head") {
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
