//! T5: the original, the layout of 1.1 and Flan-T5, and mT5.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_lora::adapter::{DEFAULT_NAME, peft, peft::PeftMetadata};
use burn_lora::transformer::{GenerateOptions, LoadOptions, T5, generate};
use burn_lora_tests::{
    Golden, assert_close, assert_same, floats, gradients, on_each_device, parameters,
};
use safetensors::tensor::{Dtype, TensorView};

use crate::common::{GRADIENT, LOGITS, LOSS, STEPPED, stepped, values};

const CASES: [&str; 3] = ["t5", "t5_v1_1", "mt5"];
/// The label of a token that is not learned.
const IGNORED: i64 = -100;

fn on_each_case(test: impl Fn(&Golden, &Device)) {
    on_each_device(|device| {
        for case in CASES {
            test(&Golden::open(case), &device);
        }
    });
}

fn base(golden: &Golden, device: &Device) -> T5 {
    let options = LoadOptions::new(DType::F32, device.clone());
    T5::load(&golden.model_folder(), &options).unwrap()
}

fn with_adapter(golden: &Golden, device: &Device, folder: &Path) -> T5 {
    let (model, _) = peft::load(base(golden, device), DEFAULT_NAME, folder).unwrap();
    model
}

fn initial(golden: &Golden, device: &Device) -> T5 {
    let scratch = tempfile::tempdir().unwrap();
    golden.write_adapter("init.weight/", scratch.path());
    with_adapter(golden, device, scratch.path())
}

/// What is to be written for each row.
fn targets(golden: &Golden) -> Vec<Vec<u32>> {
    let width = golden.shape("labels")[1];
    let labels = golden.ints("labels");
    let known = |label: &&i64| **label != IGNORED;
    labels
        .chunks(width)
        .map(|row| row.iter().filter(known).map(|id| *id as u32).collect())
        .collect()
}

fn loss(golden: &Golden, model: &T5) -> Tensor<1> {
    let rows = golden.rows("input_ids", "attention_mask");
    let batch = model.batch(&rows).unwrap();
    model.loss(&batch, &targets(golden)).unwrap()
}

/// `[rows, written, vocab]`
fn logits(golden: &Golden, model: &T5, device: &Device) -> Tensor<3> {
    let rows = golden.rows("input_ids", "attention_mask");
    let shape = golden.shape("decoder_input_ids");
    let before = TensorData::new(golden.ints("decoder_input_ids"), [shape[0], shape[1]]);
    let before = Tensor::<2, Int>::from_data(before, device);
    let encoded = model.encode(&model.batch(&rows).unwrap());
    model.logits_of(model.decode(before, &encoded))
}

/// Those of the tokens that are to be written.
fn learned(golden: &Golden, logits: &[f32]) -> Vec<f32> {
    let vocab = golden.shape("base.logits")[2];
    logits
        .chunks(vocab)
        .zip(golden.ints("labels"))
        .filter(|(_, label)| *label != IGNORED)
        .flat_map(|(row, _)| row.iter().copied())
        .collect()
}

fn assert_stage(golden: &Golden, model: &T5, device: &Device, stage: &str) {
    let actual = learned(golden, &floats(logits(golden, model, device)));
    let expected = learned(golden, &golden.floats(&format!("{stage}.logits")));
    let what = format!("{}: {stage} logits", golden.name);
    assert_close(&what, &actual, &expected, LOGITS);
    let what = format!("{}: {stage} loss", golden.name);
    let expected = golden.floats(&format!("{stage}.loss"));
    assert_close(&what, &floats(loss(golden, model)), &expected, LOSS);
}

#[test]
fn logits_and_loss_of_the_base_match() {
    on_each_case(|golden, device| {
        let model = base(golden, device);
        assert_eq!(model.lm_head.is_some(), golden.name != "t5");
        assert_stage(golden, &model, device, "base");
    });
}

