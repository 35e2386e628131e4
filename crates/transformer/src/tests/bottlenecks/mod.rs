mod encoders;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::DType;

use super::*;
use crate::{
    Activation, BottleneckConfig, BottleneckError, BottleneckPlacement, GenerateOptions,
    WithBottlenecks, generate,
};

const PLACEMENTS: [BottleneckPlacement; 3] = [
    BottleneckPlacement::Houlsby,
    BottleneckPlacement::Pfeiffer,
    BottleneckPlacement::Parallel,
];

/// Moves every trainable parameter, so that the zeros of fresh ones are gone.
pub(super) struct Shift(pub(super) u32);

impl ModuleMapper for Shift {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.clone().train().is_require_grad() {
            return param;
        }
        self.0 += 1;
        let step = 0.05 * self.0 as f32;
        param.map(|value| {
            let count = value.shape().num_elements();
            let wave: Vec<f32> = (0..count)
                .map(|index| (index as f32 * step).sin() * 0.3)
                .collect();
            let wave = Tensor::from_data(TensorData::new(wave, value.shape()), &value.device());
            match value.is_autodiff() {
                true => (value + wave).detach().require_grad(),
                false => value + wave,
            }
        })
    }
}

#[derive(Default)]
struct Trainable {
    count: usize,
}

impl ModuleVisitor for Trainable {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.is_require_grad() {
            self.count += param.val().shape().num_elements();
        }
    }
}

fn config(placement: BottleneckPlacement) -> BottleneckConfig {
    BottleneckConfig {
        activation: Activation::Silu,
        scale: 0.7,
        ..BottleneckConfig::new(5, placement)
    }
}

#[test]
fn fresh_ones_change_nothing_and_moved_ones_do() {
    let rows = ids(&[&[1, 2, 3, 4], &[9, 8, 7, 6]]);
    for (name, base) in decoders() {
        let expected = base.logits(rows.clone());
        for placement in PLACEMENTS {
            let fresh = base
                .clone()
                .with_bottlenecks(&config(placement), 1)
                .expect(name);
            assert_eq!(fresh.bottlenecks(), Some(placement));
            assert_eq!(
                fresh.logits(rows.clone()).into_data(),
                expected.clone().into_data(),
                "{name}"
            );
            let trained = fresh.train();
            let mut seen = Trainable::default();
            trained.visit(&mut seen);
            assert_eq!(
                seen.count,
                config(placement).num_parameters(16, 2),
                "{name} {placement:?}"
            );
            let moved = trained.map(&mut Shift(0)).valid();
            let logits = Tensor::<3>::from_data(
                moved
                    .logits(ids(&[&[1, 2, 3, 4], &[9, 8, 7, 6]]))
                    .into_data(),
                &Device::flex(),
            );
            let distance: f32 = (logits - expected.clone()).abs().max().into_scalar();
            assert!(distance > 1e-2, "{name} {placement:?}: {distance}");
            let without = moved.without_bottlenecks();
            assert_eq!(
                without.logits(rows.clone()).into_data(),
                expected.clone().into_data(),
                "{name}"
            );
        }
    }
}

/// The formula, by hand, on the first block of a model of one.
#[test]
fn a_bottleneck_is_its_formula() {
    let (_, base) = decoders().remove(0);
    let config = config(BottleneckPlacement::Pfeiffer);
    let decoder = base.with_bottlenecks(&config, 1).expect("valid");
    let decoder = decoder.map(&mut Shift(0));
    let found = crate::Bottleneck::clone(
        decoder.trunk.blocks[0]
            .bottlenecks()
            .after_inner()
            .expect("there"),
    );
    let x = Tensor::<3>::from_data(
        TensorData::new((0..32).map(|i| (i as f32).cos()).collect(), [1, 2, 16]),
        &Device::flex(),
    );
    let down =
        x.clone().reshape([2, 16]).matmul(found.down.val()) + found.down_bias.val().unsqueeze();
    let inner = down.clone() * burn::tensor::activation::sigmoid(down);
    let up = (inner.matmul(found.up.val()) + found.up_bias.val().unsqueeze()) * 0.7;
    assert_close(
        "formula",
        found.forward(x.clone()),
        x + up.unsqueeze(),
        1e-5,
    );
}

