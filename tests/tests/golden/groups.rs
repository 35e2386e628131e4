//! LoRA on convolutions in groups: PEFT's folders and ours.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Tensor, TensorData};
use burn_lora::adapter::{
    AdapterError, AdapterOnly, DEFAULT_NAME, LoraConfig, LoraInit, Targets, TensorFault, attach,
    merge, merge_and_unload, peft, peft::PeftMetadata,
};
use burn_lora_tests::{Grouped, MethodCase, assert_close, floats, on_each_device};
use safetensors::tensor::{Dtype, TensorView};

use crate::common::LOGITS;

fn case() -> MethodCase {
    MethodCase::grouped().next().unwrap()
}

fn input(case: &MethodCase, device: &Device) -> Tensor<3> {
    Tensor::from_data(TensorData::new(case.floats("x"), [2, 6, 9]), device)
}

fn output(case: &MethodCase, model: &Grouped, device: &Device) -> Vec<f32> {
    floats(model.forward(input(case, device)))
}

/// LoRA of our own, whose A sees the channels of a group and is one for all groups.
fn own() -> LoraConfig {
    LoraConfig::new(2, 6.0)
        .with_targets(Targets::names(["line", "plane"]))
        .with_init(LoraInit::Random)
}

fn in_peft_form() -> LoraConfig {
    own()
        .with_conv_groups("line", 2)
        .with_conv_groups("plane", 4)
}

#[test]
fn an_adapter_of_peft_whose_rows_keep_to_their_groups_is_read_merged_and_written_again() {
    on_each_device(|device| {
        let case = case();
        let base = case.convolutions_in_groups(&device);
        let plain = output(&case, &base, &device);
        assert_close("base", &plain, &case.floats("base.logits"), LOGITS);
        let theirs = case.adapter_folder();
        let (model, config) = peft::load(base, DEFAULT_NAME, &theirs).unwrap();
        let expected = case.floats("trained.logits");
        let actual = output(&case, &model, &device);
        assert_close("trained", &actual, &expected, LOGITS);
        let merged = merge(model.clone()).unwrap();
        assert_close(
            "merged",
            &output(&case, &merged, &device),
            &expected,
            LOGITS,
        );

        let ours = tempfile::tempdir().unwrap();
        let metadata = PeftMetadata::default();
        peft::save(&model, DEFAULT_NAME, &config, &metadata, ours.path()).unwrap();
        let read = |folder: &Path| {
            let bytes = std::fs::read(folder.join(peft::WEIGHTS_FILE)).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let mut tensors: Vec<_> = file
                .iter()
                .map(|(key, view)| {
                    // Numbers and not bytes: a 0 of PEFT's may have a sign.
                    let numbers: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
                    (key.to_string(), view.shape().to_vec(), numbers)
                })
                .collect();
            tensors.sort_by(|(x, ..), (y, ..)| x.cmp(y));
            tensors
        };
        assert!(read(ours.path()) == read(&theirs), "the tensors");
    });
}

#[test]
fn an_adapter_that_looks_across_groups_is_refused_by_every_layer() {
    let device = Device::flex();
    let case = case();
    let scratch = tempfile::tempdir().unwrap();
    case.write_initial(scratch.path());
    let base = case.convolutions_in_groups(&device);
    let error = peft::load(base, DEFAULT_NAME, scratch.path()).unwrap_err();
    let AdapterError::Tensors { faults, .. } = &error else {
        panic!("{error}");
    };
    let found: Vec<(&str, usize)> = faults
        .iter()
        .map(|fault| match fault {
            TensorFault::AcrossGroups { key, groups } => (key.as_str(), *groups),
            other => panic!("{other}"),
        })
        .collect();
    let expected = [
        ("base_model.model.line.lora_A.weight", 2),
        ("base_model.model.plane.lora_A.weight", 4),
    ];
    assert_eq!(found, expected);
    assert!(
        error.to_string().contains("no weights between groups"),
        "{error}"
    );
}

