//! PEFT folders: what a reader of any age and a writer without a module keep.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use burn::tensor::Device;
use burn_lora_adapter::{
    AdapterError, DEFAULT_NAME, FactorSet, LoraConfig, LoraInit, Targets, TensorFault, attach,
    peft, peft::PeftMetadata,
};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};

use common::{Golden, LAYERS};

fn config() -> LoraConfig {
    LoraConfig::new(2, 4.0)
        .with_targets(Targets::names(LAYERS))
        .with_init(LoraInit::Random)
}

fn fields(folder: &std::path::Path) -> Map<String, Value> {
    let text = fs::read_to_string(folder.join(peft::CONFIG_FILE)).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn fields_of_a_newer_version_survive_a_round_trip() {
    let golden = Golden::read();
    let device = Device::flex();
    let model = attach(golden.model(&device), DEFAULT_NAME, &config()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    peft::save(
        &model,
        DEFAULT_NAME,
        &config(),
        &PeftMetadata::default(),
        folder.path(),
    )
    .unwrap();
    let mut newer = fields(folder.path());
    newer.insert("peft_version".into(), json!("0.99.0"));
    newer.insert(
        "a_field_of_tomorrow".into(),
        json!({"depth": [1, {"of": null}]}),
    );
    let text = serde_json::to_string(&newer).unwrap();
    fs::write(folder.path().join(peft::CONFIG_FILE), text).unwrap();

    let (loaded, read) = peft::load(golden.model(&device), DEFAULT_NAME, folder.path()).unwrap();
    let peft_config = peft::read_config(folder.path()).unwrap();
    let metadata = PeftMetadata {
        task_type: peft_config.task_type,
        other: peft_config.other,
        ..PeftMetadata::default()
    };
    let again = tempfile::tempdir().unwrap();
    peft::save(&loaded, DEFAULT_NAME, &read, &metadata, again.path()).unwrap();
    assert_eq!(fields(again.path()), newer);
    // And by the numbers alone.
    let set = FactorSet::load(folder.path()).unwrap();
    set.save(again.path(), &metadata, None).unwrap();
    assert_eq!(
        fields(again.path())["a_field_of_tomorrow"],
        newer["a_field_of_tomorrow"]
    );
}

#[test]
fn an_adapter_without_a_module_has_a_card_too_and_keeps_an_old_one() {
    let golden = Golden::read();
    let model = attach(golden.model(&Device::flex()), DEFAULT_NAME, &config()).unwrap();
    let set = FactorSet::of(&model, DEFAULT_NAME).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let metadata = PeftMetadata {
        base_model_name_or_path: Some("org/base".into()),
        ..PeftMetadata::default()
    };
    set.save(folder.path(), &metadata, None).unwrap();
    let card = folder.path().join(peft::CARD_FILE);
    let fresh = fs::read_to_string(&card).unwrap();
    assert!(
        fresh.contains("base_model: org/base") && fresh.contains("- lora"),
        "{fresh}"
    );
    fs::write(&card, "---\nlicense: mit\n---\n# Mine\n").unwrap();
    set.save(folder.path(), &metadata, None).unwrap();
    let kept = fs::read_to_string(&card).unwrap();
    assert!(
        kept.contains("license: mit") && kept.ends_with("---\n# Mine\n"),
        "{kept}"
    );
    assert!(kept.contains("library_name: peft"), "{kept}");
}

#[test]
fn every_fault_of_a_configuration_comes_in_one_error() {
    let golden = Golden::read();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let text = json!({
        "peft_type": "LORA",
        "target_modules": ["first"],
        "r": "eight",
        "bias": "some",
        "rank_pattern": {"first": -1},
        "init_lora_weights": 3,
    });
    fs::write(folder.path().join(peft::CONFIG_FILE), text.to_string()).unwrap();
    let load = || peft::load(golden.model(&device), DEFAULT_NAME, folder.path());
    let error = load().unwrap_err().to_string();
    for fault in [
        "r is \"eight\", not a whole number",
        "bias is \"some\", not none, all or lora_only",
        "rank_pattern has -1 for \"first\"",
        "init_lora_weights is 3, not true, false or a word",
    ] {
        assert!(error.contains(fault), "{fault}: {error}");
    }
    fs::write(folder.path().join(peft::CONFIG_FILE), "{\"peft_type\"").unwrap();
    assert!(
        load()
            .unwrap_err()
            .to_string()
            .contains("not a PEFT configuration")
    );
    let ranks = json!({
        "peft_type": "LORA", "target_modules": ["first", "second"], "r": 99, "rank_pattern": {"second": 0},
    });
    fs::write(folder.path().join(peft::CONFIG_FILE), ranks.to_string()).unwrap();
    let error = load().unwrap_err().to_string();
    assert!(error.contains("gives \"second\" the rank 0"), "{error}");
    let ranks = json!({"peft_type": "LORA", "target_modules": ["first", "second"], "r": 99});
    fs::write(folder.path().join(peft::CONFIG_FILE), ranks.to_string()).unwrap();
    // The file of weights is not there, either.
    let Err(AdapterError::Several { errors }) = load() else {
        panic!("it was loaded");
    };
    let [AdapterError::Config { faults }, AdapterError::Io { .. }] = errors.as_slice() else {
        panic!("{errors:?}");
    };
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].contains("rank 99 exceeds 10"), "{faults:?}");
}