#[test]
fn cache_generation_and_recomputation_know_them() {
    for (name, base) in decoders() {
        for placement in PLACEMENTS {
            let decoder = base
                .clone()
                .with_bottlenecks(&config(placement), 2)
                .expect(name);
            let decoder = decoder.train().map(&mut Shift(3));
            let plain = decoder.valid();
            let prompt = vec![1, 2, 3];
            let options = GenerateOptions {
                max_new_tokens: 3,
                ..GenerateOptions::default()
            };
            let answer = generate(&plain, std::slice::from_ref(&prompt), &options)
                .expect(name)
                .remove(0);
            let row = Tensor::from_data(ids(&[&prompt]).into_data(), &plain.device());
            let best: i32 = plain
                .logits(row)
                .slice([0..1, 2..3])
                .argmax(2)
                .into_scalar();
            assert_eq!(answer[0], best as u32, "{name}");

            let gradients = |decoder: &Decoder| {
                let row = Tensor::from_data(ids(&[&[1, 2, 3, 4]]).into_data(), &decoder.device());
                let loss = decoder.logits(row).powi_scalar(2).mean();
                let gradients = loss.backward();
                let mut reader = Gradients {
                    gradients: &gradients,
                    found: Vec::new(),
                };
                decoder.visit(&mut reader);
                reader.found
            };
            let kept = gradients(&decoder);
            let places = if placement == BottleneckPlacement::Houlsby {
                2
            } else {
                1
            };
            assert_eq!(kept.len(), 2 * places * 4, "{name}: the base is frozen");
            assert_eq!(
                kept,
                gradients(&decoder.clone().with_recompute(usize::MAX)),
                "{name}"
            );
        }
    }
}

struct Gradients<'a> {
    gradients: &'a burn::tensor::Gradients,
    found: Vec<TensorData>,
}

impl ModuleVisitor for Gradients<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.base().grad(self.gradients) {
            self.found.push(gradient.into_data());
        }
    }
}

#[test]
fn a_folder_brings_them_back_and_faults_come_together() {
    let (_, base) = decoders().remove(0);
    let rows = ids(&[&[1, 2, 3, 4]]);
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    for placement in PLACEMENTS {
        let config = config(placement);
        let decoder = base
            .clone()
            .with_bottlenecks(&config, 1)
            .expect("valid")
            .map(&mut Shift(0));
        decoder
            .save_bottlenecks(folder, &config, Some("base"))
            .expect("saved");
        let (again, read) = base.clone().load_bottlenecks(folder).expect("read");
        assert_eq!(read, config);
        assert_eq!(
            again.logits(rows.clone()).into_data(),
            decoder.logits(rows.clone()).into_data()
        );
        assert!(
            decoder
                .save_bottlenecks(folder, &BottleneckConfig { width: 4, ..config }, None)
                .is_err()
        );
    }
    let faults = |text: &str| {
        std::fs::write(folder.join("adapter_config.json"), text).expect("written");
        match base.clone().load_bottlenecks(folder) {
            Err(BottleneckError::Folder { faults, .. }) => faults,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(faults("{}").len(), 4);
    // The file has those of `Parallel`: four of two blocks each are missing, and as many are too many.
    let other = r#"{"peft_type": "BOTTLENECK", "placement": "pfeiffer", "non_linearity": "silu", "bottleneck_size": 5}"#;
    assert_eq!(faults(other).len(), 16);
    let wide = other.replace("pfeiffer", "parallel").replace(": 5", ": 4");
    assert_eq!(faults(&wide).len(), 6);
    for (width, scale) in [(0, f64::NAN), (17, 0.0)] {
        let wrong = BottleneckConfig {
            width,
            scale,
            ..config(BottleneckPlacement::Houlsby)
        };
        match base.clone().with_bottlenecks(&wrong, 0) {
            Err(BottleneckError::Config { faults }) => assert_eq!(faults.len(), 2),
            other => panic!("{other:?}"),
        }
    }
    let adapted = base
        .with_bottlenecks(&config(BottleneckPlacement::Houlsby), 0)
        .expect("valid");
    assert!(
        adapted.save(folder, DType::F32).is_err(),
        "a checkpoint has no place for them"
    );
}
