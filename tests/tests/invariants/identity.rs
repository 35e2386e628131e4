//! A fresh adapter changes nothing, and both ways to compute it agree.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Distribution, Tensor};
use burn_lora::adapter::{DEFAULT_NAME, LoraConfig, LoraInit, Targets, attach, project};
use burn_lora_tests::{assert_close, assert_same, floats, on_each_device, on_every_subject};

use crate::common::{assert_changed, changed};

// 1. A fresh adapter with the default init is the identity; with init off the output differs.

#[test]
fn i01_a_fresh_adapter_is_the_identity() {
    on_every_subject!(|subject| {
        let adapted = attach(subject.base.clone(), DEFAULT_NAME, &subject.config()).unwrap();
        let expected = subject.output(&subject.base);
        assert_same(subject.name, &subject.output(&adapted), &expected);
        let gaussian = subject.config().with_init(LoraInit::Gaussian);
        let adapted = attach(subject.base.clone(), DEFAULT_NAME, &gaussian).unwrap();
        assert_same(subject.name, &subject.output(&adapted), &expected);
    });
}

#[test]
fn i01_an_adapter_with_random_factors_changes_the_output() {
    on_every_subject!(|subject| {
        let before = subject.output(&subject.base);
        assert_changed(subject.name, &subject.output(&changed(&subject)), &before);
    });
}

#[test]
fn i01_the_activation_path_computes_what_the_composed_weight_does() {
    on_each_device(|device| {
        for has_bias in [false, true] {
            let layer = LinearConfig::new(24, 17).with_bias(has_bias).init(&device);
            let mut config = LoraConfig::new(5, 3.0).with_init(LoraInit::Random);
            config.targets = Targets::Regex(".*".to_string());
            let layer = attach(Layer { layer }, DEFAULT_NAME, &config)
                .unwrap()
                .layer;
            let x = Tensor::<3>::random([2, 7, 24], Distribution::Default, &device);
            let composed = floats(layer.forward(x.clone()));
            assert_close(
                "project",
                &floats(project(&layer, x.clone())),
                &composed,
                1e-5,
            );
            let base = floats(x.matmul(layer.weight.base().unsqueeze()));
            assert_changed("the adapter", &base, &composed);
        }
    });
}

#[derive(Module, Debug)]
struct Layer {
    layer: Linear,
}
