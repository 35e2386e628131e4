//! Losses, choices and sentence vectors.

use super::encoder_families::{encoder, encoders};
use super::*;
use crate::{
    EncoderBatch, Labels, MaskedLm, MultipleChoice, Pooling, SentenceEncoder, SentenceError,
    SentencePooling, SequenceClassifier, TokenClassifier,
};
use burn::tensor::DType;

fn rows() -> EncoderBatch {
    EncoderBatch::new(ids(&[&[1, 2, 3], &[4, 5, 0]]), [3, 2])
}

fn number(loss: Tensor<1>) -> f32 {
    loss.into_scalar()
}

#[test]
fn each_kind_of_label_has_its_loss() {
    let (_, config) = encoders().remove(0);
    let model = SequenceClassifier::init(config, &Device::flex(), 3).expect("valid");
    let logits = model.forward(&rows()).into_data();
    let logits: Vec<Vec<f64>> = logits
        .try_to_vec::<f32>()
        .expect("f32")
        .chunks(3)
        .map(|row| row.iter().map(|x| f64::from(*x)).collect())
        .collect();
    let loss = |labels: Labels| f64::from(number(model.loss(&rows(), &labels).expect("they fit")));

    let of_class =
        |row: &Vec<f64>, class: usize| row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[class];
    let expected = (of_class(&logits[0], 2) + of_class(&logits[1], 0)) / 2.0;
    assert!((loss(Labels::Classes(vec![2, 0])) - expected).abs() < 1e-5);

    let targets = vec![vec![0.5, -1.0, 2.0], vec![0.0, 1.0, 0.0]];
    let cells = || {
        let targets = targets.iter().flatten().map(|y| f64::from(*y));
        logits.iter().flatten().zip(targets)
    };
    let squares: f64 = cells().map(|(x, y)| (x - y) * (x - y)).sum();
    assert!((loss(Labels::Values(targets.clone())) - squares / 6.0).abs() < 1e-5);

    let entropy: f64 = cells().map(|(x, y)| (1.0 + x.exp()).ln() - x * y).sum();
    assert!((loss(Labels::Sets(targets.clone())) - entropy / 6.0).abs() < 1e-5);
}

#[test]
fn labels_that_do_not_fit_are_named_at_once() {
    let (_, config) = encoders().remove(0);
    let model = SequenceClassifier::init(config.clone(), &Device::flex(), 3).expect("valid");
    let problems = |labels| model.loss(&rows(), &labels).expect_err("refused").problems;
    assert_eq!(
        problems(Labels::Classes(vec![1, 3, 0])),
        [
            "row 1 has the class 3; the model has 3",
            "3 labels for 2 rows"
        ]
    );
    assert_eq!(
        problems(Labels::Values(vec![vec![1.0], vec![f32::NAN, 0.0, 0.0]])),
        [
            "row 0 has 1 values; the model has 3 outputs",
            "row 1 has a value that is not finite"
        ]
    );

    let model = TokenClassifier::init(config, &Device::flex(), 3).expect("valid");
    let problems =
        |labels: &[Vec<Option<usize>>]| model.loss(&rows(), labels).expect_err("refused").problems;
    assert_eq!(
        problems(&[vec![None, Some(7), Some(1)], vec![None; 3]]),
        [
            "row 0 has the label 7 at token 1; the model knows those below 3",
            "row 1 has 3 labels for 2 tokens"
        ]
    );
    assert_eq!(
        problems(&[vec![None; 3], vec![None; 2]]),
        ["no token has a label"]
    );
}

#[test]
fn a_choice_is_made_among_the_rows_of_a_question() {
    let (_, config) = encoders().remove(0);
    let model = MultipleChoice::init(config, &Device::flex(), 3).expect("valid");
    let four = EncoderBatch::new(ids(&[&[1, 2], &[3, 4], &[5, 6], &[7, 8]]), [2, 2, 2, 2]);
    let logits = model.forward(&four, 2);
    assert_eq!(logits.dims(), [2, 2]);
    let alone = EncoderBatch::new(ids(&[&[5, 6], &[7, 8]]), [2, 2]);
    assert_close(
        "second",
        logits.narrow(0, 1, 1),
        model.forward(&alone, 2),
        1e-5,
    );
    assert!(model.loss(&four, 2, &[0, 1]).is_ok());
    assert!(model.loss(&four, 2, &[0, 2]).is_err());
    assert!(model.loss(&four, 3, &[0]).is_err());
}

