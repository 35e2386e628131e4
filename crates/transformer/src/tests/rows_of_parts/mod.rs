//! Rows of a batch with virtual tokens, bottlenecks and adapters of weights of their own: each as it would be alone.

mod answers;
mod gradients;

use burn_lora_adapter::{AdapterError, LoraConfig, LoraInit, Targets, attach};

use super::bottlenecks::Shift;
use super::encoder_families::encoders;
use super::t5;
use super::*;
use crate::{
    BottleneckConfig, BottleneckPlacement, DecoderClassifier, Encoder, EncoderBatch, EncoderConfig,
    Pooling, PromptEncoderKind, PromptInit, SentenceEncoder, SentencePooling, SequenceClassifier,
    T5, VirtualTokensConfig, WithBottlenecks, WithRows, WithVirtualTokens,
};

/// What goes by a name: weights, virtual tokens, bottlenecks.
type Parts = (
    bool,
    Option<VirtualTokensConfig>,
    Option<BottleneckPlacement>,
);

/// Every kind alone, with other numbers of tokens, and all together.
fn named() -> Vec<(&'static str, Parts)> {
    let prompt = |tokens| {
        Some(VirtualTokensConfig::Prompt {
            tokens,
            init: PromptInit::Random,
        })
    };
    let p_tuning = VirtualTokensConfig::PTuning {
        tokens: 1,
        encoder: PromptEncoderKind::Mlp,
        d_hidden: 5,
    };
    let prefix = |tokens, projection| Some(VirtualTokensConfig::Prefix { tokens, projection });
    let (houlsby, parallel) = (BottleneckPlacement::Houlsby, BottleneckPlacement::Parallel);
    vec![
        ("lora", (true, None, None)),
        ("prompt", (false, prompt(3), None)),
        ("p_tuning", (false, Some(p_tuning), None)),
        ("prefix", (false, prefix(4, None), None)),
        ("projected", (false, prefix(2, Some(6)), None)),
        ("houlsby", (false, None, Some(houlsby))),
        (
            "pfeiffer",
            (false, None, Some(BottleneckPlacement::Pfeiffer)),
        ),
        ("parallel", (false, None, Some(parallel))),
        ("all", (true, prompt(2), Some(parallel))),
        ("prefixed", (true, prefix(1, None), Some(houlsby))),
    ]
}

/// The names of three rows each; every name comes up, and the base.
fn batches() -> Vec<[Option<&'static str>; 3]> {
    vec![
        [Some("prompt"), None, Some("prefix")],
        [Some("prefix"), Some("p_tuning"), Some("lora")],
        [Some("houlsby"), Some("all"), Some("parallel")],
        [Some("projected"), Some("prefixed"), Some("pfeiffer")],
        [Some("prompt"), Some("prompt"), Some("p_tuning")],
    ]
}

fn lora(seed: u64) -> LoraConfig {
    let config = LoraConfig::new(2, 8.0).with_targets(Targets::AllLinear);
    config.with_init(LoraInit::Random).with_seed(seed)
}

