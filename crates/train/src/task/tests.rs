//! Runs of tasks on tiny models.

use std::fs;

use burn::tensor::{Device, Tensor};
use burn_lora_adapter::{DEFAULT_NAME, LoraConfig, Targets, attach};
use burn_lora_data::{Example, LabelledExample, PreferencePair, Target};
use burn_lora_transformer::{
    BottleneckConfig, BottleneckPlacement, Decoder, EncoderConfig, MaskedLm, PromptInit,
    SequenceClassifier, VirtualTokensConfig, WithBottlenecks, WithVirtualTokens,
};

use super::*;
use crate::testing::{SharedSink, alone, tiny_llama, values};
use crate::{Observer, TaskData, TrainError, Warmup, evaluate_task, finetune_task};

const BERT: &str = r#"{"model_type": "bert", "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 12, "num_labels": LABELS}"#;

fn bert(labels: usize) -> EncoderConfig {
    EncoderConfig::from_json(&BERT.replace("LABELS", &labels.to_string())).expect("valid")
}

fn config() -> TrainConfig {
    TrainConfig {
        steps: 12,
        batch_size: 4,
        max_seq_len: 12,
        learning_rate: 2e-2,
        warmup: Warmup::Steps(2),
        eval_every: Some(4),
        ..TrainConfig::default()
    }
}

/// Texts of unequal lengths, whose class is the first token's parity.
fn texts() -> Vec<LabelledExample> {
    (0..16_u32)
        .map(|at| {
            let ids: Vec<u32> = (0..3 + at % 4)
                .map(|place| 4 + at + 2 * place % 9)
                .collect();
            LabelledExample {
                type_ids: vec![0; ids.len()],
                target: Target::Class(ids[0] as usize % 2),
                ids,
            }
        })
        .collect()
}

fn classifier() -> (SequenceClassifier, Classification) {
    let base = SequenceClassifier::init(bert(2), &Device::flex(), 3).expect("valid");
    let task = Classification::new(2, base.fresh());
    let lora = LoraConfig {
        modules_to_save: task.head_modules(),
        ..LoraConfig::new(4, 8.0).with_targets(Targets::names(["query", "value"]))
    };
    (attach(base, DEFAULT_NAME, &lora).expect("attached"), task)
}

#[test]
fn a_head_learns_beside_the_adapter_and_the_base_stays() {
    let _turn = alone();
    let (model, task) = classifier();
    let before = values(&model);
    let sink = SharedSink::default();
    let observer = Observer::Lines(Box::new(sink.clone()));
    let data = TaskData {
        train: texts(),
        valid: texts(),
    };
    let outcome = finetune_task(model, &task, &config(), data, observer).expect("it trains");
    for (path, value) in values(&outcome.model) {
        let is_open = path.contains(".lora.") || path.starts_with("classifier");
        assert_eq!(value != before[&path], is_open, "{path}");
    }
    let metrics = &outcome.valid_metrics;
    let names: Vec<&str> = metrics.keys().map(String::as_str).collect();
    assert_eq!(names, ["accuracy", "f1", "matthews_correlation"]);
    let text = sink.text();
    let last = text.lines().last().expect("a line");
    let shown = format!(
        "  accuracy {:.3}  f1 {:.3}  ",
        metrics["accuracy"], metrics["f1"]
    );
    assert!(last.contains(&shown) && !text.contains("ppl"), "{text}");

    let found = evaluate_task(&outcome.model, &task, &texts(), 5).expect("evaluated");
    let valid_loss = outcome.valid_loss.expect("validated");
    assert!((found.loss - valid_loss).abs() < 1e-6);
    assert_eq!(found.metrics["accuracy"], metrics["accuracy"]);
    // 16 rows in batches of 4 and of 5: a mean over rows, not over batches.
    assert_eq!(found.counts.learned, 16);
}