#[test]
fn masked_words_have_the_loss_of_their_logits() {
    for (name, config) in encoders() {
        let vocab = config.vocab_size();
        let model = MaskedLm::init(config, &Device::flex(), 3).expect("valid");
        let logits = model.forward(&rows());
        assert_eq!(logits.dims(), [2, 3, vocab], "{name}");
        let row = logits.slice([1..2, 1..2]).into_data();
        let row = row.try_to_vec::<f32>().expect("f32");
        let expected = row.iter().map(|x| x.exp()).sum::<f32>().ln() - row[9];
        let labels = [vec![None; 3], vec![None, Some(9)]];
        let loss = number(model.loss(&rows(), &labels).expect("it fits"));
        assert!((loss - expected).abs() < 1e-4, "{name}: {loss} {expected}");
    }
}

#[test]
fn vectors_are_pooled_over_tokens_and_never_over_padding() {
    let (_, config) = encoders().remove(0);
    let encoder = encoder(&config);
    let hidden = encoder.hidden(&EncoderBatch::new(ids(&[&[4, 5]]), [2]));
    let states = hidden.into_data().try_to_vec::<f32>().expect("f32");
    let (first, second) = states.split_at(16);
    let pairs = || first.iter().zip(second);
    let expected: [(Pooling, Vec<f32>); 4] = [
        (Pooling::First, first.to_vec()),
        (Pooling::Mean, pairs().map(|(a, b)| (a + b) / 2.0).collect()),
        (Pooling::Max, pairs().map(|(a, b)| a.max(*b)).collect()),
        (
            Pooling::MeanSqrtLength,
            pairs().map(|(a, b)| (a + b) / 2f32.sqrt()).collect(),
        ),
    ];
    for (pooling, expected) in expected {
        for normalize in [false, true] {
            let options = SentencePooling {
                pooling,
                normalize,
                max_length: None,
            };
            let model = SentenceEncoder::new(encoder.clone(), options);
            let vector = model.forward(&rows()).narrow(0, 1, 1);
            let length = expected.iter().map(|x| x * x).sum::<f32>().sqrt();
            let by = if normalize { length } else { 1.0 };
            let expected: Vec<f32> = expected.iter().map(|x| x / by).collect();
            let expected = Tensor::<1>::from_floats(expected.as_slice(), &Device::flex());
            assert_close("vector", vector, expected.unsqueeze(), 1e-5);
        }
    }
}

#[test]
fn a_sentence_encoder_survives_its_folder() {
    let (_, config) = encoders().remove(1);
    let options = SentencePooling {
        pooling: Pooling::Max,
        normalize: true,
        max_length: Some(20),
    };
    let model = SentenceEncoder::init(config, options, &Device::flex(), 3).expect("valid");
    let dir = tempfile::tempdir().expect("a folder");
    model.save(dir.path(), DType::F32).expect("saved");
    let again = SentenceEncoder::load(dir.path(), &Device::flex()).expect("loaded");
    assert_eq!(again.pooling(), options);
    assert_eq!(again.check_length(21).expect_err("refused").limit, 20);
    let expected = model.forward(&rows());
    assert_close("vectors", again.forward(&rows()), expected, 0.0);

    // Without modules it is a plain folder, of which the mean is taken.
    std::fs::remove_file(dir.path().join("modules.json")).expect("removed");
    let plain = SentenceEncoder::load(dir.path(), &Device::flex()).expect("loaded");
    assert_eq!(plain.pooling(), SentencePooling::default());
}

#[test]
fn modules_that_are_not_built_are_refused() {
    let (_, config) = encoders().remove(0);
    let options = SentencePooling::default();
    let model = SentenceEncoder::init(config, options, &Device::flex(), 3).expect("valid");
    let dir = tempfile::tempdir().expect("a folder");
    model.save(dir.path(), DType::F32).expect("saved");
    let refused = |file: &str, from: &str, to: &str| {
        let path = dir.path().join(file);
        let text = std::fs::read_to_string(&path).expect("there");
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replacen(from, to, 1)).expect("written");
        let error = SentenceEncoder::load(dir.path(), &Device::flex()).expect_err("refused");
        std::fs::write(&path, text).expect("written");
        assert!(matches!(error, SentenceError::File { .. }), "{error}");
        error.to_string()
    };
    let text = refused("modules.json", "models.Pooling", "models.Dense");
    assert!(text.contains("not built: Dense"), "{text}");
    let text = refused("modules.json", "1_Pooling", "../other");
    assert!(text.contains("`../other` is not a path inside"), "{text}");
    let config = "1_Pooling/config.json";
    let text = refused(config, "max_tokens\": false", "max_tokens\": true");
    assert!(text.contains("several ways"), "{text}");
    let text = refused(config, "pooling_mode_mean_tokens", "pooling_mode_lasttoken");
    assert!(
        text.contains("`pooling_mode_lasttoken` is not built"),
        "{text}"
    );
}
