//! Pairs of weights from two checkpoint folders, and the adapter that is extracted from them.

use std::fs;
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor};
use burn_lora_adapter::{
    AdapterError, ExtractRank, LoraConfig, LoraInit, Targets, attach, extract, merge_and_unload,
};
use burn_lora_linalg::Matrix;

use super::{assert_close, configs, gpt2, ids, llama};
use crate::{Decoder, DecoderConfig, WeightPairs};

/// A folder with a tiny model, and another where an adapter of this rank was worked in.
fn folders(config: DecoderConfig, rank: usize) -> (tempfile::TempDir, tempfile::TempDir) {
    let device = Device::flex();
    let [base, tuned] = [0; 2].map(|_| tempfile::tempdir().expect("a folder"));
    let model = Decoder::init(config, &device, 5).expect("a model");
    model.save(base.path(), DType::F32).expect("saved");
    let config = LoraConfig::new(rank, 2.0).with_init(LoraInit::Random);
    let adapted = attach(model, "a", &config).expect("attached");
    let merged = merge_and_unload(adapted).expect("merged");
    merged.save(tuned.path(), DType::F32).expect("saved");
    (base, tuned)
}

fn pairs(base: &Path, tuned: &Path) -> WeightPairs {
    WeightPairs::open(base, tuned, &Targets::AllLinear).expect("opened")
}

#[test]
fn an_extracted_adapter_is_the_difference() {
    let device = Device::flex();
    for config in [DecoderConfig::from(llama()), DecoderConfig::from(gpt2())] {
        let (base, tuned) = folders(config, 2);
        let source = pairs(base.path(), tuned.path());
        let (layers, fan) = (source.layers(), source.fan_in_fan_out());
        assert_eq!(
            source.other_differences().expect("read"),
            Vec::<String>::new()
        );
        let mut told = Vec::new();
        let rank = ExtractRank::Fixed(2);
        let set = extract(source, rank, |path, rank, kept| {
            told.push((path.to_string(), rank, kept));
        });
        let set = set.expect("extracted");
        assert_eq!((set.layers.len(), told.len()), (layers, layers));
        assert!(
            told.iter()
                .all(|(_, rank, kept)| *rank == 2 && *kept > 0.999_999),
            "{told:?}"
        );
        // Onto the base as a module knows it, so that paths and directions are the module's.
        let options = crate::LoadOptions::new(DType::F32, device.clone());
        let model = Decoder::load(base.path(), &options).expect("loaded");
        assert_eq!(model.config().fan_in_fan_out(), fan);
        let adapted = set.attach(model, "x").expect("attached");
        let expected = Decoder::load(tuned.path(), &options).expect("loaded");
        let ids = ids(&[&[3, 1, 4, 1, 5]]);
        let (ours, theirs) = (adapted.logits(ids.clone()), expected.logits(ids));
        assert_close("extracted", ours, theirs, 1e-3);
    }
}

#[test]
fn the_energy_that_is_kept_falls_with_the_rank_and_a_sketch_finds_it_too() {
    let (base, tuned) = folders(llama().into(), 6);
    let kept = |rank: ExtractRank| {
        let mut kept = Vec::new();
        let source = pairs(base.path(), tuned.path());
        extract(source, rank, |_, _, share| kept.push(share)).expect("extracted");
        kept
    };
    let [two, four, six] = [2, 4, 6].map(|rank| kept(ExtractRank::Fixed(rank)));
    let sketched = kept(ExtractRank::Sketched {
        rank: 4,
        iterations: 6,
    });
    for layer in 0..two.len() {
        assert!(two[layer] < four[layer] && four[layer] < six[layer]);
        assert!(six[layer] > 0.999_999);
        assert!((sketched[layer] - four[layer]).abs() < 1e-3);
    }
}

#[test]
fn what_no_adapter_can_say_is_named() {
    struct Shift;
    impl ModuleMapper for Shift {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            match D {
                1 => param.map(|tensor| tensor.add_scalar(0.5)),
                _ => param,
            }
        }
    }
    let device = Device::flex();
    let (base, tuned) = folders(llama().into(), 2);
    let options = crate::LoadOptions::new(DType::F32, device);
    let model = Decoder::load(tuned.path(), &options).expect("loaded");
    model
        .map(&mut Shift)
        .save(tuned.path(), DType::F32)
        .expect("saved");
    let others = pairs(base.path(), tuned.path())
        .other_differences()
        .expect("read");
    let norms = 2 * 2 + 1;
    assert_eq!(others.len(), norms, "{others:?}");
    assert!(others.contains(&"model.norm.weight".to_string()));
}

#[test]
fn folders_that_do_not_fit_are_refused_with_every_fault() {
    let (base, tuned) = folders(llama().into(), 2);
    let (other, _) = folders(gpt2().into(), 2);
    let faults = |result: Result<WeightPairs, AdapterError>| match result {
        Err(AdapterError::Factors { faults, .. }) => faults,
        other => panic!("{other:?}"),
    };
    let found = faults(WeightPairs::open(
        base.path(),
        other.path(),
        &Targets::AllLinear,
    ));
    assert!(
        found[0].contains("the base is a llama, the tuned model a gpt2"),
        "{found:?}"
    );
    assert!(found.len() > 10, "{found:?}");
    let none = Targets::names(["q_prj", "embed_tokens"]);
    let found = faults(WeightPairs::open(base.path(), tuned.path(), &none));
    assert_eq!(found, ["the targets match no linear layer of the folders"]);
    let wide = crate::LlamaConfig {
        intermediate_size: 20,
        ..llama()
    };
    let (wide, _) = folders(wide.into(), 2);
    let found = faults(WeightPairs::open(
        base.path(),
        wide.path(),
        &Targets::AllLinear,
    ));
    assert_eq!(found.len(), 2 * 3, "{found:?}");
    fs::remove_file(tuned.path().join("model.safetensors")).expect("removed");
    let error = WeightPairs::open(base.path(), tuned.path(), &Targets::AllLinear).unwrap_err();
    assert!(
        error.to_string().contains("holds no model.safetensors"),
        "{error}"
    );
}

#[test]
fn every_decoder_has_its_linear_layers_found() {
    for (name, config) in configs() {
        let device = Device::flex();
        let model = Decoder::init(config, &device, 5).expect("a model");
        let folder = tempfile::tempdir().expect("a folder");
        model.save(folder.path(), DType::F32).expect("saved");
        let adapted = attach(model, "a", &LoraConfig::new(1, 1.0)).expect("attached");
        let expected: Vec<String> = burn_lora_adapter::adapted_weights(&adapted)
            .iter()
            .map(|weight| weight.module_path().to_string())
            .collect();
        let mut found = Vec::new();
        for pair in pairs(folder.path(), folder.path()) {
            let pair = pair.expect("read");
            assert_eq!(pair.base, pair.tuned);
            assert!(pair.base != Matrix::zeros(0, 0));
            found.push(pair.path);
        }
        let sorted = |mut paths: Vec<String>| {
            paths.sort();
            paths
        };
        assert_eq!(sorted(found), sorted(expected), "{name}");
    }
}
