//! Decoders with a head for labels.

use super::loading::{read, write};
use super::paths::Paths;
use super::*;
use crate::{DecoderClassifier, FolderOptions, LoadError};
use burn::module::Module;
use burn::tensor::DType;

fn classifiers() -> Vec<(&'static str, DecoderClassifier)> {
    let build = |config| DecoderClassifier::init(config, 3, &Device::flex(), 3).expect("valid");
    configs()
        .into_iter()
        .map(|(name, config)| (name, build(config)))
        .collect()
}

fn options(num_labels: Option<usize>) -> FolderOptions {
    FolderOptions {
        num_labels,
        ..FolderOptions::new(Device::flex())
    }
}

#[test]
fn padding_changes_nothing() {
    for (name, model) in classifiers() {
        let alone = model.forward(ids(&[&[7, 8, 9]]), &[3]);
        let batch = model.forward(ids(&[&[1, 2, 3, 4, 5], &[7, 8, 9, 0, 0]]), &[5, 3]);
        assert_eq!(batch.dims(), [2, 3]);
        assert_close(name, batch.narrow(0, 1, 1), alone, 1e-5);
    }
}

#[test]
fn saved_and_loaded_is_the_same() {
    for (name, model) in classifiers() {
        let dir = tempfile::tempdir().expect("a folder");
        model.save(dir.path(), DType::F32).expect("saved");
        let text = std::fs::read_to_string(dir.path().join("config.json")).expect("read");
        assert!(text.contains("ForSequenceClassification"), "{text}");
        assert!(text.contains("LABEL_2"), "{text}");
        let loaded = DecoderClassifier::load(dir.path(), &Device::flex()).expect(name);
        assert!(loaded.fresh().is_empty(), "{name}");
        let logits = |model: &DecoderClassifier| model.forward(ids(&[&[1, 2]]), &[2]);
        assert_close(name, logits(&loaded), logits(&model), 0.0);
    }
}

#[test]
fn a_language_model_gets_a_fresh_head() {
    for (name, decoder) in decoders() {
        let dir = tempfile::tempdir().expect("a folder");
        decoder.save(dir.path(), DType::F32).expect("saved");
        let model = DecoderClassifier::load_with(dir.path(), &options(Some(4))).expect(name);
        assert_eq!(model.fresh(), ["score.weight"], "{name}");
        assert_eq!(model.num_labels(), 4);
        let mut paths = Paths::default();
        model.visit(&mut paths);
        assert!(!paths.found.iter().any(|path| path.contains("lm_head")));
        assert!(paths.found.contains(&"score.weight".to_owned()), "{name}");
    }
}

#[test]
fn a_head_for_other_labels_is_mis_shaped() {
    let (_, model) = classifiers().remove(0);
    let dir = tempfile::tempdir().expect("a folder");
    model.save(dir.path(), DType::F32).expect("saved");
    let error = DecoderClassifier::load_with(dir.path(), &options(Some(5))).expect_err("refused");
    let LoadError::Mismatch { mismatch, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(mismatch.mis_shaped[0].found, [3, 16]);
    assert_eq!(mismatch.mis_shaped[0].expected, [5, 16]);
    // Half of what the configuration says is no less wrong.
    let error = DecoderClassifier::load_with(dir.path(), &options(Some(0))).expect_err("refused");
    assert!(error.to_string().contains("without labels"), "{error}");
}

#[test]
fn labels_that_contradict_each_other_are_refused() {
    let (_, model) = classifiers().remove(0);
    let dir = tempfile::tempdir().expect("a folder");
    model.save(dir.path(), DType::F32).expect("saved");
    let path = dir.path().join("config.json");
    let text = std::fs::read_to_string(&path).expect("read");
    let text = text.replacen('{', "{\"num_labels\": 7,", 1);
    std::fs::write(&path, text).expect("written");
    let error = DecoderClassifier::load(dir.path(), &Device::flex()).expect_err("refused");
    let text = error.to_string();
    assert!(
        text.contains("`num_labels` is 7, but `id2label` has 3 names"),
        "{text}"
    );
}

#[test]
fn a_missing_trunk_is_still_an_error() {
    let (_, model) = classifiers().remove(0);
    let dir = tempfile::tempdir().expect("a folder");
    model.save(dir.path(), DType::F32).expect("saved");
    let mut tensors = read(dir.path());
    tensors.remove("model.norm.weight");
    write(&dir.path().join("model.safetensors"), &tensors);
    let error = DecoderClassifier::load(dir.path(), &Device::flex()).expect_err("refused");
    assert!(
        error.to_string().contains("missing: model.norm.weight"),
        "{error}"
    );
}

#[test]
fn the_head_alone_can_be_opened() {
    let device = Device::flex().autodiff();
    let model = DecoderClassifier::init(llama(), 3, &device, 3).expect("valid");
    let logits = |model: &DecoderClassifier| model.forward(ids(&[&[1, 2]]), &[2]);
    assert!(!logits(&model).is_tracked());
    let model = model.train_head();
    let grads = logits(&model).square().sum().backward();
    let score = model.score_weight();
    assert!(score.grad(&grads).is_some());
}