#[test]
fn biases_that_peft_writes_without_need_are_passed_over_and_others_are_not() {
    let golden = Golden::read();
    let device = Device::flex();
    let config = LoraConfig::new(2, 4.0)
        .with_targets(Targets::names(["first"]))
        .with_modules_to_save(["second"])
        .with_trained_biases(burn_lora_adapter::TrainedBiases::All);
    let model = attach(golden.model(&device), DEFAULT_NAME, &config).unwrap();
    let folder = tempfile::tempdir().unwrap();
    peft::save(
        &model,
        DEFAULT_NAME,
        &config,
        &PeftMetadata::default(),
        folder.path(),
    )
    .unwrap();
    let path = folder.path().join(peft::WEIGHTS_FILE);
    let bytes = fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let zeros = vec![0u8; 4 * 9];
    let with = |more: &[&str]| {
        let view = || TensorView::new(Dtype::F32, vec![9], &zeros).unwrap();
        let more = more
            .iter()
            .map(|key| (format!("base_model.model.{key}"), view()));
        let all: Vec<_> = file
            .iter()
            .map(|(key, view)| (key.to_string(), view))
            .chain(more)
            .collect();
        safetensors::serialize_to_file(all, None, &path).unwrap();
        peft::load(golden.model(&device), DEFAULT_NAME, folder.path())
    };
    // What PEFT 0.21 writes of both copies of a module that is saved as a whole.
    assert!(with(&["second.original_module.bias", "second.modules_to_save.bias"]).is_ok());
    let Err(AdapterError::Tensors { faults, .. }) = with(&["third.bias", "second.lora_B.bias"])
    else {
        panic!("it was loaded");
    };
    let unexpected = |fault: &TensorFault| matches!(fault, TensorFault::Unexpected { .. });
    assert!(
        faults.len() == 2 && faults.iter().all(unexpected),
        "{faults:?}"
    );
}