#[test]
fn our_own_trains_merges_and_comes_back_from_either_form() {
    on_each_device(|device| {
        let case = case();
        let device = device.autodiff();
        let base = case.convolutions_in_groups(&device);
        let model = attach(base.clone(), DEFAULT_NAME, &own()).unwrap();
        let before = output(&case, &model, &device);
        let mut model = AdapterOnly::new(model);
        let mut sgd: ModuleOptimizer = SgdConfig::new().init();
        let loss = |model: &AdapterOnly<Grouped>| {
            let output = model.inner().forward(input(&case, &device));
            output.powi_scalar(2).mean()
        };
        let first = loss(&model).into_scalar::<f32>();
        for _ in 0..3 {
            let gradients = GradientsParams::from_grads(loss(&model).backward(), &model);
            assert_eq!(gradients.len(), 4);
            model = sgd.step(0.05, model, gradients);
        }
        assert!(loss(&model).into_scalar::<f32>() < first);
        let (model, device) = (model.into_inner().valid(), device.without_autodiff());
        let expected = output(&case, &model, &device);
        assert_ne!(expected, before);
        let merged = merge_and_unload(model.clone()).unwrap();
        assert_close(
            "merged",
            &output(&case, &merged, &device),
            &expected,
            LOGITS,
        );

        let base = base.valid();
        for config in [own(), in_peft_form()] {
            let folder = tempfile::tempdir().unwrap();
            let metadata = PeftMetadata::default();
            peft::save(&model, DEFAULT_NAME, &config, &metadata, folder.path()).unwrap();
            let (again, read) = peft::load(base.clone(), DEFAULT_NAME, folder.path()).unwrap();
            assert_eq!(read.conv_groups, config.conv_groups);
            let actual = output(&case, &again, &device);
            assert_close("again", &actual, &expected, LOGITS);
            let (swapped, _) = peft::hot_swap(again, DEFAULT_NAME, folder.path()).unwrap();
            let actual = output(&case, &swapped, &device);
            assert_close("swapped", &actual, &expected, LOGITS);
        }
    });
}

#[test]
fn groups_that_are_none_are_refused_before_anything_is_attached() {
    let device = Device::flex();
    let base = case().convolutions_in_groups(&device);
    let wrong = own()
        .with_conv_groups("plane", usize::MAX)
        .with_conv_groups("line", 3)
        .with_conv_groups("lane", 2);
    let error = attach(base.clone(), DEFAULT_NAME, &wrong).unwrap_err();
    let AdapterError::Config { faults } = &error else {
        panic!("{error}");
    };
    assert!(
        faults.len() == 3 && faults[1].contains("3 groups, for 8 outputs"),
        "{faults:?}"
    );
    assert!(
        faults[2].contains("\"lane\", no targeted convolution"),
        "{faults:?}"
    );
    let other = in_peft_form().with_method("adalora".parse().unwrap());
    let error = attach(base, DEFAULT_NAME, &other).unwrap_err().to_string();
    assert!(error.contains("has no convolutions in groups"), "{error}");
}

/// Writes what `golden/generate.py --check DIR` compares with PEFT, into the folder that `BURN_LORA_EXPORT` names.
#[test]
fn g_exports_for_the_check_by_peft() {
    let root = std::env::var_os("BURN_LORA_EXPORT").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).join("export"),
        PathBuf::from,
    );
    let (case, device) = (case(), Device::flex());
    let base = case.convolutions_in_groups(&device);
    let model = attach(base, DEFAULT_NAME, &in_peft_form()).unwrap();
    let folder = root.join(case.name);
    let metadata = PeftMetadata::default();
    let to = folder.join("adapter");
    peft::save(&model, DEFAULT_NAME, &in_peft_form(), &metadata, &to).unwrap();
    let logits = output(&case, &model, &device);
    let view = TensorView::new(Dtype::F32, vec![2, 8, 4], bytemuck::cast_slice(&logits)).unwrap();
    let path = folder.join("logits.safetensors");
    safetensors::serialize_to_file([("logits", view)], None, &path).unwrap();
}