#[test]
fn texts_that_do_not_fit_are_all_named() {
    let (model, task) = classifier();
    let mut train = texts();
    train[2].target = Target::Class(2);
    train[5].target = Target::Value(0.5);
    train[6].ids[0] = 30;
    train[7].type_ids[0] = 2;
    train[9].ids = vec![4; 13];
    let data = TaskData {
        train,
        valid: Vec::new(),
    };
    let config = TrainConfig {
        packing: true,
        ..config()
    };
    let error = finetune_task(model, &task, &config, data, Observer::Nobody).expect_err("refused");
    let TrainError::Config { faults } = error else {
        panic!("{error}")
    };
    for part in [
        "1 examples are longer than max_seq_len",
        "packing is for language models",
        "an example has 13 tokens, the model has 12 positions",
        "the token 30 is outside the model's vocabulary of 30",
        "1 examples have segments that the model does not know: 7",
        "2 examples have no class below 2, the labels of the model: 2, 5",
    ] {
        assert!(
            faults.iter().any(|fault| fault.contains(part)),
            "{part}: {faults:#?}"
        );
    }
}

#[test]
fn values_are_compared_by_their_squared_errors() {
    let model = SequenceClassifier::init(bert(1), &Device::flex(), 3).expect("valid");
    let task = Regression::new(&[]);
    let mut examples = texts();
    for (at, example) in examples.iter_mut().enumerate() {
        example.target = Target::Value(at as f64 / 4.0);
    }
    let found = evaluate_task(&model, &task, &examples, 3).expect("evaluated");
    let ids: Vec<Vec<u32>> = examples.iter().map(|one| one.ids.clone()).collect();
    let batch = model.encoder.batch(&ids, None).expect("it fits");
    let made = model.forward(&batch).into_data();
    let squares = made.iter::<f64>().enumerate();
    let squares = squares.map(|(at, value)| (value - at as f64 / 4.0).powi(2));
    let mean = squares.sum::<f64>() / 16.0;
    assert!(
        (found.loss - mean).abs() < 1e-5,
        "{} and {mean}",
        found.loss
    );

    let two = SequenceClassifier::init(bert(2), &Device::flex(), 3).expect("valid");
    let error = evaluate_task(&two, &task, &examples, 3).expect_err("two numbers");
    assert!(
        error.to_string().contains("regression is of one"),
        "{error}"
    );
}

fn masked() -> (MaskedLm, Masked, TaskData<Vec<u32>>) {
    let base = MaskedLm::init(bert(2), &Device::flex(), 3).expect("valid");
    let model = attach(base, DEFAULT_NAME, &LoraConfig::new(4, 8.0)).expect("attached");
    let task = Masked {
        mask: 3,
        special: vec![0, 1, 2, 3],
        vocab_size: 30,
        probability: 0.15,
    };
    let ids: Vec<Vec<u32>> = texts().into_iter().map(|one| one.ids).collect();
    let data = TaskData {
        valid: ids[..5].to_vec(),
        train: ids,
    };
    (model, task, data)
}

#[test]
fn a_resumed_run_hides_the_same_tokens() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let config = TrainConfig {
        save_every: Some(4),
        keep: 3,
        grad_accumulation: 2,
        output_dir: Some(folder.path().to_path_buf()),
        ..config()
    };
    let run = |config: &TrainConfig| {
        let (model, task, data) = masked();
        finetune_task(model, &task, config, data, Observer::Nobody).expect("it trains")
    };
    let whole = run(&config);
    for step in ["step-8", "step-12"] {
        fs::remove_dir_all(folder.path().join("checkpoints").join(step)).expect("removed");
    }
    let resumed = run(&TrainConfig {
        resume: true,
        ..config
    });
    assert_eq!(values(&whole.model), values(&resumed.model));
    assert_eq!(whole.valid_metrics, resumed.valid_metrics);
    assert!(whole.valid_metrics.contains_key("accuracy"));
}

#[test]
fn hidden_tokens_have_the_loss_of_the_model() {
    let (model, task, data) = masked();
    let rows: Vec<Vec<&Vec<u32>>> = data.train.iter().map(|ids| vec![ids]).collect();
    let batch = task.batch(&rows, 9, &Device::flex());
    let learned = Task::<MaskedLm>::counts(&task, &batch).learned;
    let loss = (task.loss_sum(&model, &batch) / learned as f64).into_scalar::<f64>();

    let seq = batch.inputs.ids.dims()[1];
    let mut labels: Vec<Vec<Option<usize>>> =
        data.train.iter().map(|ids| vec![None; ids.len()]).collect();
    for (place, wanted) in batch.places.iter().zip(&batch.wanted) {
        let (row, at) = (*place as usize / seq, *place as usize % seq);
        assert_eq!(data.train[row][at] as usize, *wanted);
        labels[row][at] = Some(*wanted);
    }
    let mean: Tensor<1> = model.loss(&batch.inputs, &labels).expect("they fit");
    assert!((loss - mean.into_scalar::<f64>()).abs() < 1e-5);
}

