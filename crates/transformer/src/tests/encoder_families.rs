//! What holds for every family and every head.

use super::paths::Paths;
use super::*;
use crate::encoder::load::FromCheckpoint;
use crate::{
    BertConfig, BertVariant, DebertaConfig, DebertaVersion, DistilBertConfig, Encoder,
    EncoderBatch, EncoderConfig, EncoderWithHead, HeadTask, LoadOptions, MaskedLm,
    ModernBertConfig, MultipleChoice, SequenceClassifier, TokenClassifier,
};
use burn::module::Module;
use burn::tensor::DType;

/// One configuration for each way in which encoders differ.
pub(super) fn encoders() -> Vec<(&'static str, EncoderConfig)> {
    let bert = || super::encoders::config();
    let variant = |variant| BertConfig {
        variant,
        pad_token_id: 1,
        type_vocab_size: 1,
        ..bert()
    };
    let deberta = || DebertaConfig {
        vocab_size: 31,
        embedding_size: 16,
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 24,
        max_position_embeddings: 32,
        position_buckets: 4,
        num_labels: 3,
        initializer_range: STD,
        ..DebertaConfig::default()
    };
    vec![
        ("bert", bert().into()),
        (
            "bert_untied",
            BertConfig {
                tie_word_embeddings: false,
                ..bert()
            }
            .into(),
        ),
        ("roberta", variant(BertVariant::Roberta).into()),
        ("xlm_roberta", variant(BertVariant::XlmRoberta).into()),
        (
            "distilbert",
            DistilBertConfig {
                vocab_size: 31,
                dim: 16,
                n_layers: 2,
                n_heads: 4,
                hidden_dim: 24,
                max_position_embeddings: 32,
                num_labels: 3,
                initializer_range: STD,
                ..DistilBertConfig::default()
            }
            .into(),
        ),
        (
            "modernbert",
            ModernBertConfig {
                vocab_size: 31,
                hidden_size: 16,
                num_hidden_layers: 3,
                num_attention_heads: 2,
                intermediate_size: 24,
                max_position_embeddings: 32,
                layer_types: ModernBertConfig::every(2, 3),
                local_attention: 2,
                pad_token_id: 0,
                num_labels: 3,
                initializer_range: STD,
                ..ModernBertConfig::default()
            }
            .into(),
        ),
        ("deberta_v3", deberta().into()),
        (
            "deberta_v2",
            DebertaConfig {
                embedding_size: 12,
                position_biased_input: true,
                type_vocab_size: 2,
                share_att_key: false,
                norm_rel_ebd: "none".into(),
                conv_kernel_size: 3,
                conv_groups: 2,
                ..deberta()
            }
            .into(),
        ),
        (
            "deberta",
            DebertaConfig {
                version: DebertaVersion::V1,
                max_relative_positions: 3,
                type_vocab_size: 2,
                ..deberta()
            }
            .into(),
        ),
    ]
}

pub(super) fn encoder(config: &EncoderConfig) -> Encoder {
    Encoder::init(config.clone(), &Device::flex(), 3).expect("a valid configuration")
}

fn batch(rows: &[&[u32]], lengths: &[usize]) -> EncoderBatch {
    EncoderBatch::new(ids(rows), lengths)
}

fn has_the_paths_of_its_keys<M: FromCheckpoint>(name: &str, config: &EncoderConfig) {
    let model: M = FromCheckpoint::init(config.clone(), &Device::flex(), 3).expect("valid");
    let mut paths = Paths::default();
    model.visit(&mut paths);
    let keys = M::keys(config, &Device::flex()).into_iter();
    let mut keys: Vec<String> = keys.map(|key| key.path).collect();
    paths.found.sort();
    keys.sort();
    assert_eq!(paths.found, keys, "{name}");
    let again = keys.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(again, None, "{name}");
}

#[test]
fn the_path_of_a_parameter_is_its_name_in_the_checkpoint() {
    for (name, config) in encoders() {
        has_the_paths_of_its_keys::<Encoder>(name, &config);
        has_the_paths_of_its_keys::<SequenceClassifier>(name, &config);
        has_the_paths_of_its_keys::<TokenClassifier>(name, &config);
        has_the_paths_of_its_keys::<MaskedLm>(name, &config);
        if name != "deberta" {
            has_the_paths_of_its_keys::<MultipleChoice>(name, &config);
        }
    }
}

