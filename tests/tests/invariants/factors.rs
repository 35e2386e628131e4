//! How the factors of a fresh adapter start.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use burn_lora::adapter::{DEFAULT_NAME, LoraConfig, LoraInit, attach};
use burn_lora_tests::{devices, on_each_device, parameters};

use crate::common::{adapters_of, assert_changed};

// 2. A is Kaiming-uniform, B exactly 0; `gaussian` gives A ~ N(0, 1/r).

/// The factors of a fresh adapter on layers of 200 and 50 inputs.
fn fresh(device: &Device, init: LoraInit, seed: u64) -> BTreeMap<String, Vec<f32>> {
    let module = Wide {
        first: LinearConfig::new(200, 50).init(device),
        second: LinearConfig::new(50, 200).init(device),
    };
    let config = LoraConfig::new(16, 16.0).with_init(init).with_seed(seed);
    let module = attach(module, DEFAULT_NAME, &config).unwrap();
    let parameters = adapters_of(parameters(&module)).into_iter();
    parameters
        .map(|(path, data)| (path, data.try_to_vec().unwrap()))
        .collect()
}

#[derive(Module, Debug)]
struct Wide {
    first: Linear,
    second: Linear,
}

const FIRST_A: &str = "first.weight.lora.default.a";
const SECOND_A: &str = "second.weight.lora.default.a";

/// The largest distance between the empirical and the expected distribution function (Kolmogorov and Smirnov).
fn ks_distance(sample: &[f32], distribution: impl Fn(f64) -> f64) -> f64 {
    let mut sorted: Vec<f64> = sample.iter().map(|value| f64::from(*value)).collect();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len() as f64;
    let gaps = sorted.iter().enumerate().map(|(index, value)| {
        let expected = distribution(*value);
        let (below, above) = (index as f64 / count, (index + 1) as f64 / count);
        (expected - below).abs().max((expected - above).abs())
    });
    gaps.fold(0.0, f64::max)
}

/// Where the test rejects with a significance of 1 %.
fn ks_limit(sample: &[f32]) -> f64 {
    1.63 / (sample.len() as f64).sqrt()
}

/// The standard normal distribution function (Abramowitz and Stegun, 26.2.17; error below 1e-7).
fn normal(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let coefficients = [
        0.319_381_530,
        -0.356_563_782,
        1.781_477_937,
        -1.821_255_978,
        1.330_274_429,
    ];
    let series = coefficients.iter().rev().fold(0.0, |sum, c| (sum + c) * t);
    let tail = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt() * series;
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[test]
fn i02_a_is_kaiming_uniform_and_b_zero() {
    on_each_device(|device| {
        let factors = fresh(&device, LoraInit::KaimingUniform, 1);
        for (path, d_in) in [(FIRST_A, 200.0_f64), (SECOND_A, 50.0)] {
            // Kaiming-uniform with a = sqrt(5): the bound is sqrt(6 / ((1 + 5) d_in)).
            let bound = 1.0 / d_in.sqrt();
            let distance = ks_distance(&factors[path], |x| {
                ((x / bound + 1.0) / 2.0).clamp(0.0, 1.0)
            });
            assert!(
                distance < ks_limit(&factors[path]),
                "{path}: distance {distance}"
            );
        }
        assert_b_is_zero(&factors);
    });
}

#[test]
fn i02_gaussian_a_is_normal_with_deviation_one_over_r_and_b_zero() {
    on_each_device(|device| {
        let factors = fresh(&device, LoraInit::Gaussian, 1);
        for path in [FIRST_A, SECOND_A] {
            let distance = ks_distance(&factors[path], |x| normal(x * 16.0));
            assert!(
                distance < ks_limit(&factors[path]),
                "{path}: distance {distance}"
            );
        }
        assert_b_is_zero(&factors);
    });
}

fn assert_b_is_zero(factors: &BTreeMap<String, Vec<f32>>) {
    let b: Vec<_> = factors
        .iter()
        .filter(|(path, _)| path.ends_with(".b"))
        .collect();
    assert_eq!(b.len(), 2);
    for (path, values) in b {
        assert!(values.iter().all(|value| *value == 0.0), "{path} is not 0");
    }
}

#[test]
fn i02_the_seed_decides_the_factors_on_every_device_and_layers_differ() {
    let expected = fresh(&devices()[0], LoraInit::KaimingUniform, 3);
    on_each_device(|device| {
        assert_eq!(fresh(&device, LoraInit::KaimingUniform, 3), expected);
        assert_ne!(fresh(&device, LoraInit::KaimingUniform, 4), expected);
    });
    // The same stream would give the second layer a scaled copy of the first one's values.
    let scaled: Vec<f32> = expected[FIRST_A].iter().map(|value| value * 2.0).collect();
    assert_changed(
        "layers",
        &scaled[..expected[SECOND_A].len()],
        &expected[SECOND_A],
    );
}