#[test]
fn preferences_widen_their_margins() {
    let _turn = alone();
    let pair = |first: u32| {
        let side = |answer: u32| Example::new(vec![first, 2, answer, 1], 2).expect("valid");
        PreferencePair {
            chosen: side(5),
            rejected: side(6),
        }
    };
    let pairs: Vec<PreferencePair> = (3..11).map(pair).collect();
    for loss in [
        PreferenceLoss::Sigmoid,
        PreferenceLoss::Ipo,
        PreferenceLoss::Orpo,
    ] {
        let model = attach(tiny_llama(), DEFAULT_NAME, &LoraConfig::new(4, 8.0));
        let task = Preference {
            loss,
            beta: 0.1,
            label_smoothing: 0.0,
            pad: 0,
        };
        let data = TaskData {
            train: pairs.clone(),
            valid: pairs.clone(),
        };
        let model = model.expect("attached");
        let before = evaluate_task(&model, &task, &pairs, 4).expect("evaluated");
        let run = finetune_task(model, &task, &config(), data, Observer::Nobody);
        let after = run.expect("it trains").valid_metrics;
        assert!(
            after["rewards/margins"] > before.metrics["rewards/margins"] + 0.05,
            "{loss:?}: {before:?} {after:?}"
        );
        assert_eq!(after["rewards/accuracies"], 1.0, "{loss:?}");
    }
}

#[test]
fn the_reference_is_the_model_without_whatever_is_attached() {
    let side = |answer: u32| Example::new(vec![3, 2, answer, 1], 2).expect("valid");
    let pairs = [PreferencePair {
        chosen: side(5),
        rejected: side(6),
    }];
    let task = Preference {
        loss: PreferenceLoss::Sigmoid,
        beta: 0.5,
        label_smoothing: 0.0,
        pad: 0,
    };
    // What is learned of two answers, one after the other.
    let log_probs = |model: &Decoder| {
        [5, 6].map(|answer| {
            let rows = [side(answer)];
            let found = evaluate_task(model, &Causal { pad: 0 }, &rows, 1).expect("evaluated");
            -found.metrics["loss"] * rows[0].learned_len() as f64
        })
    };
    let tokens = VirtualTokensConfig::Prompt {
        tokens: 2,
        init: PromptInit::Random,
    };
    let base = tiny_llama();
    let bottleneck = BottleneckConfig::new(2, BottleneckPlacement::Houlsby);
    let prompted = base.clone().with_virtual_tokens(&tokens, 1);
    let both = prompted.expect("valid").with_bottlenecks(&bottleneck, 1);
    let both = both.expect("valid");
    let found = evaluate_task(&both, &task, &pairs, 1).expect("a reference");
    let (with, without) = (log_probs(&both), log_probs(&base));
    for (at, name) in ["rewards/chosen", "rewards/rejected"]
        .into_iter()
        .enumerate()
    {
        let expected = task.beta * (with[at] - without[at]);
        assert!(expected.abs() > 1e-2, "{name}: {expected}");
        let apart = (found.metrics[name] - expected).abs();
        assert!(apart < 1e-5, "{name}: {found:?}, {expected}");
    }
}

#[test]
fn settings_of_preferences_are_checked_together() {
    let pair = PreferencePair {
        chosen: Example::new(vec![3, 4], 1).expect("valid"),
        rejected: Example::new(vec![3, 4], 1).expect("valid"),
    };
    let task = Preference {
        loss: PreferenceLoss::Ipo,
        beta: 0.0,
        label_smoothing: 0.5,
        pad: 0,
    };
    let error = evaluate_task(&tiny_llama(), &task, &[pair], 1).expect_err("refused");
    let error = error.to_string();
    for part in [
        "1 examples have the same answer twice: 0",
        "beta must be above 0",
        "at least 0 and below 0.5",
        "label smoothing is for DPO's sigmoid loss alone",
        "attach one, or take orpo",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}
