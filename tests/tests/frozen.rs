//! Only adapter parameters have gradients, optimizer state and checkpoint bytes: by counting.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn_lora::adapter::{AdapterOnly, DEFAULT_NAME, LoraInit, attach, summary};
use burn_lora::train::{Observer, TrainConfig, TrainData, finetune};
use burn_lora_tests::{Golden, Subject, assert_same, on_each_device, on_every_subject, parameters};

/// A module whose adapter has a gradient everywhere.
fn trained<M: Module>(subject: &Subject<M>) -> AdapterOnly<M> {
    let config = subject.config().with_init(LoraInit::Random);
    AdapterOnly::new(attach(subject.base.clone(), DEFAULT_NAME, &config).unwrap())
}

/// Parameters of the adapter: rank times the sum of the widths, over the targets.
fn adapter_parameters<M: Module>(subject: &Subject<M>) -> usize {
    let rank = subject.config().rank;
    subject
        .adapted
        .iter()
        .map(|[d_in, d_out]| rank * (d_in + d_out))
        .sum()
}

#[test]
fn the_module_shows_its_adapter_parameters_only() {
    on_every_subject!(autodiff, |subject| {
        let model = trained(&subject);
        assert_eq!(
            model.num_params(),
            adapter_parameters(&subject),
            "{}",
            subject.name
        );
        let paths = parameters(&model);
        assert_eq!(paths.len(), 2 * subject.adapted.len(), "{}", subject.name);
        assert!(
            paths.keys().all(|path| path.contains(".lora.default.")),
            "{}",
            subject.name
        );
        assert_eq!(
            summary(model.inner()).trainable,
            adapter_parameters(&subject),
            "{}",
            subject.name
        );
    });
}

#[test]
fn gradients_exist_for_the_adapter_only() {
    on_every_subject!(autodiff, |subject| {
        let model = trained(&subject);
        let loss = subject.loss(model.inner());
        // Asked for the whole module: the base must have none, not merely be hidden.
        let gradients = GradientsParams::from_grads(loss.backward(), model.inner());
        assert_eq!(
            gradients.len(),
            2 * subject.adapted.len(),
            "{}",
            subject.name
        );
    });
}

#[test]
fn optimizer_state_exists_for_the_adapter_only() {
    on_every_subject!(autodiff, |subject| {
        let model = trained(&subject);
        let gradients = GradientsParams::from_grads(subject.loss(model.inner()).backward(), &model);
        let mut optimizer = AdamWConfig::new().init();
        let model = optimizer.step(1e-3, model, gradients);
        let state = optimizer.into_bytes().unwrap().len();
        // Two f32 moments for each parameter, and a bounded header and step count for each tensor.
        let moments = 2 * size_of::<f32>() * adapter_parameters(&subject);
        let overhead = 4096 * 2 * subject.adapted.len();
        let name = subject.name;
        assert!(
            (moments..moments + overhead).contains(&state),
            "{name}: {state} bytes, {moments} of moments"
        );

        // What an unfrozen module would have left, by the same measure: the count can tell the two apart.
        let unfrozen = model.into_inner().unfreeze();
        let gradients = GradientsParams::from_grads(subject.loss(&unfrozen).backward(), &unfrozen);
        assert!(gradients.len() > 2 * subject.adapted.len(), "{name}");
    });
}

#[test]
fn a_checkpoint_holds_the_adapter_only_and_restores_it() {
    on_every_subject!(autodiff, |subject| {
        let model = trained(&subject);
        let expected = subject.output(model.inner());
        let record = model.clone().into_record();
        assert_eq!(record.len(), 2 * subject.adapted.len(), "{}", subject.name);
        let bytes = record.into_bytes().unwrap();
        let tensors = size_of::<f32>() * adapter_parameters(&subject);
        let overhead = 4096 + 512 * 2 * subject.adapted.len();
        let name = subject.name;
        let range = tensors..tensors + overhead;
        assert!(
            range.contains(&bytes.len()),
            "{name}: {} bytes, {tensors} of tensors",
            bytes.len()
        );

        let fresh = attach(subject.base.clone(), DEFAULT_NAME, &subject.config()).unwrap();
        let record = burn::store::ModuleRecord::from_bytes(bytes).unwrap();
        let restored = AdapterOnly::new(fresh).try_load_record(record).unwrap();
        assert_same(name, &subject.output(restored.inner()), &expected);
    });
}

#[test]
fn attaching_leaves_every_weight_as_it_was() {
    on_every_subject!(autodiff, |subject| {
        let before = parameters(&subject.base);
        let after = parameters(trained(&subject).inner());
        assert_eq!(after.len(), before.len() + 2 * subject.adapted.len());
        for (path, before) in &before {
            assert!(after[path] == *before, "{}: {path}", subject.name);
        }
    });
}

#[test]
fn the_checkpoints_of_a_run_hold_the_adapter_only() {
    on_each_device(|device| {
        let golden = Golden::open("llama");
        let folder = tempfile::tempdir().unwrap();
        let config = TrainConfig {
            steps: 4,
            batch_size: 3,
            eval_every: Some(2),
            save_every: Some(2),
            keep: 1,
            output_dir: Some(folder.path().to_path_buf()),
            ..TrainConfig::default()
        };
        let data = TrainData {
            train: golden.examples(),
            valid: golden.examples(),
            pad: 0,
        };
        let outcome = finetune(golden.initial(&device), &config, data, Observer::Nobody).unwrap();

        let summary = summary(&outcome.model.clone().train());
        let (weights, base) = (
            4 * summary.trainable,
            4 * (summary.total - summary.trainable),
        );
        let bytes = total_bytes(&folder.path().join("checkpoints"));
        // The weights and two moments, with headers; one copy of the base would be far more.
        assert!(
            bytes >= 3 * weights,
            "{bytes} bytes, an adapter has {weights}"
        );
        assert!(
            bytes < 3 * weights + base / 2,
            "{bytes} bytes, the base has {base}"
        );
    });
}

fn total_bytes(folder: &Path) -> usize {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let sizes = entries.map(|path| match path.is_dir() {
        true => total_bytes(&path),
        false => fs::metadata(&path).unwrap().len() as usize,
    });
    sizes.sum()
}
