//! Biases of the base that are trained beside an adapter: PEFT's `bias`.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Tensor};
use burn_lora_adapter::{
    AdapterError, AdapterOnly, DEFAULT_NAME, LoraConfig, Targets, TrainedBiases, attach, delete,
    merge_and_unload, peft, peft::PeftMetadata, set_enabled, summary,
};

use common::{Golden, Two};

fn config(biases: TrainedBiases) -> LoraConfig {
    LoraConfig::new(2, 4.0)
        .with_targets(Targets::names(["first"]))
        .with_trained_biases(biases)
}

/// Every parameter by its path.
fn parameters<M: Module>(module: &M) -> BTreeMap<String, Vec<f32>> {
    #[derive(Default)]
    struct All(Vec<String>, BTreeMap<String, Vec<f32>>);
    impl ModuleVisitor for All {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.push(name.to_string());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let values = param.base().into_data().iter::<f32>().collect();
            self.1.insert(self.0.join("."), values);
        }
    }
    let mut all = All::default();
    module.visit(&mut all);
    all.1
}

fn trained(golden: &Golden, config: &LoraConfig) -> Two {
    let device = Device::flex().autodiff();
    let model = attach(golden.model(&device), DEFAULT_NAME, config).unwrap();
    let mut model = AdapterOnly::new(model);
    let mut sgd: ModuleOptimizer = SgdConfig::new().init();
    for _ in 0..3 {
        let error =
            model.inner().forward(golden.tensor("x", &device)) - golden.tensor("target", &device);
        let gradients = (error.clone() * error).mean().backward();
        let gradients = GradientsParams::from_grads(gradients, &model);
        model = sgd.step(0.1, model, gradients);
    }
    model.into_inner().valid()
}

fn output(golden: &Golden, model: &Two) -> Vec<f32> {
    let x = golden.tensor("x", &Device::flex());
    model.forward(x).into_data().iter::<f32>().collect()
}

#[test]
fn those_that_are_asked_for_are_trained_and_nothing_else_of_the_base_is() {
    let golden = Golden::read();
    let before = parameters(&golden.model(&Device::flex()));
    for (biases, expected) in [
        (TrainedBiases::None, &[][..]),
        (TrainedBiases::Adapted, &["first.bias"]),
        (TrainedBiases::All, &["first.bias", "second.bias"]),
    ] {
        let model = trained(&golden, &config(biases));
        let after = parameters(&model);
        let changed: Vec<&str> = before
            .iter()
            .filter(|(path, values)| after[*path] != **values)
            .map(|(path, _)| path.as_str())
            .collect();
        assert_eq!(changed, expected, "{biases:?}");
        let count: usize = expected.iter().map(|path| before[*path].len()).sum();
        assert_eq!(summary(&model).trainable, 2 * (10 + 14) + count);
        // Wrapped anew, as a resumed run would, the same is shown.
        let shown = parameters(&AdapterOnly::new(model));
        assert_eq!(shown.len(), 2 + expected.len());
    }
}

#[test]
fn they_stay_when_the_adapter_is_off_deleted_or_merged() {
    let golden = Golden::read();
    let model = trained(&golden, &config(TrainedBiases::All));
    let mut plain = golden.model(&Device::flex());
    plain.first.bias = Some(Param::from_tensor(model.first.bias.as_ref().unwrap().val()));
    plain.second.bias = Some(Param::from_tensor(
        model.second.bias.as_ref().unwrap().val(),
    ));
    let expected = output(&golden, &plain);
    let off = set_enabled(model.clone(), false).unwrap();
    assert_eq!(output(&golden, &off), expected);
    let deleted = delete(model.clone(), DEFAULT_NAME).unwrap();
    assert_eq!(output(&golden, &deleted), expected);
    let merged = merge_and_unload(model.clone()).unwrap();
    let (merged, with) = (output(&golden, &merged), output(&golden, &model));
    let gap = merged.iter().zip(&with).map(|(x, y)| (x - y).abs());
    assert!(gap.fold(0.0, f32::max) < 1e-5);
    assert_ne!(with, expected);
}

#[test]
fn a_folder_holds_them_where_peft_looks_for_them() {
    let golden = Golden::read();
    for (biases, word) in [
        (TrainedBiases::Adapted, "lora_only"),
        (TrainedBiases::All, "all"),
    ] {
        let config = config(biases);
        let model = trained(&golden, &config);
        let folder = tempfile::tempdir().unwrap();
        let metadata = PeftMetadata::default();
        peft::save(&model, DEFAULT_NAME, &config, &metadata, folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join(peft::CONFIG_FILE)).unwrap();
        assert!(text.contains(&format!("\"bias\": \"{word}\"")), "{text}");
        let base = golden.model(&Device::flex());
        let (loaded, read) = peft::load(base, DEFAULT_NAME, folder.path()).unwrap();
        assert_eq!(read, config);
        assert_eq!(parameters(&loaded), parameters(&model));
        let bytes = std::fs::read(folder.path().join(peft::WEIGHTS_FILE)).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut keys: Vec<&str> = file
            .names()
            .into_iter()
            .filter(|key| key.ends_with(".bias"))
            .collect();
        keys.sort_unstable();
        let mut expected = vec!["base_model.model.first.base_layer.bias"];
        if biases == TrainedBiases::All {
            expected.push("base_model.model.second.bias");
        }
        assert_eq!(keys, expected);
    }
}

#[test]
fn one_adapter_alone_may_have_them() {
    let golden = Golden::read();
    let model = trained(&golden, &config(TrainedBiases::All));
    let again = attach(model.clone(), "second", &config(TrainedBiases::Adapted));
    let Err(AdapterError::Config { faults }) = again else {
        panic!("it was attached");
    };
    assert!(
        faults[0].contains("another adapter trains biases"),
        "{faults:?}"
    );
    assert!(attach(model, "second", &config(TrainedBiases::None)).is_ok());
    let word = config(TrainedBiases::All).with_method("loha".parse().unwrap());
    let error = attach(golden.model(&Device::flex()), "x", &word).unwrap_err();
    assert!(
        error.to_string().contains("has no trained biases"),
        "{error}"
    );
}