#[test]
fn padding_is_never_seen_and_every_token_is() {
    for (name, config) in encoders() {
        let model = encoder(&config);
        let short: &[u32] = &[7, 8, 9, 10];
        let alone = model.hidden(&batch(&[short], &[4]));
        for pad in [0, 11] {
            let rows: [&[u32]; 2] = [&[1, 2, 3, 4, 5, 6], &[7, 8, 9, 10, pad, pad]];
            let both = model.hidden(&batch(&rows, &[6, 4]));
            let padded = both.slice([1..2, 0..4]);
            assert_close(name, padded, alone.clone(), 2e-5);
        }
        for at in 0..4 {
            let mut other = short.to_vec();
            other[at] = 20;
            let moved = model.hidden(&batch(&[&other], &[4])) - alone.clone();
            // The last layers see the whole sequence, so a change anywhere shows at the first token.
            let moved: f32 = moved.narrow(1, 0, 1).abs().max().into_scalar();
            assert!(moved > 1e-3, "{name}, token {at}: {moved}");
        }
    }
}

#[test]
fn a_local_layer_sees_no_further_than_its_reach() {
    let mut encoders = encoders().into_iter();
    let found = encoders.find_map(|(_, config)| match config {
        EncoderConfig::ModernBert(config) => Some(config),
        _ => None,
    });
    let mut config = found.expect("ModernBERT is among them");
    config.layer_types = vec!["sliding_attention".into(); 3];
    let model = encoder(&config.into());
    let hidden = |row: &[u32]| model.hidden(&batch(&[row], &[6])).narrow(1, 0, 1);
    let base = hidden(&[1, 2, 3, 4, 5, 6]);
    // One token to each side in each of three layers.
    let near: f32 = (hidden(&[1, 2, 3, 9, 5, 6]) - base.clone())
        .abs()
        .max()
        .into_scalar();
    assert!(near > 1e-4, "{near}");
    assert_close("far", hidden(&[1, 2, 3, 4, 9, 9]), base, 0.0);
}

#[test]
fn segments_count_where_an_encoder_knows_them() {
    for (name, config) in encoders() {
        let model = encoder(&config);
        let knows = config.spec().segments > 1;
        let plain = batch(&[&[1, 2, 3, 4]], &[4]);
        let with = |row: [i32; 4]| {
            let segments = Tensor::<2, Int>::from_data([row], &Device::flex());
            model.hidden(&plain.clone().with_segments(segments))
        };
        let base = model.hidden(&plain);
        assert_close(name, with([0; 4]), base.clone(), 1e-5);
        if knows {
            let moved: f32 = (with([0, 0, 1, 1]) - base).abs().max().into_scalar();
            assert!(moved > 1e-3, "{name}: {moved}");
        }
    }
}

fn survives_its_folder<T: HeadTask>(name: &str, config: &EncoderConfig) {
    let dir = tempfile::tempdir().expect("a folder");
    let model = EncoderWithHead::<T>::init(config.clone(), &Device::flex(), 5).expect("valid");
    model.save(dir.path(), DType::F32).expect("saved");
    let again = EncoderWithHead::<T>::load(dir.path(), &Device::flex()).expect("loaded");
    assert!(again.fresh().is_empty(), "{name}: {:?}", again.fresh());
    let rows = batch(&[&[1, 2, 3]], &[3]);
    let hidden = |model: &Encoder| model.hidden(&rows);
    let expected = hidden(&model.encoder);
    assert_close(name, hidden(&again.encoder), expected.clone(), 0.0);
    // The same folder as a bare encoder, and the bare encoder's folder as any task.
    let bare = Encoder::load(dir.path(), &Device::flex()).expect("loaded");
    assert_close(name, hidden(&bare), expected.clone(), 0.0);
    bare.save(dir.path(), DType::F32).expect("saved");
    let again = EncoderWithHead::<T>::load(dir.path(), &Device::flex()).expect("loaded");
    assert_close(name, hidden(&again.encoder), expected, 0.0);
    let mut paths = Paths::default();
    model.head.visit(&mut paths);
    let mut fresh = again.fresh().to_vec();
    fresh.sort();
    paths.found.sort();
    assert_eq!(fresh, paths.found, "{name}");
}