/// A model with all of some names. What stands beside the weights goes through folders, each under its name.
fn with<M: WithRows>(base: &M, names: &[&str]) -> M {
    let wanted: Vec<(usize, (&str, Parts))> = named()
        .into_iter()
        .enumerate()
        .filter(|(_, (name, _))| names.contains(name))
        .collect();
    let mut model = base.clone();
    // An adapter of weights closes everything else.
    for (seed, (name, (is_lora, ..))) in &wanted {
        if *is_lora {
            model = attach(model, name, &lora(*seed as u64)).expect(name);
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    for (seed, (name, (_, tokens, placement))) in &wanted {
        if let Some(config) = tokens {
            model = model
                .add_virtual_tokens(name, config, *seed as u64)
                .expect(name);
        }
        if let Some(placement) = placement {
            let config = BottleneckConfig::new(5, *placement);
            let one = base.clone().add_bottlenecks(name, &config, *seed as u64);
            let one = one.expect(name).map(&mut Shift(*seed as u32));
            one.save_named_bottlenecks(name, folder.path(), None)
                .expect(name);
            let (loaded, read) = model
                .load_named_bottlenecks(name, folder.path())
                .expect(name);
            assert_eq!(read, config);
            model = loaded;
        }
    }
    model
}

fn every_name() -> Vec<&'static str> {
    named().into_iter().map(|(name, _)| name).collect()
}

/// Of the largest number.
#[track_caller]
fn assert_near(what: &str, found: Tensor<2>, expected: Tensor<2>) {
    let largest: f32 = expected.clone().abs().max().into_scalar();
    assert_close(what, found, expected, 1e-5 * largest.max(1.0));
}

const ROWS: [&[u32]; 3] = [&[7, 8, 9, 10, 3], &[4, 5], &[1, 2, 3]];

/// What a model says of rows, `[what it says of each, d]` for each.
type Says<M> = dyn Fn(&M, &[&[u32]]) -> Vec<Tensor<2>>;

fn rows_are_as_alone<M: WithRows>(what: &str, base: &M, says: &Says<M>) {
    rows_of_names_are_as_alone(what, base, &every_name(), says);
}

fn rows_of_names_are_as_alone<M: WithRows>(what: &str, base: &M, known: &[&str], says: &Says<M>) {
    let all = with(base, known);
    let bare = says(base, &ROWS);
    for names in batches() {
        let names = names.map(|name| name.filter(|name| known.contains(name)));
        let mixed = all.clone().with_rows(Some(&names)).expect(what);
        let together = says(&mixed, &ROWS);
        for (row, name) in names.into_iter().enumerate() {
            let alone = with(base, &Vec::from_iter(name));
            let expected = says(&alone, &ROWS[row..=row]).remove(0);
            let what = format!("{what}, {name:?} among {names:?}");
            let moved = (expected.clone() - bare[row].clone()).abs().max();
            let moved: f32 = moved.into_scalar();
            assert_eq!(moved > 1e-3, name.is_some(), "{what}: {moved}");
            assert_near(&what, together[row].clone(), expected);
        }
        // Rows are forgotten, and what was active is again.
        let again = mixed.with_rows(None).expect(what);
        let (found, expected) = (says(&again, &ROWS), says(&all, &ROWS));
        assert_eq!(found[0].to_data(), expected[0].to_data(), "{what}");
    }
}

fn padded(rows: &[&[u32]], device: &Device) -> (Tensor<2, Int>, Vec<usize>) {
    let lengths: Vec<usize> = rows.iter().map(|row| row.len()).collect();
    let longest = lengths.iter().copied().max().expect("rows");
    let rows: Vec<Vec<u32>> = rows
        .iter()
        .map(|row| {
            let mut row = row.to_vec();
            row.resize(longest, 0);
            row
        })
        .collect();
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    let ids = Tensor::from_data(ids(&rows).into_data(), device);
    (ids, lengths)
}

/// The states of each row without its padding.
fn cut(states: Tensor<3>, lengths: &[usize]) -> Vec<Tensor<2>> {
    let rows = lengths.iter().enumerate();
    let row = |(row, length): (usize, &usize)| {
        let states = states.clone().slice([row..row + 1, 0..*length]);
        states.squeeze_dim::<2>(0)
    };
    rows.map(row).collect()
}

fn batch(rows: &[&[u32]]) -> EncoderBatch {
    let (ids, lengths) = padded(rows, &Device::flex());
    EncoderBatch::new(ids, lengths)
}

fn each(logits: Tensor<2>) -> Vec<Tensor<2>> {
    logits.split(1, 0)
}

fn decoder_says(model: &Decoder, rows: &[&[u32]]) -> Vec<Tensor<2>> {
    let (ids, lengths) = padded(rows, &model.device());
    cut(model.hidden(ids, None), &lengths)
}

fn encoder_says(model: &Encoder, rows: &[&[u32]]) -> Vec<Tensor<2>> {
    let (ids, lengths) = padded(rows, &model.device());
    let hidden = model.hidden(&EncoderBatch::new(ids, lengths.clone()));
    cut(hidden, &lengths)
}

fn t5_says(model: &T5, rows: &[&[u32]]) -> Vec<Tensor<2>> {
    let device = model.device();
    let (read, lengths) = padded(rows, &device);
    let encoded = model.encode(&EncoderBatch::new(read.clone(), lengths.clone()));
    cut(model.decode(read, &encoded), &lengths)
}

#[test]
fn rows_of_decoders_are_as_alone() {
    for (name, base) in decoders() {
        // Experts see no rows, so there can be no adapters of rows on them; beside them there can be.
        if matches!(name, "mixtral" | "qwen3_moe") {
            let beside = [
                "prompt", "p_tuning", "prefix", "houlsby", "pfeiffer", "parallel",
            ];
            rows_of_names_are_as_alone(name, &base, &beside, &decoder_says);
            continue;
        }
        let base = match name {
            "llama" => base,
            _ => base.with_recompute(usize::MAX),
        };
        rows_are_as_alone(name, &base, &decoder_says);
    }
}

#[test]
fn rows_of_encoders_are_as_alone() {
    for (name, config) in encoders() {
        let base = Encoder::init(config, &Device::flex(), 3).expect(name);
        rows_are_as_alone(name, &base, &encoder_says);
    }
}

#[test]
fn rows_of_t5_are_as_alone() {
    for config in [t5::config(), t5::original()] {
        rows_are_as_alone("t5", &t5::model(config), &t5_says);
    }
}

/// The last token of each row is found behind its own virtual tokens, and what pools sees of each row what it would alone.
#[test]
fn rows_of_models_that_pool_are_as_alone() {
    let model = DecoderClassifier::init(llama(), 3, &Device::flex(), 3).expect("valid");
    rows_are_as_alone("llama", &model, &|model, rows| {
        let (ids, lengths) = padded(rows, &model.device());
        each(model.forward(ids, &lengths))
    });
    for (name, config) in encoders() {
        let model = SequenceClassifier::init(config.clone(), &Device::flex(), 3).expect(name);
        let model_says =
            |model: &SequenceClassifier, rows: &[&[u32]]| each(model.forward(&batch(rows)));
        rows_are_as_alone(name, &model, &model_says);
        for pooling in [Pooling::Mean, Pooling::Max, Pooling::MeanSqrtLength] {
            let pooling = SentencePooling {
                pooling,
                ..SentencePooling::default()
            };
            let model = SentenceEncoder::init(config.clone(), pooling, &Device::flex(), 3);
            rows_are_as_alone(name, &model.expect(name), &|model, rows| {
                each(model.forward(&batch(rows)))
            });
        }
    }
}

#[test]
fn names_are_those_of_all_kinds() {
    let (_, base) = decoders().remove(0);
    let all = with(&base, &["lora", "prompt", "houlsby", "all"]);
    match all.clone().with_rows(Some(&[None, Some("promt")])) {
        Err(AdapterError::NoAdapter { name, present }) => {
            assert_eq!(name.as_deref(), Some("promt"));
            assert_eq!(present, ["lora", "all", "prompt", "houlsby"]);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        all.clone().with_rows(Some(&[])),
        Err(AdapterError::Config { .. })
    ));
    // A name that is changed in one kind goes along with its rows, and in the others stays.
    let names = [Some("prompt"), Some("all")];
    let mixed = all.clone().with_rows(Some(&names)).expect("known");
    let expected = decoder_says(&mixed, &ROWS[..2]);
    let renamed = mixed.rename_virtual_tokens("all", "mine").expect("known");
    let renamed = renamed.rename_bottlenecks("all", "yours").expect("known");
    let renamed = burn_lora_adapter::rename(renamed, "all", "ours").expect("known");
    for (found, expected) in decoder_says(&renamed, &ROWS[..2]).into_iter().zip(expected) {
        assert_eq!(found.into_data(), expected.into_data());
    }
    // What was switched off acts in no row.
    let off = renamed.with_virtual_tokens_enabled(false);
    let off = off.with_bottlenecks_enabled(false);
    let off = burn_lora_adapter::set_enabled(off, false).expect("there");
    for (found, expected) in decoder_says(&off, &ROWS[..2])
        .into_iter()
        .zip(decoder_says(&base, &ROWS[..2]))
    {
        assert_eq!(found.into_data(), expected.into_data());
    }
    // Rows of a model that has none are all the base.
    let bare = base.clone().with_rows(Some(&[None])).expect("no name");
    assert_eq!(
        decoder_says(&bare, &ROWS)[0].to_data(),
        decoder_says(&base, &ROWS)[0].to_data()
    );
}