#[test]
fn faults_of_the_configuration_and_of_the_tensors_come_in_one_error() {
    let golden = Golden::read();
    let device = Device::flex();
    let model = attach(golden.model(&device), DEFAULT_NAME, &config()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let metadata = PeftMetadata::default();
    peft::save(&model, DEFAULT_NAME, &config(), &metadata, folder.path()).unwrap();
    let good = fields(folder.path());

    // One factor is not finite, one of another base's width, one of a layer that is not there.
    let path = folder.path().join(peft::WEIGHTS_FILE);
    let bytes = fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let nan = [f32::NAN.to_le_bytes(); 2 * 10].concat();
    let wide = [0u8; 4 * 7 * 2];
    let view = |shape: Vec<usize>, bytes| TensorView::new(Dtype::F32, shape, bytes).unwrap();
    let key = |key: &str| format!("base_model.model.{key}");
    let changed = [
        (key("first.lora_A.weight"), view(vec![2, 10], &nan)),
        (key("second.lora_B.weight"), view(vec![7, 2], &wide)),
        (key("secand.lora_A.weight"), view(vec![7, 2], &wide)),
    ];
    let kept = file.iter().map(|(key, view)| (key.to_string(), view));
    let kept: Vec<_> = kept
        .filter(|(key, _)| changed.iter().all(|(new, _)| new != key))
        .chain(
            changed
                .iter()
                .map(|(key, view)| (key.clone(), view.clone())),
        )
        .collect();
    safetensors::serialize_to_file(kept, None, &path).unwrap();
    let of_tensors = [
        "first.lora_A.weight holds NaN or infinity",
        "second.lora_B.weight has the shape [7, 2]",
        "unexpected base_model.model.secand.lora_A.weight [7, 2] (nearest: ",
    ];

    let refuse = |changes: Value, of_configuration: &[&str]| {
        let mut map = good.clone();
        map.extend(changes.as_object().unwrap().clone());
        let text = serde_json::to_string(&map).unwrap();
        fs::write(folder.path().join(peft::CONFIG_FILE), text).unwrap();
        let loaded = peft::load(golden.model(&device), DEFAULT_NAME, folder.path());
        let swapped = peft::hot_swap(model.clone(), DEFAULT_NAME, folder.path());
        for error in [loaded.unwrap_err(), swapped.unwrap_err()] {
            let text = error.to_string();
            for fault in of_configuration.iter().chain(&of_tensors) {
                assert!(text.contains(fault), "{fault}: {text}");
            }
            let is_several = matches!(error, AdapterError::Several { .. });
            assert_eq!(is_several, !of_configuration.is_empty(), "{text}");
        }
    };
    refuse(json!({}), &[]);
    refuse(
        json!({
            "r": "two",
            "use_rslora": 1,
            "target_modules": ["first", "secnd"],
            "layer_replication": [[0, 1]],
        }),
        &[
            "r is \"two\"",
            "use_rslora is 1",
            "\"secnd\" (did you mean \"second\"?)",
            "layer_replication [[0,1]]",
        ],
    );
    refuse(
        json!({"r": 0, "lora_dropout": 2.0, "target_modules": ["first", "secnd"]}),
        &["rank (r) is 0", "dropout (lora_dropout) is 2", "\"secnd\""],
    );
    refuse(json!({"r": 99}), &["rank 99 exceeds"]);
    // A name that is taken and a folder that is wrong.
    let error = peft::load(model.clone(), DEFAULT_NAME, folder.path()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("is attached already") && text.contains("rank 99 exceeds"),
        "{text}"
    );
    // By the numbers alone, where no model says which layers there are.
    let text = FactorSet::load(folder.path()).unwrap_err().to_string();
    assert!(text.contains(of_tensors[0]), "{text}");
}

#[test]
fn an_expression_in_some_layers_is_written_as_paths_which_peft_reads() {
    use burn::module::Module;
    use burn::nn::{Linear, LinearConfig};
    #[derive(Module, Debug)]
    struct Layers {
        layers: Vec<Linear>,
    }
    let device = Device::flex();
    let base = || Layers {
        layers: (0..3)
            .map(|_| LinearConfig::new(4, 4).init(&device))
            .collect(),
    };
    let config = LoraConfig {
        layers_to_transform: Some(vec![0, 2]),
        ..LoraConfig::new(2, 4.0).with_targets(Targets::Regex(r"layers\.\d".into()))
    };
    let model = attach(base(), DEFAULT_NAME, &config).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let metadata = PeftMetadata::default();
    peft::save(&model, DEFAULT_NAME, &config, &metadata, folder.path()).unwrap();
    // PEFT: "`layers_to_transform` cannot be used when `target_modules` is a str."
    let written = fields(folder.path());
    assert_eq!(written["target_modules"], json!(["layers.0", "layers.2"]));
    assert_eq!(written["layers_to_transform"], json!([0, 2]));
    assert!(peft::load(base(), DEFAULT_NAME, folder.path()).is_ok());
}

/// The shapes that PEFT 0.21.2 gives `Conv2d(4, 6, 1)`, whatever `use_effective_conv2d` says.
#[test]
fn a_kernel_of_1_has_no_core() {
    use burn::module::Module;
    use burn::nn::conv::{Conv2d, Conv2dConfig};
    use burn_lora_adapter::{LoHaConfig, LoKrConfig, MethodConfig};
    #[derive(Module, Debug)]
    struct One {
        one: Conv2d,
    }
    let device = Device::flex();
    let loha = MethodConfig::LoHa(LoHaConfig {
        use_effective_conv2d: true,
        ..LoHaConfig::default()
    });
    let lokr = MethodConfig::LoKr(LoKrConfig {
        use_effective_conv2d: true,
        ..LoKrConfig::default()
    });
    for (method, rank, expected) in [
        (
            loha,
            2,
            vec![
                ("hada_w1_a", vec![6, 2]),
                ("hada_w1_b", vec![2, 4]),
                ("hada_w2_a", vec![6, 2]),
                ("hada_w2_b", vec![2, 4]),
            ],
        ),
        (
            lokr,
            1,
            vec![
                ("lokr_w1", vec![2, 2]),
                ("lokr_w2_a", vec![3, 1]),
                ("lokr_w2_b", vec![1, 2]),
            ],
        ),
    ] {
        let one = Conv2dConfig::new([4, 6], [1, 1]).init(&device);
        let config = LoraConfig::new(rank, 4.0)
            .with_method(method)
            .with_targets(Targets::names(["one"]));
        let model = attach(One { one }, DEFAULT_NAME, &config).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let metadata = PeftMetadata::default();
        peft::save(&model, DEFAULT_NAME, &config, &metadata, folder.path()).unwrap();
        let bytes = fs::read(folder.path().join(peft::WEIGHTS_FILE)).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut found: Vec<(String, Vec<usize>)> = file
            .iter()
            .map(|(key, view)| (key.to_string(), view.shape().to_vec()))
            .collect();
        found.sort();
        let expected: Vec<(String, Vec<usize>)> = expected
            .into_iter()
            .map(|(name, shape)| (format!("base_model.model.one.{name}"), shape))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(fields(folder.path())["use_effective_conv2d"], json!(true));
    }
}