#[test]
fn every_model_survives_its_folder_and_every_encoder_loads_for_every_task() {
    for (name, config) in encoders() {
        survives_its_folder::<crate::SequenceLabels>(name, &config);
        survives_its_folder::<crate::TokenLabels>(name, &config);
        survives_its_folder::<crate::MaskedTokens>(name, &config);
        if name != "deberta" {
            survives_its_folder::<crate::Choices>(name, &config);
        }
    }
}

#[test]
fn low_precision_follows_f32() {
    for (name, config) in encoders() {
        let dir = tempfile::tempdir().expect("a folder");
        let exact = encoder(&config);
        exact.save(dir.path(), DType::F32).expect("saved");
        let rows = batch(&[&[1, 2, 3, 4], &[5, 6, 0, 0]], &[4, 2]);
        let real = |hidden: Tensor<3>| hidden.narrow(0, 0, 1).cast(DType::F32);
        let expected = real(exact.hidden(&rows));
        for dtype in [DType::F16, DType::BF16] {
            let options = LoadOptions::new(dtype, Device::flex());
            let rounded = Encoder::load_with(dir.path(), &options).expect("loaded");
            let hidden = rounded.hidden(&rows);
            assert_eq!(hidden.dtype(), dtype, "{name}");
            let name = format!("{name} {dtype:?}");
            assert_close(&name, real(hidden), expected.clone(), 0.15);
        }
    }
}

#[test]
fn a_task_without_a_head_is_refused() {
    let (_, config) = encoders().pop().expect("the first DeBERTa");
    let error = MultipleChoice::init(config, &Device::flex(), 1).expect_err("refused");
    assert!(
        error.to_string().contains("no DebertaForMultipleChoice"),
        "{error}"
    );
}

#[test]
fn a_head_that_is_not_tied_is_read_and_must_be_there() {
    let untied = BertConfig {
        tie_word_embeddings: false,
        ..super::encoders::config()
    };
    let dir = tempfile::tempdir().expect("a folder");
    let model = MaskedLm::init(untied, &Device::flex(), 1).expect("valid");
    assert!(model.head.output.is_some() && model.head.bias.is_none());
    model.save(dir.path(), DType::F32).expect("saved");
    let again = MaskedLm::load(dir.path(), &Device::flex()).expect("loaded");
    assert!(again.fresh().is_empty());
    let batch = EncoderBatch::new(ids(&[&[1, 2, 3]]), [3]);
    assert_close("logits", again.forward(&batch), model.forward(&batch), 0.0);

    // A tied head in a folder that says otherwise.
    let tied = MaskedLm::init(super::encoders::config(), &Device::flex(), 1).expect("valid");
    tied.save(dir.path(), DType::F32).expect("saved");
    let path = dir.path().join("config.json");
    let text = std::fs::read_to_string(&path).expect("there");
    let lie = text.replace(
        "\"tie_word_embeddings\": true",
        "\"tie_word_embeddings\": false",
    );
    assert_ne!(lie, text);
    std::fs::write(&path, lie).expect("written");
    let error = MaskedLm::load(dir.path(), &Device::flex()).expect_err("refused");
    let text = error.to_string();
    assert!(
        text.contains("missing: cls.predictions.decoder.weight"),
        "{text}"
    );
}

#[test]
fn rows_that_do_not_fit_are_named_at_once() {
    let model = encoder(&super::encoders::config().into());
    let rows = [vec![1, 2], vec![], vec![31], vec![0; 33]];
    let segments = [vec![0, 2], vec![], vec![0, 0], vec![0; 33]];
    let error = model.batch(&rows, Some(&segments)).expect_err("refused");
    assert_eq!(
        error.problems,
        [
            "row 1 has no token",
            "row 2 has the token 31; the model knows those below 31",
            "row 3 has 33 tokens, the model 32 positions",
            "row 0 has the segment 2; the model knows those below 2",
            "row 2 has 2 segments for 1 tokens",
        ]
    );
    assert!(model.batch(&[], None).is_err());
    let fits = model.batch(&[vec![1, 2], vec![3]], Some(&[vec![0, 1], vec![1]]));
    assert_eq!(fits.expect("it fits").lengths, [2, 1]);
}
