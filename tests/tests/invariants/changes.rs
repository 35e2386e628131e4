//! How much an adapter changes a weight, by factors and by dense matrices.

use burn_lora::adapter::{
    DEFAULT_NAME, FactorSet, MethodConfig, attach, changes, merge_and_unload, peft,
    peft::PeftMetadata,
};
use burn_lora_tests::{Mlp, floats, methods_for, mlp, on_each_device, random};

fn matrices(model: &Mlp) -> Vec<Vec<f32>> {
    [&model.up, &model.down]
        .map(|layer| floats(layer.weight.val()))
        .into()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

#[test]
fn the_norm_is_that_of_the_dense_change() {
    on_each_device(|device| {
        let subject = mlp(&device, burn::tensor::DType::F32);
        for config in methods_for(&random(&subject.config()), "down") {
            if matches!(config.method, MethodConfig::Full) {
                // It changes vectors, too, and every layer.
                continue;
            }
            let model = attach(subject.base.clone(), DEFAULT_NAME, &config).unwrap();
            let found = changes(&model, DEFAULT_NAME);
            assert_eq!(found.len(), 2, "{}", config.method);
            assert!(changes(&model, "another").is_empty());
            let merged = merge_and_unload(model).unwrap();
            let pairs = matrices(&merged).into_iter().zip(matrices(&subject.base));
            for (change, (after, before)) in found.iter().zip(pairs) {
                let both = after.iter().zip(&before);
                let expected = norm(both.map(|(after, before)| f64::from(after - before)));
                let error = (change.norm - expected).abs() / expected;
                assert!(error < 1e-4, "{} {change:?}: {expected}", config.method);
                let weight = norm(before.iter().map(|value| f64::from(*value)));
                let share = change.share().unwrap();
                assert!(
                    (share - expected / weight).abs() < 1e-4,
                    "{}",
                    config.method
                );
            }
        }
    });
}

#[test]
fn a_folder_tells_the_same_norms() {
    on_each_device(|device| {
        let subject = mlp(&device, burn::tensor::DType::F32);
        let config = random(&subject.config());
        let model = attach(subject.base.clone(), DEFAULT_NAME, &config).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let metadata = PeftMetadata::default();
        peft::save(&model, DEFAULT_NAME, &config, &metadata, dir.path()).unwrap();
        let report = peft::inspect(dir.path()).unwrap();
        assert!(report.faults.is_empty(), "{:?}", report.faults);
        let set = FactorSet::load(dir.path()).unwrap();
        let known = changes(&model, DEFAULT_NAME);
        assert_eq!(report.layers.len(), known.len());
        for layer in &report.layers {
            let change = layer.change.as_ref().unwrap();
            let of_model = known
                .iter()
                .find(|known| known.layer == layer.layer)
                .unwrap();
            assert!((change.norm - of_model.norm).abs() < 1e-5 * of_model.norm);
            let dense = set.get(&layer.layer).unwrap().delta().norm();
            assert!(
                (change.norm - dense).abs() < 1e-9 * dense,
                "{change:?}: {dense}"
            );
        }
    });
}
