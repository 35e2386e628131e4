//! Modules that are trained as a whole beside an adapter: PEFT's `modules_to_save`.

use std::fs;

use burn::module::Module;
use burn::tensor::Device;
use burn_lora::adapter::{
    AdapterError, AdapterOnly, DEFAULT_NAME, LoraConfig, Targets, TensorFault, adapted_weights,
    attach, peft, peft::PeftMetadata, summary,
};
use burn_lora::transformer::{EncoderBatch, SequenceClassifier};
use burn_lora_tests::{Golden, assert_same, floats, on_each_device, parameters};
use safetensors::SafeTensors;

/// RoBERTa, whose head is a module of two linear layers.
fn classifier(device: &Device) -> SequenceClassifier {
    let golden = Golden::open("roberta_sequence");
    SequenceClassifier::load(&golden.model_folder(), device).unwrap()
}

const HEAD: [&str; 4] = [
    "classifier.dense.bias",
    "classifier.dense.weight",
    "classifier.out_proj.bias",
    "classifier.out_proj.weight",
];

fn config() -> LoraConfig {
    LoraConfig::new(2, 4.0)
        .with_targets(Targets::names(["query"]))
        .with_modules_to_save(["classifier"])
}

fn logits(model: &SequenceClassifier) -> Vec<f32> {
    let batch = model.encoder.batch(&[vec![3, 4, 5], vec![6, 7]], None);
    let batch: EncoderBatch = batch.unwrap();
    floats(model.forward(&batch))
}

fn faults<T: std::fmt::Debug>(result: Result<T, AdapterError>) -> Vec<String> {
    match result {
        Err(AdapterError::Config { faults }) => faults,
        other => panic!("{other:?}"),
    }
}

#[test]
fn they_are_trained_and_shown_beside_the_adapter_and_nothing_else_is() {
    on_each_device(|device| {
        let model = attach(classifier(&device.autodiff()), DEFAULT_NAME, &config()).unwrap();
        // Two layers with factors of rank 2 on 16 x 16; the head is 16 x 16 and 16 x 3, with biases.
        let expected = 2 * 2 * (16 + 16) + (16 * 16 + 16) + (16 * 3 + 3);
        assert_eq!(summary(&model).trainable, expected);
        let shown = AdapterOnly::new(model).with_saved_modules(config().modules_to_save);
        for shown in [shown.clone(), shown.valid().train()] {
            let paths: Vec<String> = parameters(&shown).into_keys().collect();
            let (head, adapters): (Vec<_>, Vec<_>) =
                paths.into_iter().partition(|path| !path.contains(".lora."));
            assert_eq!(head, HEAD);
            assert_eq!(adapters.len(), 4);
        }
    });
}

#[test]
fn no_adapter_goes_onto_them() {
    let device = Device::flex();
    for targets in [Targets::names(["dense"]), Targets::AllLinear] {
        let config = config().with_targets(targets);
        let model = attach(classifier(&device), DEFAULT_NAME, &config).unwrap();
        let paths = adapted_weights(&model)
            .into_iter()
            .map(|weight| weight.path);
        let inside: Vec<String> = paths
            .filter(|path| path.starts_with("classifier"))
            .collect();
        assert_eq!(inside, Vec::<String>::new());
    }
    let only_the_head = config().with_targets(Targets::names(["out_proj"]));
    let faults = faults(attach(classifier(&device), DEFAULT_NAME, &only_the_head));
    assert!(faults[0].contains("every target lies in"), "{faults:?}");
}

#[test]
fn a_name_that_no_module_has_is_refused() {
    let device = Device::flex();
    let with = |names: &[&str]| {
        let config = config().with_modules_to_save(names.iter().copied());
        attach(classifier(&device), DEFAULT_NAME, &config)
    };
    // PEFT writes both names of heads into every folder.
    assert!(with(&["classifier", "score"]).is_ok());
    let found = faults(with(&["classifier", "clasifier", "score"]));
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("\"clasifier\""), "{found:?}");
    assert_eq!(faults(with(&["score"])).len(), 1);
}

#[test]
fn they_travel_with_the_adapter() {
    on_each_device(|device| {
        let tracked = device.clone().autodiff();
        let other = SequenceClassifier::init(classifier(&device).config().clone(), &tracked, 9);
        // Another head and base: only the head goes along.
        let model = attach(other.unwrap(), DEFAULT_NAME, &config())
            .unwrap()
            .valid();
        let folder = tempfile::tempdir().unwrap();
        let metadata = PeftMetadata {
            task_type: Some("SEQ_CLS".into()),
            ..PeftMetadata::default()
        };
        peft::save(&model, DEFAULT_NAME, &config(), &metadata, folder.path()).unwrap();
        let (loaded, read) = peft::load(classifier(&device), DEFAULT_NAME, folder.path()).unwrap();
        assert_eq!(read, config());
        let (expected, actual) = (parameters(&model), parameters(&loaded));
        for path in HEAD {
            let values = |data: &burn::tensor::TensorData| data.try_to_vec::<f32>().unwrap();
            assert_same(path, &values(&actual[path]), &values(&expected[path]));
        }
        let (again, _) = peft::load(model.clone(), "again", folder.path()).unwrap();
        assert_eq!(logits(&again).len(), logits(&model).len());
    });
}

#[test]
fn a_folder_without_the_head_is_refused() {
    let device = Device::flex();
    let model = attach(classifier(&device), DEFAULT_NAME, &config()).unwrap();
    let metadata = PeftMetadata {
        task_type: Some("SEQ_CLS".into()),
        ..PeftMetadata::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let without = config().with_modules_to_save(Vec::<String>::new());
    let refused = peft::save(&model, DEFAULT_NAME, &without, &metadata, folder.path());
    assert!(faults(refused)[0].contains("SEQ_CLS"));

    peft::save(&model, DEFAULT_NAME, &config(), &metadata, folder.path()).unwrap();
    let path = folder.path().join(peft::WEIGHTS_FILE);
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let gone = "base_model.model.classifier.out_proj.weight";
    let kept = file.tensors().into_iter().filter(|(key, _)| key != gone);
    let kept: Vec<_> = kept.collect();
    let written = safetensors::serialize(kept, None).unwrap();
    fs::write(&path, written).unwrap();
    match peft::load(classifier(&device), DEFAULT_NAME, folder.path()) {
        Err(AdapterError::Tensors { faults, .. }) => assert_eq!(
            faults,
            [TensorFault::Missing {
                key: gone.to_string(),
                shape: vec![3, 16],
            }]
        ),
        other => panic!("{:?}", other.map(|_| ())),
    }
}
