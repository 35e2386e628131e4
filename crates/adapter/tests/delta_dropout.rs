//! The dropouts of LoHa and LoKr: of single outputs, and of the whole change.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::{Device, Tensor};
use burn_lora_adapter::{
    AdapterError, DEFAULT_NAME, LoHaConfig, LoKrConfig, LoraConfig, LoraInit, MethodConfig,
    Targets, attach, drops_inputs, merge, peft, peft::PeftMetadata,
};
use serde_json::{Value, json};

use common::{Golden, LAYERS};

/// The draws of a seed are those of one test at a time: all of a process draw from one generator.
fn alone() -> MutexGuard<'static, ()> {
    static DRAWS: Mutex<()> = Mutex::new(());
    DRAWS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn loha(rank_dropout: f64, module_dropout: f64) -> MethodConfig {
    MethodConfig::LoHa(LoHaConfig {
        rank_dropout,
        module_dropout,
        ..LoHaConfig::default()
    })
}

fn lokr(rank_dropout: f64, rank_dropout_scale: bool, module_dropout: f64) -> MethodConfig {
    MethodConfig::LoKr(LoKrConfig {
        rank_dropout,
        rank_dropout_scale,
        module_dropout,
        ..LoKrConfig::default()
    })
}

fn config(method: MethodConfig) -> LoraConfig {
    LoraConfig::new(2, 4.0)
        .with_method(method)
        .with_targets(Targets::names(LAYERS))
        .with_init(LoraInit::Random)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// What the adapter of the first layer adds to its output, in training and in evaluation: `[rows, d_out]`.
fn added(golden: &Golden, config: &LoraConfig, seed: u64) -> [Vec<Vec<f32>>; 2] {
    let device = Device::flex().autodiff();
    let base = golden.model(&device);
    let x = golden.tensor("x", &device);
    let plain = values(burn_lora_adapter::project(&base.first, x.clone()));
    let model = attach(base, DEFAULT_NAME, config).unwrap();
    Device::flex().seed(seed);
    let trained = burn_lora_adapter::project(&model.first, x.clone());
    let model = model.valid();
    assert!(!drops_inputs(&model), "nothing is drawn in evaluation");
    let evaluated = burn_lora_adapter::project(&model.first, x.inner());
    let [_, d_out] = evaluated.dims();
    [values(trained), values(evaluated)].map(|with| {
        let added = with.iter().zip(&plain).map(|(with, plain)| with - plain);
        let added: Vec<f32> = added.collect();
        added.chunks(d_out).map(<[f32]>::to_vec).collect()
    })
}

/// What each output is multiplied by in training; the same for all rows.
fn factors([trained, evaluated]: &[Vec<Vec<f32>>; 2]) -> Vec<f32> {
    let of_output = |output: usize| {
        let row = (0..evaluated.len()).max_by(|x, y| {
            let size = |row: &usize| evaluated[*row][output].abs();
            size(x).total_cmp(&size(y))
        });
        let row = row.unwrap();
        let factor = trained[row][output] / evaluated[row][output];
        for (with, without) in trained.iter().zip(evaluated) {
            let gap = (with[output] - factor * without[output]).abs();
            assert!(gap < 1e-4, "output {output} is dropped in some rows only");
        }
        factor
    };
    (0..evaluated[0].len()).map(of_output).collect()
}

#[test]
fn outputs_are_dropped_in_training_and_scaled_as_peft_scales_them() {
    let _alone = alone();
    let golden = Golden::read();
    let mut dropped = 0;
    let mut all = 0;
    for seed in 0..40 {
        for (method, is_scaled) in [
            (loha(0.4, 0.0), true),
            (lokr(0.4, false, 0.0), false),
            (lokr(0.4, true, 0.0), true),
        ] {
            let factors = factors(&added(&golden, &config(method), seed));
            let kept = factors.iter().filter(|factor| factor.abs() > 1e-3).count();
            let expected = match is_scaled {
                true => factors.len() as f32 / kept.max(1) as f32,
                false => 1.0,
            };
            for factor in &factors {
                let is_as_expected = factor.abs() < 1e-3 || (factor - expected).abs() < 1e-2;
                assert!(is_as_expected, "{factors:?}, not 0 or {expected}");
            }
            dropped += factors.len() - kept;
            all += factors.len();
        }
    }
    let share = dropped as f64 / all as f64;
    assert!(
        (share - 0.4).abs() < 0.05,
        "{share} of the outputs were dropped"
    );
}

#[test]
fn the_whole_change_of_a_layer_is_dropped_and_never_scaled() {
    let _alone = alone();
    let golden = Golden::read();
    let mut dropped = 0;
    for seed in 0..100 {
        let factors = factors(&added(&golden, &config(lokr(0.0, false, 0.3)), seed));
        let is_dropped = factors.iter().all(|factor| factor.abs() < 1e-3);
        let is_whole = factors.iter().all(|factor| (factor - 1.0).abs() < 1e-2);
        assert!(is_dropped != is_whole, "{factors:?}");
        dropped += usize::from(is_dropped);
    }
    assert!((20..40).contains(&dropped), "{dropped} of 100");
}

#[test]
fn a_seed_repeats_what_is_dropped() {
    let _alone = alone();
    let golden = Golden::read();
    let config = config(loha(0.5, 0.2));
    let once = added(&golden, &config, 3);
    assert_eq!(once, added(&golden, &config, 3));
    assert!((4..9).any(|seed| added(&golden, &config, seed) != once));
}

/// A layer of Burn's own, which composes the weight.
#[derive(Module, Debug)]
struct Plane {
    plane: Conv2d,
}

#[test]
fn a_layer_that_composes_its_weight_drops_outputs_too_and_merging_drops_none() {
    let _alone = alone();
    let device = Device::flex().autodiff();
    Device::flex().seed(1);
    let plane = Conv2dConfig::new([3, 8], [2, 2]).init(&device);
    let base = Plane { plane };
    let of_output = |weight: Tensor<4>| -> Vec<Vec<f32>> {
        let all = values(weight);
        all.chunks(all.len() / 8).map(<[f32]>::to_vec).collect()
    };
    let without = of_output(base.plane.weight.val());
    for use_effective_conv2d in [false, true] {
        let method = MethodConfig::LoHa(LoHaConfig {
            use_effective_conv2d,
            rank_dropout: 0.5,
            module_dropout: 0.0,
        });
        let config = config(method).with_targets(Targets::names(["plane"]));
        let model = attach(base.clone(), DEFAULT_NAME, &config).unwrap();
        assert!(drops_inputs(&model));
        Device::flex().seed(7);
        let trained = of_output(model.plane.weight.val());
        let unchanged = trained.iter().zip(&without).filter(|(x, y)| x == y);
        assert!(
            (1..8).contains(&unchanged.count()),
            "some outputs are dropped"
        );

        let evaluated = of_output(model.valid().plane.weight.val());
        assert!(evaluated.iter().zip(&without).all(|(x, y)| x != y));
        let merged = of_output(merge(model).unwrap().plane.weight.val());
        assert_eq!(merged, evaluated);
    }
}

#[test]
fn gradients_of_dropped_outputs_are_0() {
    let _alone = alone();
    let device = Device::flex().autodiff();
    let golden = Golden::read();
    let model = attach(golden.model(&device), DEFAULT_NAME, &config(loha(0.5, 0.0))).unwrap();
    Device::flex().seed(2);
    let x = golden.tensor("x", &device);
    let gradients = burn_lora_adapter::project(&model.first, x).sum().backward();
    let weights = burn_lora_adapter::adapted_weights(&model);
    let burn_lora_adapter::Method::LoHa(loha) = weights[0].stack.method(DEFAULT_NAME).unwrap()
    else {
        panic!("no LoHa");
    };
    let of = |param: &Param<Tensor<2>>| values(param.val().grad(&gradients).unwrap());
    let [_, d_out] = loha.b1.val().dims();
    let column = |values: &[f32], column: usize| -> Vec<f32> {
        values.iter().skip(column).step_by(d_out).copied().collect()
    };
    let (b1, b2) = (of(&loha.b1), of(&loha.b2));
    let silent = (0..d_out).filter(|output| {
        let is_silent = |values: &[f32]| column(values, *output).iter().all(|value| *value == 0.0);
        assert_eq!(is_silent(&b1), is_silent(&b2));
        is_silent(&b1)
    });
    assert!((1..d_out).contains(&silent.count()));
}

#[test]
fn a_folder_says_what_is_dropped_and_wrong_probabilities_are_refused() {
    let _alone = alone();
    let golden = Golden::read();
    let device = Device::flex();
    for method in [loha(0.25, 0.125), lokr(0.5, true, 0.0625)] {
        let config = config(method);
        let model = attach(golden.model(&device), DEFAULT_NAME, &config).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let metadata = PeftMetadata::default();
        peft::save(&model, DEFAULT_NAME, &config, &metadata, folder.path()).unwrap();
        let (_, read) = peft::load(golden.model(&device), DEFAULT_NAME, folder.path()).unwrap();
        assert_eq!(read.method, config.method);

        let path = folder.path().join(peft::CONFIG_FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        let mut fields: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
        fields.insert("rank_dropout".into(), json!(1.0));
        fields.insert("module_dropout".into(), json!(-0.5));
        std::fs::write(&path, serde_json::to_string(&fields).unwrap()).unwrap();
        let error = peft::load(golden.model(&device), DEFAULT_NAME, folder.path()).unwrap_err();
        let AdapterError::Config { faults } = &error else {
            panic!("{error}");
        };
        assert!(
            faults.len() == 2 && faults[0].contains("rank_dropout is 1"),
            "{faults:?}"
        );
    }
}
