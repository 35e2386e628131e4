use super::paths::Paths;
use super::*;
use crate::{EncoderBatch, LoadError, LoadOptions, T5, T5Config, T5Variant};
use burn::module::Module;
use burn::tensor::DType;

pub(super) fn config() -> T5Config {
    T5Config {
        vocab_size: 31,
        d_model: 16,
        d_kv: 6,
        d_ff: 24,
        num_layers: 2,
        num_decoder_layers: 3,
        num_heads: 2,
        relative_attention_num_buckets: 8,
        relative_attention_max_distance: 12,
        feed_forward_proj: "gated-gelu".into(),
        tie_word_embeddings: false,
        scale_decoder_outputs: false,
        ..T5Config::default()
    }
}

pub(super) fn original() -> T5Config {
    T5Config {
        feed_forward_proj: "relu".into(),
        tie_word_embeddings: true,
        scale_decoder_outputs: true,
        ..config()
    }
}

pub(super) fn model(config: T5Config) -> T5 {
    T5::init(config, &Device::flex(), 3).expect("a valid configuration")
}

fn options() -> LoadOptions {
    LoadOptions::new(DType::F32, Device::flex())
}

pub(super) fn logits(model: &T5, batch: &EncoderBatch, written: &[&[u32]]) -> Tensor<3> {
    model.logits_of(model.decode(ids(written), &model.encode(batch)))
}

#[test]
fn the_path_of_a_parameter_is_its_name_in_the_checkpoint() {
    for config in [config(), original()] {
        let mut paths = Paths::default();
        model(config.clone()).visit(&mut paths);
        let keys = T5::keys(&config, &Device::flex()).into_iter();
        let mut keys: Vec<String> = keys.map(|key| key.path).collect();
        paths.found.sort();
        keys.sort();
        assert_eq!(paths.found, keys);
    }
    let keys = T5::keys(&config(), &Device::flex());
    for known in [
        "shared.weight",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "encoder.block.1.layer.1.DenseReluDense.wi_1.weight",
        "decoder.block.2.layer.1.EncDecAttention.q.weight",
        "decoder.block.2.layer.2.layer_norm.weight",
        "decoder.final_layer_norm.weight",
        "lm_head.weight",
    ] {
        assert!(keys.iter().any(|key| key.path == known), "{known}");
    }
}

#[test]
fn padding_on_either_side_changes_nothing() {
    for config in [config(), original()] {
        let model = model(config);
        let one = EncoderBatch::new(ids(&[&[7, 8, 9]]), [3]);
        let alone = logits(&model, &one, &[&[0, 4]]);
        let two = EncoderBatch::new(ids(&[&[1, 2, 3, 4, 5], &[7, 8, 9, 11, 0]]), [5, 3]);
        let both = logits(&model, &two, &[&[0, 6, 7], &[0, 4, 12]]);
        assert_close("padded", both.slice([1..2, 0..2]), alone, 2e-4);
    }
}

#[test]
fn low_precision_follows_f32() {
    let dir = tempfile::tempdir().expect("a folder");
    let exact = model(config());
    exact.save(dir.path(), DType::F32).expect("saved");
    let rows = EncoderBatch::new(ids(&[&[1, 2, 3, 4], &[5, 6, 0, 0]]), [4, 2]);
    let written: [&[u32]; 2] = [&[0, 4, 9], &[0, 3, 3]];
    let states = |model: &T5| {
        let states = model.decode(ids(&written), &model.encode(&rows));
        states.cast(DType::F32)
    };
    for dtype in [DType::F16, DType::BF16] {
        let options = LoadOptions::new(dtype, Device::flex());
        let rounded = T5::load(dir.path(), &options).expect("loaded");
        assert_eq!(rounded.dtype(), dtype);
        let name = format!("{dtype:?}");
        assert_close(&name, states(&rounded), states(&exact), 0.15);
    }
}

#[test]
fn token_by_token_equals_all_at_once() {
    let model = model(config());
    let rows = EncoderBatch::new(ids(&[&[1, 2, 3, 4], &[5, 6, 0, 0]]), [4, 2]);
    let encoded = model.encode(&rows);
    let written: [&[u32]; 2] = [&[0, 4, 9, 2, 7], &[0, 3, 3, 8, 1]];
    let whole = model.decode(ids(&written), &encoded);
    let mut cache = model.new_cache(5);
    for (from, to) in [(0, 2), (2, 3), (3, 5)] {
        let part = [&written[0][from..to], &written[1][from..to]];
        let part = model.decode_cached(ids(&part), &encoded, &mut cache);
        let expected = whole.clone().slice([0..2, from..to]);
        assert_close("part", part, expected, 1e-4);
    }
}