#[test]
fn logits_of_an_adapter_trained_by_peft_match() {
    on_each_case(|golden, device| {
        let model = with_adapter(golden, device, &golden.adapter_folder());
        assert_stage(golden, &model, device, "trained");
    });
}

#[test]
fn every_adapter_gradient_matches() {
    on_each_case(|golden, device| {
        let device = device.clone().autodiff();
        let model = initial(golden, &device);
        assert_stage(golden, &model, &device, "init");
        let actual = gradients(&model, &loss(golden, &model).backward());
        let expected = golden.stage("init.grad/");
        assert_eq!(
            actual.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "{}: which parameters have a gradient",
            golden.name
        );
        for (path, expected) in &expected {
            let what = format!("{}: gradient of {path}", golden.name);
            assert_close(&what, &values(&actual[path]), &values(expected), GRADIENT);
        }
    });
}

#[test]
fn adapters_after_five_adamw_steps_match() {
    on_each_case(|golden, device| {
        let device = device.clone().autodiff();
        let start = initial(golden, &device);
        let (model, losses) = stepped(golden, start, |model| loss(golden, model));
        let what = format!("{}: losses", golden.name);
        let expected = golden.floats("adamw.losses");
        assert_close(&what, &losses, &expected, 10.0 * LOSS);
        let actual = parameters(&model);
        for (path, expected) in &golden.stage("adamw.weight/") {
            let what = format!("{}: {path} after the steps", golden.name);
            assert_close(&what, &values(&actual[path]), &values(expected), STEPPED);
        }
    });
}

#[test]
fn what_is_written_greedily_is_the_same() {
    on_each_case(|golden, device| {
        let model = with_adapter(golden, device, &golden.adapter_folder());
        let rows = golden.rows("generate.input_ids", "generate.attention_mask");
        let expected = golden.continuations();
        let options = GenerateOptions {
            max_new_tokens: expected[0].len(),
            ..GenerateOptions::default()
        };
        let written = generate(&model, &rows, &options).unwrap();
        assert_eq!(written, expected, "{}", golden.name);
    });
}

#[test]
fn a_model_saved_here_loads_with_the_same_logits() {
    on_each_case(|golden, device| {
        let model = base(golden, device);
        let folder = tempfile::tempdir().unwrap();
        model.save(folder.path(), DType::F32).unwrap();
        let options = LoadOptions::new(DType::F32, device.clone());
        let again = T5::load(folder.path(), &options).unwrap();
        let [expected, actual] =
            [&model, &again].map(|model| floats(logits(golden, model, device)));
        assert_same(golden.name, &actual, &expected);
    });
}

/// Writes what `golden/generate.py --check DIR` compares with PEFT, as the decoders' test of this name does.
#[test]
fn exports_for_the_check_by_peft() {
    let root = std::env::var_os("BURN_LORA_EXPORT").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).join("export"),
        PathBuf::from,
    );
    on_each_case(|golden, device| {
        let folder = root.join(golden.name);
        let adapter = folder.join("adapter");
        let tracked = device.clone().autodiff();
        let start = initial(golden, &tracked);
        let (model, _) = stepped(golden, start, |model| loss(golden, model));
        let model = model.into_inner().valid();
        let theirs = golden.adapter_folder();
        let (_, config) = peft::load(base(golden, device), DEFAULT_NAME, &theirs).unwrap();
        let metadata = PeftMetadata {
            base_model_name_or_path: Some(golden.model_folder().display().to_string()),
            task_type: Some("SEQ_2_SEQ_LM".to_string()),
            ..PeftMetadata::default()
        };
        peft::save(&model, DEFAULT_NAME, &config, &metadata, &adapter).unwrap();
        let written = floats(logits(golden, &model, device));
        let shape = golden.shape("base.logits");
        let view = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(&written)).unwrap();
        let path = folder.join("logits.safetensors");
        safetensors::serialize_to_file([("logits", view)], None, &path).unwrap();
        let again = with_adapter(golden, device, &adapter);
        assert_same(
            golden.name,
            &floats(logits(golden, &again, device)),
            &written,
        );
    });
}
