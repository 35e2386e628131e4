//! Decoders with a head for labels, over the weights of the language models.

use std::fs;

use burn_lora::transformer::DecoderClassifier;
use burn_lora_tests::{Golden, assert_close, floats, on_each_device};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use crate::common::LOGITS;

/// The case's model with the head of its reference in the place of its own, as a folder.
fn with_labels(golden: &Golden) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let bytes = fs::read(golden.model_folder().join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let head = golden.floats("sequence.weight");
    let shape = golden.shape("sequence.weight");
    let labels = shape[0];
    let head = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(&head)).unwrap();
    let weights = file
        .tensors()
        .into_iter()
        .chain([("score.weight".into(), head)]);
    let path = folder.path().join("model.safetensors");
    safetensors::serialize_to_file(weights, None, &path).unwrap();

    let text = fs::read_to_string(golden.model_folder().join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["num_labels"] = labels.into();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

#[test]
fn logits_of_the_labels_match() {
    let mut count = 0;
    for golden in Golden::all().filter(|golden| golden.has("sequence.logits")) {
        let folder = with_labels(&golden);
        on_each_device(|device| {
            let model = DecoderClassifier::load(folder.path(), &device).unwrap();
            assert!(model.fresh().is_empty(), "{}", golden.name);
            let lengths: Vec<usize> = golden
                .examples()
                .iter()
                .map(|row| row.ids().len())
                .collect();
            let actual = model.forward(golden.input_ids(&device), &lengths);
            let expected = golden.floats("sequence.logits");
            assert_close(golden.name, &floats(actual), &expected, LOGITS);
        });
        count += 1;
    }
    assert!(count >= 10, "{count} cases have labels");
}
