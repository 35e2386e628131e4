//! The bare model, from checkpoints of every layout.

use std::collections::BTreeSet;
use std::fs;

use burn::tensor::DType;
use burn_lora::transformer::{Decoder, LoadOptions};
use burn_lora_tests::{Golden, assert_close, assert_same, floats, on_each_device};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use crate::common::{LOGITS, LOSS, logits, loss, on_each_case};

#[test]
fn the_batch_pads_as_transformers_does() {
    for golden in Golden::all() {
        let ids: Vec<i64> = golden.batch().ids.into_iter().map(i64::from).collect();
        assert_eq!(ids, golden.ints("input_ids"), "{}", golden.name);
    }
}

#[test]
fn logits_of_the_base_match() {
    on_each_case(|golden, device| {
        let expected = golden.at_tokens(&golden.floats("base.logits"));
        let actual = logits(golden, &golden.base(&device), &device);
        assert_close(golden.name, &actual, &expected, LOGITS);
    });
}

#[test]
fn logits_of_every_variant_match() {
    let mut count = 0;
    for golden in Golden::all() {
        for (name, config) in golden.variants() {
            let folder = tempfile::tempdir().unwrap();
            for entry in fs::read_dir(golden.model_folder()).unwrap() {
                let path = entry.unwrap().path();
                fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
            }
            fs::copy(config, folder.path().join("config.json")).unwrap();
            let expected = golden.at_tokens(&golden.floats(&format!("variant.{name}.logits")));
            on_each_device(|device| {
                let options = LoadOptions::new(DType::F32, device.clone());
                let model = Decoder::load(folder.path(), &options).unwrap();
                let actual = logits(&golden, &model, &device);
                let what = format!("{}, {name}", golden.name);
                assert_close(&what, &actual, &expected, LOGITS);
            });
            count += 1;
        }
    }
    assert!(count > 0, "no variant was found");
}

#[test]
fn loss_of_the_base_matches() {
    on_each_case(|golden, device| {
        let actual = floats(loss(golden, &golden.base(&device), &device));
        assert_close(golden.name, &actual, &golden.floats("base.loss"), LOSS);
    });
}

#[test]
fn the_checkpoint_of_the_tied_llama_is_sharded_bf16() {
    let folder = Golden::open("llama_tied").model_folder();
    let index = fs::read_to_string(folder.join("model.safetensors.index.json")).unwrap();
    let index: Value = serde_json::from_str(&index).unwrap();
    let shards: BTreeSet<_> = index["weight_map"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(Value::as_str)
        .collect();
    assert!(
        shards.len() > 1,
        "what the other tests take for a sharded checkpoint has one file"
    );
    assert!(!folder.join("model.safetensors").exists());
    let bytes = fs::read(folder.join("model-00001-of-00003.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert!(file.iter().all(|(_, view)| view.dtype() == Dtype::BF16));
}

#[test]
fn a_gpt2_checkpoint_as_published_matches() {
    // The published files leave `transformer.` out of the names and hold the causal masks as tensors.
    let golden = Golden::open("gpt2");
    let bytes = fs::read(golden.model_folder().join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mask = vec![0_u8; 4 * 40 * 40];
    let masks = (0..2).map(|layer| {
        let view = TensorView::new(Dtype::F32, vec![1, 1, 40, 40], &mask).unwrap();
        (format!("h.{layer}.attn.bias"), view)
    });
    let weights = file.tensors().into_iter().map(|(name, view)| {
        let name = name.strip_prefix("transformer.").unwrap().to_string();
        (name, view)
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    safetensors::serialize_to_file(weights.chain(masks), None, &path).unwrap();
    let config = "config.json";
    fs::copy(
        golden.model_folder().join(config),
        folder.path().join(config),
    )
    .unwrap();

    on_each_device(|device| {
        let options = LoadOptions::new(DType::F32, device.clone());
        let model = Decoder::load(folder.path(), &options).unwrap();
        let expected = golden.at_tokens(&golden.floats("base.logits"));
        assert_close("gpt2", &logits(&golden, &model, &device), &expected, LOGITS);
    });
}

#[test]
fn a_decoder_saved_here_loads_with_the_same_logits() {
    on_each_case(|golden, device| {
        let model = golden.base(&device);
        let folder = tempfile::tempdir().unwrap();
        model.save(folder.path(), DType::F32).unwrap();
        let options = LoadOptions::new(DType::F32, device.clone());
        let again = Decoder::load(folder.path(), &options).unwrap();
        let (expected, actual) = (
            logits(golden, &model, &device),
            logits(golden, &again, &device),
        );
        assert_same(golden.name, &actual, &expected);
    });
}
