//! Adapters over f16 and bf16 bases.

use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{DType, Device};
use burn_lora::adapter::{merge, unmerge};
use burn_lora_tests::{
    assert_close, assert_same, gpt2, gradients, llama, mlp, on_each_device, parameters,
};

use crate::common::{changed, is_adapter};

// 8. f16 and bf16 bases: forward, backward, merge run; adapters stay f32.

/// How far outputs in a format may be from those in f32, relative to the largest.
fn low_precision(device: &Device) -> Vec<(DType, f32)> {
    let formats = [(DType::F16, 1e-2), (DType::BF16, 6e-2)];
    formats
        .into_iter()
        .filter(|(dtype, _)| device.supports_dtype(*dtype))
        .collect()
}

macro_rules! on_every_low_precision_subject {
    (|$subject:ident, $exact:ident, $tolerance:ident| $body:block) => {
        on_each_device(|device| {
            for (dtype, $tolerance) in low_precision(&device) {
                let device = device.clone().autodiff();
                {
                    let ($subject, $exact) = (llama(&device, dtype), llama(&device, DType::F32));
                    $body
                }
                {
                    let ($subject, $exact) = (gpt2(&device, dtype), gpt2(&device, DType::F32));
                    $body
                }
                {
                    let ($subject, $exact) = (mlp(&device, dtype), mlp(&device, DType::F32));
                    $body
                }
            }
        })
    };
}

fn largest(values: &[f32]) -> f32 {
    values
        .iter()
        .fold(0.0, |largest, value| largest.max(value.abs()))
}

#[test]
fn i08_flex_has_both_low_precision_formats() {
    // Elsewhere the tests of this section may find nothing to run on; there they do.
    assert_eq!(low_precision(&Device::flex()).len(), 2);
}

#[test]
fn i08_forward_and_merge_over_a_low_precision_base_are_near_f32() {
    on_every_low_precision_subject!(|subject, exact, tolerance| {
        let expected = exact.output(&changed(&exact));
        let tolerance = tolerance * largest(&expected);
        let adapted = changed(&subject);
        assert_close(
            subject.name,
            &subject.output(&adapted),
            &expected,
            tolerance,
        );
        let merged = merge(adapted.clone()).unwrap();
        assert_close(subject.name, &subject.output(&merged), &expected, tolerance);
        let unmerged = unmerge(merged).unwrap();
        assert_same(
            subject.name,
            &subject.output(&unmerged),
            &subject.output(&adapted),
        );
    });
}

#[test]
fn i08_adapters_over_a_low_precision_base_are_f32_and_train() {
    on_every_low_precision_subject!(|subject, exact, tolerance| {
        let mut model = changed(&subject);
        let loss = subject.loss(&model);
        let found = gradients(&model, &loss.backward());
        let model_exact = changed(&exact);
        let expected = gradients(&model_exact, &exact.loss(&model_exact).backward());
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>()
        );
        for (path, gradient) in &found {
            assert_eq!(gradient.dtype(), DType::F32, "{path}");
            let expected: Vec<f32> = expected[path].try_to_vec().unwrap();
            let tolerance = 3.0 * tolerance * largest(&expected);
            assert_close(
                path,
                &gradient.try_to_vec::<f32>().unwrap(),
                &expected,
                tolerance,
            );
        }

        let before = parameters(&model);
        let mut optimizer = AdamWConfig::new().init();
        let gradients = GradientsParams::from_grads(subject.loss(&model).backward(), &model);
        model = optimizer.step(1e-3, model, gradients);
        for (path, value) in parameters(&model) {
            let is_same = before[&path] == value;
            assert_eq!(is_same, !is_adapter(&path), "{path} unchanged: {is_same}");
            let dtype = value.dtype();
            assert_eq!(
                dtype == DType::F32,
                is_adapter(&path),
                "{path} is {dtype:?}"
            );
        }
    });
}
