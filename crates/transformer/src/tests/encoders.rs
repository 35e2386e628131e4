use std::path::Path;

use super::loading::{Tensors, read, vector, write};
use super::paths::Paths;
use super::*;
use crate::encoder::load::FromCheckpoint;
use crate::{
    BertConfig, ConfigError, EncoderBatch, FolderOptions, LoadError, LoadOptions, Mismatch,
    SaveError, SequenceClassifier,
};
use burn::module::Module;
use burn::tensor::DType;
use burn_lora_adapter::{DEFAULT_NAME, LoraConfig, Targets, adapted_weights, attach};

pub(super) fn config() -> BertConfig {
    BertConfig {
        vocab_size: 31,
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 24,
        max_position_embeddings: 32,
        num_labels: 3,
        initializer_range: STD,
        ..BertConfig::default()
    }
}

fn classifier() -> SequenceClassifier {
    SequenceClassifier::init(config(), &Device::flex(), 3).expect("a valid configuration")
}

fn load(dir: &Path) -> Result<SequenceClassifier, LoadError> {
    SequenceClassifier::load(dir, &Device::flex())
}

fn batch(rows: &[&[u32]], lengths: &[usize]) -> EncoderBatch {
    EncoderBatch::new(ids(rows), lengths)
}

/// The weight of the layer to the labels.
fn output(model: &SequenceClassifier) -> Tensor<2> {
    let output = model.head.output.as_ref().expect("a linear layer");
    output.weight.val()
}

/// A saved classifier whose tensors were changed.
fn changed(change: impl FnOnce(&mut Tensors)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    classifier().save(dir.path(), DType::F32).expect("saved");
    let mut tensors = read(dir.path());
    change(&mut tensors);
    write(&dir.path().join("model.safetensors"), &tensors);
    dir
}

fn renamed(tensors: &mut Tensors, rename: impl Fn(&str) -> String) {
    let entries = std::mem::take(tensors).into_iter();
    *tensors = entries
        .map(|(name, entry)| (rename(&name), entry))
        .collect();
}

