//! Adapter folders in both directions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::DType;
use burn_lora::adapter::{DEFAULT_NAME, peft, peft::PeftMetadata};
use burn_lora::transformer::DecoderConfig;
use burn_lora_tests::{Golden, assert_same, floats};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use crate::common::{on_each_case, optimized};

#[test]
fn a_peft_folder_read_and_written_again_holds_the_same() {
    on_each_case(|golden, device| {
        let theirs = golden.adapter_folder();
        let (model, config) = peft::load(golden.base(&device), DEFAULT_NAME, &theirs).unwrap();
        let ours = tempfile::tempdir().unwrap();
        let read = peft::read_config(&theirs).unwrap();
        let metadata = PeftMetadata {
            base_model_name_or_path: read.base_model_name_or_path,
            task_type: read.task_type,
            fan_in_fan_out: read.fan_in_fan_out,
            other: read.other,
        };
        peft::save(&model, DEFAULT_NAME, &config, &metadata, ours.path()).unwrap();

        let (theirs, ours) = (theirs.as_path(), ours.path());
        let [expected, actual] = [theirs, ours].map(|folder| {
            let bytes = fs::read(folder.join(peft::WEIGHTS_FILE)).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let tensors = file.tensors().into_iter();
            let tensors =
                tensors.map(|(key, view)| (key, (view.shape().to_vec(), view.data().to_vec())));
            tensors.collect::<BTreeMap<_, _>>()
        });
        assert!(expected == actual, "{}: tensors", golden.name);
        let [expected, actual] = [theirs, ours].map(|folder| {
            let text = fs::read_to_string(folder.join(peft::CONFIG_FILE)).unwrap();
            serde_json::from_str::<BTreeMap<String, Value>>(&text).unwrap()
        });
        for (field, value) in &expected {
            let same = actual.get(field).is_some_and(|ours| equal(ours, value));
            assert!(
                same,
                "{}: {field} was {value}, now {:?}",
                golden.name,
                actual.get(field)
            );
        }
    });
}

#[test]
fn default_targets_are_those_of_peft() {
    for golden in Golden::all().filter(|golden| golden.has("sequence.logits")) {
        let config = DecoderConfig::read(&golden.model_folder()).unwrap();
        let theirs = peft::read_config(&golden.adapter_folder()).unwrap();
        let ours = peft::TargetModules::Names(
            config
                .default_targets()
                .iter()
                .map(|name| name.to_string())
                .collect(),
        );
        assert_eq!(theirs.target_modules, Some(ours), "{}", golden.name);
    }
}

/// JSON equality that takes 2.0 for 2, as Python does.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, left)| right.get(key).is_some_and(|right| equal(left, right)))
        }
        _ => left == right,
    }
}

/// Writes what `golden/generate.py --check DIR` compares with PEFT and Transformers, into the folder that `BURN_LORA_EXPORT` names.
#[test]
fn exports_for_the_check_by_peft() {
    let root = std::env::var_os("BURN_LORA_EXPORT").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).join("export"),
        PathBuf::from,
    );
    on_each_case(|golden, device| {
        let folder = root.join(golden.name);
        let adapter = folder.join("adapter");
        let (model, _) = optimized(golden, &device.clone().autodiff());
        let model = model.into_inner().valid();
        let config = peft::load(golden.base(&device), DEFAULT_NAME, &golden.adapter_folder())
            .unwrap()
            .1;
        let metadata = PeftMetadata {
            base_model_name_or_path: Some(golden.model_folder().display().to_string()),
            fan_in_fan_out: golden.name == "gpt2",
            ..PeftMetadata::default()
        };
        peft::save(&model, DEFAULT_NAME, &config, &metadata, &adapter).unwrap();

        let base = golden.base(&device);
        base.save(&folder.join("model"), DType::F32).unwrap();

        let logits = model.logits(golden.input_ids(&device));
        let shape = logits.dims().to_vec();
        let written = floats(logits);
        let view = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(&written)).unwrap();
        let path = folder.join("logits.safetensors");
        safetensors::serialize_to_file([("logits", view)], None, &path).unwrap();

        let (reloaded, again) = peft::load(golden.base(&device), DEFAULT_NAME, &adapter).unwrap();
        assert_eq!(again, config, "{}", golden.name);
        let reloaded = floats(reloaded.logits(golden.input_ids(&device)));
        assert_same(golden.name, &reloaded, &written);
    });
}
