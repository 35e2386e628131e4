//! Bottlenecks in encoders, in models that classify, and in T5.

use super::super::encoder_families::{encoder, encoders};
use super::super::t5;
use super::*;
use crate::{DecoderClassifier, EncoderBatch, SequenceClassifier};

fn batch(device: &Device) -> EncoderBatch {
    let ids = ids(&[&[7, 8, 9, 10], &[4, 5, 0, 0]]).into_data();
    EncoderBatch::new(Tensor::from_data(ids, device), [4, 2])
}

/// Fresh ones change nothing, moved ones do; they alone are trained; and what is computed again is the same.
fn check<M: WithBottlenecks>(
    name: &str,
    base: &M,
    blocks: usize,
    outputs: impl Fn(&M) -> Tensor<3>,
    recomputed: impl Fn(M) -> M,
) {
    let expected = outputs(base).into_data();
    let one = config(BottleneckPlacement::Pfeiffer).num_parameters(16, 1);
    for placement in PLACEMENTS {
        let config = config(placement);
        let fresh = base.clone().with_bottlenecks(&config, 1).expect(name);
        assert_eq!(fresh.bottlenecks(), Some(placement));
        assert_eq!(outputs(&fresh).into_data(), expected, "{name}");
        let trained = fresh.train();
        let mut seen = Trainable::default();
        trained.visit(&mut seen);
        assert_eq!(
            seen.count,
            config.num_parameters(16, blocks),
            "{name} {placement:?}"
        );
        let trained = trained.map(&mut Shift(0));
        let moved = trained.valid();
        let flex = Device::flex();
        let logits = Tensor::<3>::from_data(outputs(&moved).into_data(), &flex);
        let distance = logits - Tensor::from_data(expected.clone(), &flex);
        let distance: f32 = distance.narrow(0, 0, 1).abs().max().into_scalar();
        assert!(distance > 1e-2, "{name} {placement:?}: {distance}");
        assert_eq!(
            outputs(&moved.without_bottlenecks()).into_data(),
            expected,
            "{name}"
        );
        let gradients = |model: &M| {
            let gradients = outputs(model).narrow(0, 0, 1).powi_scalar(2).mean();
            let gradients = gradients.backward();
            let mut reader = Gradients {
                gradients: &gradients,
                found: Vec::new(),
            };
            model.visit(&mut reader);
            reader.found
        };
        let kept = gradients(&trained);
        let places = config.num_parameters(16, 1) / one;
        assert_eq!(
            kept.len(),
            blocks * places * 4,
            "{name}: the base is frozen"
        );
        assert_eq!(kept, gradients(&recomputed(trained)), "{name}");
    }
}

#[test]
fn encoders_take_them() {
    for (name, config) in encoders() {
        let blocks = config.n_layers();
        check(
            name,
            &encoder(&config),
            blocks,
            |model| model.hidden(&batch(&model.device())),
            |model| model.with_recompute(usize::MAX),
        );
    }
}

#[test]
fn both_stacks_of_t5_take_them() {
    let model = t5::model(t5::config());
    let outputs = |model: &crate::T5| {
        let written = ids(&[&[0, 3, 4], &[0, 9, 8]]).into_data();
        let written = Tensor::from_data(written, &model.device());
        model.logits_of(model.decode(written, &model.encode(&batch(&model.device()))))
    };
    check("t5", &model, 2 + 3, outputs, |model| model);
    let model = model.with_bottlenecks(&config(BottleneckPlacement::Houlsby), 2);
    let model = model.expect("valid").train().map(&mut Shift(3)).valid();
    let options = GenerateOptions {
        max_new_tokens: 4,
        ..GenerateOptions::default()
    };
    let prompt = vec![7, 8, 9];
    let answers = generate(&model, std::slice::from_ref(&prompt), &options).expect("generated");
    let read = model.encode(&model.batch(&[prompt]).expect("valid"));
    let mut row = vec![0];
    for token in &answers[0] {
        let known = Tensor::from_data(ids(&[&row]).into_data(), &model.device());
        let logits = model.logits_of(model.decode(known, &read));
        let last = logits.slice([0..1, row.len() - 1..row.len()]);
        let best: i32 = last.argmax(2).into_scalar();
        assert_eq!(*token, best as u32);
        row.push(*token);
    }
}

#[test]
fn a_folder_of_a_classifier_holds_its_head() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(BottleneckPlacement::Pfeiffer);
    for (name, family) in encoders() {
        let model = |seed| SequenceClassifier::init(family.clone(), &Device::flex(), seed);
        let model = |seed| model(seed).expect(name);
        let trained = model(3).with_bottlenecks(&config, 1).expect(name);
        let mut trained = trained.map(&mut Shift(0));
        trained.head = model(9).head;
        trained
            .save_bottlenecks(folder.path(), &config, None)
            .expect(name);
        let (again, _) = model(3).load_bottlenecks(folder.path()).expect(name);
        // Of the head, PEFT saves what is called `classifier`; a dense layer in front may be called otherwise.
        let output = |model: &SequenceClassifier| {
            let output = model.head.output.as_ref().expect("a linear layer");
            output.weight.val().into_data()
        };
        assert_eq!(output(&again), output(&trained), "{name}");
        let hidden = |model: &SequenceClassifier| model.encoder.hidden(&batch(&Device::flex()));
        assert_eq!(
            hidden(&again).into_data(),
            hidden(&trained).into_data(),
            "{name}"
        );
    }
    let model = |seed| DecoderClassifier::init(llama(), 3, &Device::flex(), seed).expect("valid");
    let trained = model(3).with_bottlenecks(&config, 1).expect("valid");
    let trained = trained.map(&mut Shift(0));
    trained
        .save_bottlenecks(folder.path(), &config, None)
        .expect("saved");
    let fresh_head = model(3);
    let (again, _) = fresh_head.load_bottlenecks(folder.path()).expect("read");
    let logits = |model: &DecoderClassifier| model.forward(ids(&[&[1, 2, 3]]), &[3]).into_data();
    assert_eq!(logits(&again), logits(&trained));
}