#[test]
fn a_head_of_its_own_is_found_whatever_the_configuration_says() {
    let dir = tempfile::tempdir().expect("a folder");
    let untied = model(config());
    untied.save(dir.path(), DType::F32).expect("saved");
    let path = dir.path().join("config.json");
    let text = std::fs::read_to_string(&path).expect("there");
    let says = |tied: bool| format!("\"tie_word_embeddings\": {tied}");
    assert!(text.contains(&says(false)), "{text}");
    std::fs::write(&path, text.replace(&says(false), &says(true))).expect("written");
    let loaded = T5::load(dir.path(), &options()).expect("loaded");
    assert!(loaded.lm_head.is_some() && !loaded.config().scale_decoder_outputs);
    let rows = EncoderBatch::new(ids(&[&[1, 2, 3]]), [3]);
    let expected = logits(&untied, &rows, &[&[0, 5]]);
    assert_close("logits", logits(&loaded, &rows, &[&[0, 5]]), expected, 0.0);

    let tied = model(original());
    tied.save(dir.path(), DType::F32).expect("saved");
    let loaded = T5::load(dir.path(), &options()).expect("loaded");
    assert!(loaded.lm_head.is_none() && loaded.config().scale_decoder_outputs);
    let expected = logits(&tied, &rows, &[&[0, 5]]);
    assert_close("logits", logits(&loaded, &rows, &[&[0, 5]]), expected, 0.0);
}

#[test]
fn a_configuration_that_contradicts_the_weights_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    model(config()).save(dir.path(), DType::F32).expect("saved");
    let path = dir.path().join("config.json");
    let text = std::fs::read_to_string(&path).expect("there");
    let text = text.replace("\"num_heads\": 2", "\"num_heads\": 3");
    std::fs::write(&path, text.replace("gated-gelu", "relu")).expect("written");
    let error = T5::load(dir.path(), &options()).expect_err("refused");
    assert!(matches!(error, LoadError::Mismatch { .. }), "{error}");
    let text = error.to_string();
    for part in [
        "missing: encoder.block.0.layer.1.DenseReluDense.wi.weight (nearest: `encoder.block.0.layer.1.DenseReluDense.wi_1.weight`)",
        "encoder.block.0.layer.0.SelfAttention.q.weight is [12, 16], expected [18, 16]",
        "relative_attention_bias.weight is [8, 2], expected [8, 3]",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn all_that_is_wrong_with_a_configuration_is_said_at_once() {
    let text = r#"{"model_type": "t5", "vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 0,
        "num_heads": 2, "relative_attention_num_buckets": 6, "feed_forward_proj": "gated-sinus", "pad_token_id": 20}"#;
    let text = T5Config::from_json(text).expect_err("refused").to_string();
    for part in [
        "`num_layers` is 0",
        "`num_decoder_layers` is 0",
        "`relative_attention_num_buckets` is 6",
        "`feed_forward_proj` is `gated-sinus`",
        "`pad_token_id` 20 is not below `vocab_size` 20",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let multilingual = T5Config {
        variant: T5Variant::Mt5,
        ..config()
    };
    for config in [config(), original(), multilingual] {
        let again = T5Config::from_json(&config.to_json()).expect("valid");
        assert_eq!(again, config_read_from(&config));
        assert_eq!(again.to_json(), config.to_json());
    }
}

/// What reading adds: the fields of the file that mean nothing here.
fn config_read_from(config: &T5Config) -> T5Config {
    let mut config = config.clone();
    for (name, value) in [
        ("architectures", serde_json::json!([config.architecture()])),
        ("is_encoder_decoder", true.into()),
    ] {
        config.extra.insert(name.into(), value);
    }
    config
}

#[test]
fn an_mt5_is_what_its_fields_say_and_never_scales() {
    let small = r#"{"model_type": "mt5", "vocab_size": 250112, "d_model": 512, "d_kv": 64, "d_ff": 1024,
        "num_layers": 8, "num_heads": 6, "tie_word_embeddings": false}"#;
    let config = T5Config::from_json(small).expect("valid");
    assert_eq!(config.feed_forward_proj, "gated-gelu");
    assert!(!config.scale_decoder_outputs);
    let tied = small.replace("false", "true");
    let tied = T5Config::from_json(&tied).expect("valid");
    assert!(!tied.scale_decoder_outputs);
    let scaled = T5Config {
        scale_decoder_outputs: true,
        ..config
    };
    let error = T5::init(scaled, &Device::flex(), 1).expect_err("refused");
    assert!(
        error.to_string().contains("`scale_decoder_outputs`"),
        "{error}"
    );
    let unknown = small.replace("mt5", "umt5");
    let error = T5Config::from_json(&unknown)
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains("`umt5`") && error.contains("nearest") && error.contains("t5, mt5"),
        "{error}"
    );
}

#[test]
fn targets_that_do_not_fit_are_named_at_once() {
    let model = model(config());
    let rows = model.batch(&[vec![1, 2], vec![3]]).expect("it fits");
    let error = model
        .loss(&rows, &[vec![], vec![31], vec![1]])
        .expect_err("refused");
    assert_eq!(
        error.problems,
        [
            "3 rows of targets for 2 rows",
            "row 0 has no target",
            "row 1 has the target 31; the model knows those below 31",
        ]
    );
}