fn without(prefix: &str) -> impl Fn(&str) -> String {
    move |name| name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

fn mismatch(dir: &Path) -> Mismatch {
    match load(dir) {
        Err(LoadError::Mismatch { mismatch, .. }) => *mismatch,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("loaded"),
    }
}

fn missing(mismatch: &Mismatch) -> Vec<&str> {
    mismatch.missing.iter().map(|m| m.name.as_str()).collect()
}

const HEAD: [&str; 2] = ["classifier.weight", "classifier.bias"];
const POOLER: [&str; 2] = ["bert.pooler.dense.weight", "bert.pooler.dense.bias"];

#[test]
fn the_path_of_a_parameter_is_its_name_in_the_checkpoint() {
    let mut paths = Paths::default();
    classifier().visit(&mut paths);
    let mut keys: Vec<String> = SequenceClassifier::keys(&config().into(), &Device::flex())
        .into_iter()
        .map(|key| key.path)
        .collect();
    paths.found.sort();
    keys.sort();
    assert_eq!(paths.found, keys);
    for known in [
        "bert.embeddings.LayerNorm.bias",
        "bert.embeddings.word_embeddings.weight",
        "bert.encoder.layer.1.attention.self.query.weight",
        "bert.encoder.layer.1.attention.output.LayerNorm.weight",
        "bert.encoder.layer.0.intermediate.dense.bias",
        "bert.encoder.layer.0.output.dense.weight",
        "bert.pooler.dense.weight",
        "classifier.bias",
    ] {
        assert!(keys.iter().any(|key| key == known), "{known} in {keys:?}");
    }
}

#[test]
fn the_modules_by_hand_are_modules_in_every_way() {
    let model = classifier();
    let logits = model.forward(&batch(&[&[1, 2]], &[2]));
    let same = model.clone().train().valid().materialize();
    let same = same.fork(&Device::flex()).to_device(&Device::flex());
    let again = same.forward(&batch(&[&[1, 2]], &[2]));
    assert_close("moved", again, logits.clone(), 0.0);
    let record = model.clone().into_record();
    let other = SequenceClassifier::init(config(), &Device::flex(), 99).expect("valid");
    let restored = other.load_record(record).forward(&batch(&[&[1, 2]], &[2]));
    assert_close("restored", restored, logits, 0.0);
    assert_eq!(model.devices().len(), 1);
    let shown = model.to_string();
    assert!(
        shown.contains("self") && shown.contains("LayerNorm"),
        "{shown}"
    );
    // 31 tokens, 32 positions, 2 segments and a norm; per layer 4 projections, the inner layer and 2 norms; the
    // pooler; the head.
    let layer = 4 * (16 * 16 + 16) + (16 * 24 + 24) + (24 * 16 + 16) + 2 * 32;
    let expected = (31 + 32 + 2) * 16 + 32 + 2 * layer + (16 * 16 + 16) + (16 * 3 + 3);
    assert_eq!(model.num_params(), expected);
}

#[test]
fn padding_does_not_change_the_logits_of_a_row() {
    let model = classifier();
    let alone = model.forward(&batch(&[&[7, 8, 9]], &[3]));
    for pad in [0, 11] {
        let rows: [&[u32]; 2] = [&[1, 2, 3, 4, 5], &[7, 8, 9, pad, pad]];
        let both = model.forward(&batch(&rows, &[5, 3]));
        assert_eq!(both.dims(), [2, 3]);
        assert_close("padded", both.narrow(0, 1, 1), alone.clone(), 1e-5);
        let hidden = model
            .encoder
            .hidden(&batch(&rows, &[5, 3]))
            .slice([1..2, 0..3]);
        let expected = model.encoder.hidden(&batch(&[&[7, 8, 9]], &[3]));
        assert_close("hidden", hidden, expected, 1e-5);
    }
}

#[test]
fn every_token_and_its_place_count() {
    let model = classifier();
    let logits = |row: &[u32]| model.forward(&batch(&[row], &[row.len()]));
    let base = logits(&[1, 2, 3, 4]);
    for other in [&[1, 2, 3, 9], &[1, 3, 2, 4], &[9, 2, 3, 4]] {
        let moved: f32 = (logits(other) - base.clone()).abs().max().into_scalar();
        assert!(moved > 1e-3, "{other:?}: {moved}");
    }
}

#[test]
#[should_panic(expected = "the lengths [2, 4]")]
fn lengths_that_do_not_fit_are_refused() {
    classifier().forward(&batch(&[&[1, 2, 3], &[1, 2, 3]], &[2, 4]));
}

#[test]
fn lengths_beyond_the_positions_are_an_error() {
    let encoder = classifier().encoder;
    assert!(encoder.check_length(32).is_ok());
    let error = encoder.check_length(33).expect_err("refused");
    assert_eq!((error.length, error.limit), (33, 32));
}

#[test]
fn a_configuration_that_does_not_fit_makes_no_model() {
    let config = BertConfig {
        num_attention_heads: 3,
        ..config()
    };
    let error = SequenceClassifier::init(config, &Device::flex(), 1).expect_err("refused");
    assert!(matches!(error, ConfigError::Invalid { problems, .. } if problems.len() == 1));
}

#[test]
fn targets_find_the_paths_that_peft_finds() {
    let targets = |names: &[&str]| {
        let config = LoraConfig::new(2, 4.0).with_targets(Targets::names(names.iter().copied()));
        let model = attach(classifier(), DEFAULT_NAME, &config).expect("attached");
        let weights = adapted_weights(&model).into_iter();
        weights.map(|weight| weight.path).collect::<Vec<_>>()
    };
    assert_eq!(
        targets(&["query", "value"]),
        [
            "bert.encoder.layer.0.attention.self.query.weight",
            "bert.encoder.layer.0.attention.self.value.weight",
            "bert.encoder.layer.1.attention.self.query.weight",
            "bert.encoder.layer.1.attention.self.value.weight",
        ]
    );
    // Three a layer, and the pooler's.
    assert_eq!(targets(&["dense"]).len(), 7);
    assert_eq!(targets(&["key", "attention.output.dense"]).len(), 4);
}

#[test]
fn adapters_and_an_opened_head_have_gradients_and_nothing_else_has() {
    let device = Device::flex().autodiff();
    let model = SequenceClassifier::init(config(), &device, 3).expect("valid");
    let tokens = Tensor::<2, Int>::from_data([[1, 2, 3], [4, 5, 0]], &device);
    let tokens = EncoderBatch::new(tokens, [3, 2]);
    assert!(!model.forward(&tokens).is_tracked());

    let lora = LoraConfig::new(2, 4.0).with_targets(Targets::names(["query", "value"]));
    let mut model = attach(model, DEFAULT_NAME, &lora).expect("attached");
    model.head.output = model.head.output.set_require_grad(true);
    let grads = model.forward(&tokens).square().mean().backward();
    let size = |grad: Tensor<2>| grad.abs().max().into_scalar::<f32>();
    for weight in adapted_weights(&model) {
        assert!(weight.base.grad(&grads).is_none(), "{}", weight.path);
        let lora = weight.stack.get(DEFAULT_NAME).expect("attached");
        // A's gradient is zero as long as B is.
        let grad = lora.b.val().grad(&grads).expect("a gradient");
        assert!(size(grad) > 0.0, "{}", weight.path);
    }
    let head = output(&model).grad(&grads);
    assert!(size(head.expect("a gradient")) > 0.0);
    let transform = model.head.transform.as_ref().expect("a pooler");
    assert!(transform.dense.weight.val().grad(&grads).is_none());
}

#[test]
fn full_training_reaches_every_parameter_but_the_other_segment() {
    let device = Device::flex().autodiff();
    let model = SequenceClassifier::init(config(), &device, 3).expect("valid");
    let model = model.set_require_grad(true);
    let tokens = Tensor::<2, Int>::from_data([[1, 2, 3], [4, 5, 0]], &device);
    let tokens = EncoderBatch::new(tokens, [3, 2]);
    let grads = model.forward(&tokens).square().mean().backward();
    let embeddings = &model.encoder.embeddings;
    for (rows, embedding) in [(3, &embeddings.positions), (1, &embeddings.segments)] {
        let weight = &embedding.as_ref().expect("BERT has it").weight;
        let grad = weight.val().grad(&grads).expect("a gradient");
        let sizes: Tensor<2> = grad.abs().max_dim(1);
        let sizes = sizes.into_data().try_to_vec::<f32>().expect("f32");
        let reached = sizes.iter().take_while(|size| **size > 0.0).count();
        assert_eq!(reached, rows);
        assert!(sizes[rows..].iter().all(|size| *size == 0.0));
    }
}

#[test]
fn saved_and_loaded_is_the_same() {
    let dir = changed(|_| {});
    let loaded = load(dir.path()).expect("loaded");
    assert!(loaded.fresh().is_empty());
    let logits = |model: &SequenceClassifier| model.forward(&batch(&[&[1, 2]], &[2]));
    assert_close("logits", logits(&loaded), logits(&classifier()), 0.0);
    assert_eq!(loaded.config().num_labels(), 3);
    let tensors = read(dir.path());
    assert_eq!(
        tensors["bert.encoder.layer.0.intermediate.dense.weight"].1,
        [24, 16]
    );
    assert_eq!(tensors["classifier.weight"].1, [3, 16]);
    assert_eq!(
        tensors["bert.embeddings.word_embeddings.weight"].1,
        [31, 16]
    );
}

#[test]
fn an_encoder_without_prefix_and_head_gets_a_fresh_head() {
    let dir = changed(|tensors| {
        tensors.retain(|name, _| !HEAD.contains(&name.as_str()));
        renamed(tensors, without("bert."));
        // As published: the numbers of the positions, as integers.
        let numbers = (safetensors::Dtype::I64, vec![1, 32], vec![0; 8 * 32]);
        tensors.insert("embeddings.position_ids".into(), numbers);
    });
    let loaded = load(dir.path()).expect("loaded");
    assert_eq!(loaded.fresh(), HEAD);
    let hidden = |model: &SequenceClassifier| model.encoder.hidden(&batch(&[&[1, 2]], &[2]));
    assert_close("hidden", hidden(&loaded), hidden(&classifier()), 0.0);
    let head = output;
    let size: f32 = head(&loaded).abs().max().into_scalar();
    assert!(size > 0.1, "drawn with the configuration's spread: {size}");
    let again = load(dir.path()).expect("loaded");
    assert_close("the same seed", head(&loaded), head(&again), 0.0);

    let options = FolderOptions {
        num_labels: Some(5),
        seed: 1,
        ..FolderOptions::new(Device::flex())
    };
    let other = SequenceClassifier::load_with(dir.path(), &options).expect("loaded");
    assert_eq!(other.forward(&batch(&[&[1, 2]], &[2])).dims(), [1, 5]);
    assert_eq!(other.config().num_labels(), 5);
    let options = FolderOptions {
        seed: 1,
        ..FolderOptions::new(Device::flex())
    };
    let other = SequenceClassifier::load_with(dir.path(), &options).expect("loaded");
    let moved: f32 = (head(&other) - head(&loaded)).abs().max().into_scalar();
    assert!(moved > 1e-3);
}

#[test]
fn a_pooler_may_be_absent_too_but_not_in_part() {
    let optional: Vec<&str> = POOLER.into_iter().chain(HEAD).collect();
    let dir = changed(|tensors| tensors.retain(|name, _| !optional.contains(&name.as_str())));
    assert_eq!(load(dir.path()).expect("loaded").fresh(), optional);

    let dir = changed(|tensors| tensors.retain(|name, _| name != HEAD[1] && name != POOLER[0]));
    assert_eq!(missing(&mismatch(dir.path())), [POOLER[0], HEAD[1]]);
}

#[test]
fn every_difference_is_in_one_error() {
    let dir = changed(|tensors| {
        let query = "bert.encoder.layer.1.attention.self.query.weight";
        let entry = tensors.remove(query).expect("there");
        tensors.insert("bert.encoder.layer.1.attention.query.weight".into(), entry);
        tensors.insert("classifier.bias".into(), vector(&[0.0; 2]));
        tensors.insert("qa_outputs.bias".into(), vector(&[0.0; 2]));
    });
    let found = mismatch(dir.path());
    assert_eq!(
        missing(&found),
        ["bert.encoder.layer.1.attention.self.query.weight"]
    );
    let moved = "bert.encoder.layer.1.attention.query.weight";
    assert_eq!(found.missing[0].nearest.as_deref(), Some(moved));
    assert_eq!(found.unexpected, [moved, "qa_outputs.bias"]);
    assert_eq!(found.mis_shaped[0].name, "classifier.bias");
    assert_eq!(found.mis_shaped[0].expected, [3]);
}

#[test]
fn a_head_for_other_labels_is_mis_shaped() {
    let dir = changed(|_| {});
    let options = FolderOptions {
        num_labels: Some(2),
        ..FolderOptions::new(Device::flex())
    };
    let error = SequenceClassifier::load_with(dir.path(), &options).expect_err("refused");
    let text = error.to_string();
    assert!(
        text.contains("classifier.weight is [3, 16], expected [2, 16]"),
        "{text}"
    );
}

#[test]
fn what_pretraining_and_older_libraries_left_is_understood() {
    let dir = changed(|tensors| {
        tensors.retain(|name, _| !HEAD.contains(&name.as_str()));
        renamed(tensors, |name| {
            name.replace("LayerNorm.weight", "LayerNorm.gamma")
                .replace("LayerNorm.bias", "LayerNorm.beta")
        });
        tensors.insert("cls.predictions.bias".into(), vector(&[0.0; 31]));
        tensors.insert("cls.seq_relationship.bias".into(), vector(&[0.0; 2]));
    });
    let loaded = load(dir.path()).expect("loaded");
    assert_eq!(loaded.fresh(), HEAD);
    let hidden = |model: &SequenceClassifier| model.encoder.hidden(&batch(&[&[1, 2]], &[2]));
    assert_close("hidden", hidden(&loaded), hidden(&classifier()), 0.0);
}

#[test]
fn low_precision_follows_f32() {
    let dir = changed(|_| {});
    let (rows, lengths): ([&[u32]; 2], _) = ([&[1, 2, 3, 4], &[5, 6, 0, 0]], [4, 2]);
    let exact = classifier().forward(&batch(&rows, &lengths));
    let scale: f32 = exact.clone().abs().max().into_scalar();
    for dtype in [DType::F16, DType::BF16] {
        let options = FolderOptions {
            load: LoadOptions::new(dtype, Device::flex()),
            ..FolderOptions::new(Device::flex())
        };
        let rounded = SequenceClassifier::load_with(dir.path(), &options).expect("loaded");
        assert_eq!(rounded.dtype(), dtype);
        let logits = rounded.forward(&batch(&rows, &lengths));
        assert_eq!(logits.dtype(), dtype);
        let name = format!("{dtype:?}");
        assert_close(&name, logits.cast(DType::F32), exact.clone(), 0.05 * scale);
    }
}

#[test]
fn attached_adapters_are_not_lost_in_saving() {
    let config = LoraConfig::new(2, 4.0).with_targets(Targets::names(["query"]));
    let model = attach(classifier(), DEFAULT_NAME, &config).expect("attached");
    let dir = tempfile::tempdir().expect("a folder");
    let error = model.save(dir.path(), DType::F32).expect_err("refused");
    assert!(matches!(error, SaveError::Adapted { paths } if paths.len() == 4));
}
