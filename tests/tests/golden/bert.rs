//! BERT with a head: a row has one label.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_lora::adapter::{DEFAULT_NAME, peft, peft::PeftMetadata};
use burn_lora::kernels::cross_entropy;
use burn_lora::transformer::BertClassifier;
use burn_lora_tests::{
    Golden, assert_close, assert_same, floats, gradients, largest_difference, on_each_device,
    parameters,
};
use safetensors::tensor::{Dtype, TensorView};

use crate::common::{GRADIENT, LOGITS, LOSS, STEPPED, stepped, values};

const CASE: &str = "bert";

fn base(golden: &Golden, device: &Device) -> BertClassifier {
    BertClassifier::load(&golden.model_folder(), device).unwrap()
}

fn with_adapter(golden: &Golden, device: &Device, folder: &Path) -> BertClassifier {
    let (model, _) = peft::load(base(golden, device), DEFAULT_NAME, folder).unwrap();
    model
}

/// The model under the adapter from which the gradients and the optimizer's steps were computed.
fn initial(golden: &Golden, device: &Device) -> BertClassifier {
    let scratch = tempfile::tempdir().unwrap();
    golden.write_adapter("init.weight/", scratch.path());
    with_adapter(golden, device, scratch.path())
}

fn lengths(golden: &Golden) -> Vec<usize> {
    let width = golden.shape("attention_mask")[1];
    let mask = golden.ints("attention_mask");
    mask.chunks(width)
        .map(|row| row.iter().sum::<i64>() as usize)
        .collect()
}

fn logits(golden: &Golden, model: &BertClassifier, device: &Device) -> Tensor<2> {
    model.forward(golden.input_ids(device), &lengths(golden))
}

fn loss(golden: &Golden, model: &BertClassifier, device: &Device) -> Tensor<1> {
    let labels = golden.ints("labels");
    let rows = labels.len();
    let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [rows]), device);
    let weights = Tensor::ones([rows], (device, DType::F32));
    cross_entropy(logits(golden, model, device), labels, weights).div_scalar(rows as f64)
}

#[test]
fn hidden_states_logits_and_loss_of_the_base_match() {
    on_each_device(|device| {
        let golden = Golden::open(CASE);
        let model = base(&golden, &device);
        assert!(model.fresh().is_empty());
        let actual = floats(logits(&golden, &model, &device));
        assert_close("logits", &actual, &golden.floats("base.logits"), LOGITS);
        let actual = floats(loss(&golden, &model, &device));
        assert_close("loss", &actual, &golden.floats("base.loss"), LOSS);

        let lengths = lengths(&golden);
        let [batch, seq, d] = golden.shape("base.hidden")[..] else {
            panic!("hidden states have three dimensions")
        };
        let expected = TensorData::new(golden.floats("base.hidden"), [batch, seq, d]);
        let expected = Tensor::<3>::from_data(expected, &device);
        let actual = model.hidden(golden.input_ids(&device), &lengths);
        for (row, length) in lengths.into_iter().enumerate() {
            let tokens = |x: &Tensor<3>| floats(x.clone().slice([row..row + 1, 0..length]));
            assert_close("hidden", &tokens(&actual), &tokens(&expected), LOGITS);
        }
    });
}

#[test]
fn logits_of_an_adapter_trained_by_peft_match() {
    on_each_device(|device| {
        let golden = Golden::open(CASE);
        let model = with_adapter(&golden, &device, &golden.adapter_folder());
        let actual = floats(logits(&golden, &model, &device));
        assert_close("logits", &actual, &golden.floats("trained.logits"), LOGITS);
        let actual = floats(loss(&golden, &model, &device));
        assert_close("loss", &actual, &golden.floats("trained.loss"), LOSS);
    });
}

#[test]
fn every_adapter_gradient_matches() {
    on_each_device(|device| {
        let (golden, device) = (Golden::open(CASE), device.autodiff());
        let model = initial(&golden, &device);
        let actual = floats(logits(&golden, &model, &device));
        assert_close("logits", &actual, &golden.floats("init.logits"), LOGITS);

        let loss = loss(&golden, &model, &device);
        let actual = gradients(&model, &loss.backward());
        assert_close("loss", &floats(loss), &golden.floats("init.loss"), LOSS);
        let expected = golden.stage("init.grad/");
        assert_eq!(
            actual.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "which parameters have a gradient"
        );
        for (path, expected) in &expected {
            let actual = &actual[path];
            assert_eq!(actual.shape(), expected.shape(), "{path}");
            let what = format!("gradient of {path}");
            assert_close(&what, &values(actual), &values(expected), GRADIENT);
        }
    });
}

#[test]
fn adapters_after_five_adamw_steps_match() {
    on_each_device(|device| {
        let (golden, device) = (Golden::open(CASE), device.autodiff());
        let (model, losses) = stepped(&golden, initial(&golden, &device), |model| {
            loss(&golden, model, &device)
        });
        let expected = golden.floats("adamw.losses");
        assert_close("losses", &losses, &expected, 10.0 * LOSS);

        let actual = parameters(&model);
        let (start, expected) = (golden.stage("init.weight/"), golden.stage("adamw.weight/"));
        assert_eq!(
            actual.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>()
        );
        for (path, expected) in &expected {
            let what = format!("{path} after the steps");
            assert_close(&what, &values(&actual[path]), &values(expected), STEPPED);
            let moved = largest_difference(&values(&start[path]), &values(expected));
            assert!(moved > 500.0 * STEPPED, "{what}: changed by {moved} only");
        }
    });
}

#[test]
fn a_classifier_saved_here_loads_with_the_same_logits() {
    on_each_device(|device| {
        let golden = Golden::open(CASE);
        let model = base(&golden, &device);
        let folder = tempfile::tempdir().unwrap();
        model.save(folder.path(), DType::F32).unwrap();
        let again = BertClassifier::load(folder.path(), &device).unwrap();
        let [expected, actual] =
            [&model, &again].map(|model| floats(logits(&golden, model, &device)));
        assert_same("logits", &actual, &expected);
    });
}

/// Writes what `golden/generate.py --check DIR` compares with PEFT, as the decoders' test of this name does.
#[test]
fn exports_for_the_check_by_peft() {
    let root = std::env::var_os("BURN_LORA_EXPORT").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).join("export"),
        PathBuf::from,
    );
    on_each_device(|device| {
        let golden = Golden::open(CASE);
        let folder = root.join(CASE);
        let adapter = folder.join("adapter");
        let tracked = device.clone().autodiff();
        let (model, _) = stepped(&golden, initial(&golden, &tracked), |model| {
            loss(&golden, model, &tracked)
        });
        let model = model.into_inner().valid();
        let theirs = golden.adapter_folder();
        let (_, config) = peft::load(base(&golden, &device), DEFAULT_NAME, &theirs).unwrap();
        let metadata = PeftMetadata {
            base_model_name_or_path: Some(golden.model_folder().display().to_string()),
            // With SEQ_CLS, PEFT would look for a trained head in the folder.
            task_type: Some("FEATURE_EXTRACTION".to_string()),
            ..PeftMetadata::default()
        };
        peft::save(&model, DEFAULT_NAME, &config, &metadata, &adapter).unwrap();

        let logits_here = logits(&golden, &model, &device);
        let shape = logits_here.dims().to_vec();
        let written = floats(logits_here);
        let view = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(&written)).unwrap();
        let path = folder.join("logits.safetensors");
        safetensors::serialize_to_file([("logits", view)], None, &path).unwrap();

        let again = with_adapter(&golden, &device, &adapter);
        assert_same(CASE, &floats(logits(&golden, &again, &device)), &written);
    });
}
