//! The tasks of the recipe: their losses and gradients against Transformers, PEFT and TRL, and what they measure against the
//! libraries that define it.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use burn_lora::adapter::{AdapterOnly, DEFAULT_NAME, peft};
use burn_lora::data::{
    Example, LabelledExample, PreferencePair, SourceTarget, TaggedExample, Target,
};
use burn_lora::train::measures::{
    accuracy, binary_f1, bleu, entity_scores, macro_f1, matthews, pearson, rouge_l, spearman,
};
use burn_lora::train::{
    Classification, Preference, PreferenceLoss, Regression, Seq2Seq, Tagging, Task, evaluate_task,
};
use burn_lora::transformer::{LoadOptions, SequenceClassifier, T5, TokenClassifier};
use burn_lora_tests::{Golden, assert_close, floats, gradients, on_each_device};
use serde_json::Value;

use crate::common::{GRADIENT, LOSS, values};

const IGNORED: i64 = -100;

/// The mean loss of all rows in one batch, and that of batches of one and two rows as they are accumulated.
fn losses<M: Module, T: Task<M>>(
    model: &M,
    task: &T,
    examples: &[T::Example],
    device: &Device,
) -> (Tensor<1>, f32) {
    let mean = |rows: &[T::Example]| {
        let rows: Vec<Vec<&T::Example>> = rows.iter().map(|one| vec![one]).collect();
        let batch = task.batch(&rows, 0, device);
        let learned = task.counts(&batch).learned;
        (task.loss_sum(model, &batch), learned)
    };
    let (whole, learned) = mean(examples);
    let parts = [mean(&examples[..1]), mean(&examples[1..])];
    let sum: f32 = parts.iter().map(|(loss, _)| floats(loss.clone())[0]).sum();
    let count: usize = parts.iter().map(|(_, count)| count).sum();
    assert_eq!(count, learned);
    (whole / learned as f64, sum / count as f32)
}

/// Compares the loss of a task, and its gradients, with the reference's at the adapter's start.
fn compare<M: Module, T: Task<M>>(
    what: &str,
    golden: &Golden,
    [loss_name, gradient_name]: [&str; 2],
    model: M,
    task: &T,
    examples: &[T::Example],
    device: &Device,
) {
    let faults = task.faults(
        &model,
        &Default::default(),
        &examples.iter().collect::<Vec<_>>(),
    );
    assert!(faults.is_empty(), "{what}: {faults:?}");
    let saved = task.saved_modules().to_vec();
    let shown = AdapterOnly::new(model.train()).with_saved_modules(saved);
    let device = device.clone().autodiff();
    let (loss, in_parts) = losses(shown.inner(), task, examples, &device);
    let expected = golden.floats(loss_name);
    assert_close(what, &floats(loss.clone()), &expected, LOSS);
    assert_close(what, &[in_parts], &expected, LOSS);
    let found = gradients(&shown, &loss.backward());
    for (path, expected) in golden.stage(gradient_name) {
        let what = format!("{what}: {path}");
        assert_close(&what, &values(&found[&path]), &values(&expected), GRADIENT);
    }
}

const INIT: [&str; 2] = ["init.loss", "init.grad/"];

/// A model under the adapter from which the reference's gradients were computed.
fn initial<M: Module>(golden: &Golden, load: impl Fn(&Path) -> M) -> M {
    let scratch = tempfile::tempdir().unwrap();
    golden.write_adapter("init.weight/", scratch.path());
    let base = load(&golden.model_folder());
    peft::load(base, DEFAULT_NAME, scratch.path()).unwrap().0
}

fn rows(golden: &Golden) -> Vec<(Vec<u32>, Vec<u32>)> {
    let ids = golden.rows("input_ids", "attention_mask");
    let segments = match golden.has("token_type_ids") {
        true => golden.rows("token_type_ids", "attention_mask"),
        false => ids.iter().map(|row| vec![0; row.len()]).collect(),
    };
    ids.into_iter().zip(segments).collect()
}

fn labelled(golden: &Golden, targets: impl Iterator<Item = Target>) -> Vec<LabelledExample> {
    let example = |((ids, type_ids), target)| LabelledExample {
        ids,
        type_ids,
        target,
    };
    rows(golden).into_iter().zip(targets).map(example).collect()
}

#[test]
fn classes_have_the_losses_and_gradients_of_transformers() {
    on_each_device(|device| {
        for case in ["bert_sequence", "roberta_sequence", "distilbert_sequence"] {
            let golden = Golden::open(case);
            let model = initial(&golden, |dir| {
                SequenceClassifier::load(dir, &device).unwrap()
            });
            let classes = golden.ints("labels").into_iter();
            let examples = labelled(&golden, classes.map(|id| Target::Class(id as usize)));
            let task = Classification::new(model.config().num_labels(), &[]);
            let logits = floats(model.forward(&{
                let ids: Vec<Vec<u32>> = examples.iter().map(|one| one.ids.clone()).collect();
                let segments = examples.iter().map(|one| one.type_ids.clone());
                let segments: Vec<Vec<u32>> = segments.collect();
                model.encoder.batch(&ids, Some(&segments)).unwrap()
            }));
            let width = model.config().num_labels();
            let made: Vec<usize> = logits
                .chunks(width)
                .map(|row| {
                    let best = (0..width).max_by(|a, b| row[*a].total_cmp(&row[*b]));
                    best.unwrap()
                })
                .collect();
            let wanted: Vec<usize> = golden
                .ints("labels")
                .iter()
                .map(|id| *id as usize)
                .collect();
            let found = evaluate_task(&model, &task, &examples, 2).unwrap();
            assert_eq!(found.metrics["accuracy"], accuracy(&made, &wanted));
            assert_close(
                case,
                &[found.loss as f32],
                &golden.floats("init.loss"),
                LOSS,
            );
            compare(case, &golden, INIT, model, &task, &examples, &device);
        }
    });
}

#[test]
fn values_have_the_loss_of_transformers() {
    on_each_device(|device| {
        let golden = Golden::open("bert_regression");
        let model = SequenceClassifier::load(&golden.model_folder(), &device).unwrap();
        let values = golden.floats("labels").into_iter();
        let examples = labelled(&golden, values.map(|value| Target::Value(f64::from(value))));
        let (loss, in_parts) = losses(&model, &Regression::new(&[]), &examples, &device);
        let expected = golden.floats("base.loss");
        assert_close(golden.name, &floats(loss), &expected, LOSS);
        assert_close(golden.name, &[in_parts], &expected, LOSS);
    });
}

#[test]
fn tags_have_the_losses_of_transformers() {
    on_each_device(|device| {
        for case in ["distilbert_token", "modernbert_token", "deberta_v3_token"] {
            let golden = Golden::open(case);
            let model = TokenClassifier::load(&golden.model_folder(), &device).unwrap();
            let width = golden.shape("labels")[1];
            let labels = golden.ints("labels");
            let known = |label: &i64| (*label != IGNORED).then_some(*label as usize);
            let examples: Vec<TaggedExample> = golden
                .rows("input_ids", "attention_mask")
                .into_iter()
                .zip(labels.chunks(width))
                .map(|(ids, labels)| TaggedExample {
                    tags: labels[..ids.len()].iter().map(known).collect(),
                    ids,
                })
                .collect();
            let names = (0..model.config().num_labels()).map(|at| format!("B-{at}"));
            let task = Tagging::new(names.collect(), &[]);
            let (loss, in_parts) = losses(&model, &task, &examples, &device);
            let expected = golden.floats("base.loss");
            assert_close(case, &floats(loss), &expected, LOSS);
            assert_close(case, &[in_parts], &expected, LOSS);
        }
    });
}

#[test]
fn texts_to_write_have_the_losses_and_gradients_of_transformers() {
    on_each_device(|device| {
        for case in ["t5", "t5_v1_1", "mt5"] {
            let golden = Golden::open(case);
            let model = initial(&golden, |dir| {
                T5::load(dir, &LoadOptions::new(DType::F32, device.clone())).unwrap()
            });
            let width = golden.shape("labels")[1];
            let labels = golden.ints("labels");
            let targets = labels.chunks(width).map(|row| {
                let known = row.iter().filter(|label| **label != IGNORED);
                known.map(|id| *id as u32).collect()
            });
            let rows = golden.rows("input_ids", "attention_mask").into_iter();
            let examples: Vec<SourceTarget> = rows
                .zip(targets)
                .map(|(source, target)| SourceTarget { source, target })
                .collect();
            let task = Seq2Seq::default();
            compare(case, &golden, INIT, model, &task, &examples, &device);
        }
    });
}

/// The pairs of TRL's batch.
fn pairs(golden: &Golden) -> Vec<PreferencePair> {
    let rows = golden.rows("input_ids", "attention_mask");
    let width = golden.shape("completion_mask")[1];
    let learned = golden.ints("completion_mask");
    let learned = learned.chunks(width);
    let examples: Vec<Example> = rows
        .into_iter()
        .zip(learned)
        .map(|(ids, learned)| {
            let from = learned.iter().position(|is| *is == 1).unwrap();
            Example::new(ids, from).unwrap()
        })
        .collect();
    let (chosen, rejected) = examples.split_at(examples.len() / 2);
    let pairs = chosen.iter().zip(rejected);
    pairs
        .map(|(chosen, rejected)| PreferencePair {
            chosen: chosen.clone(),
            rejected: rejected.clone(),
        })
        .collect()
}

#[test]
fn preferences_have_the_losses_gradients_and_rewards_of_trl() {
    on_each_device(|device| {
        let golden = Golden::open("tasks");
        let (beta, smoothing) = (golden.number("beta"), golden.number("label_smoothing"));
        let pairs = pairs(&golden);
        for (name, loss, label_smoothing) in [
            ("sigmoid", PreferenceLoss::Sigmoid, 0.0),
            ("smoothed", PreferenceLoss::Sigmoid, smoothing),
            ("ipo", PreferenceLoss::Ipo, 0.0),
            ("orpo", PreferenceLoss::Orpo, 0.0),
        ] {
            let task = Preference {
                loss,
                beta,
                label_smoothing,
                pad: 0,
            };
            let model = Golden::open("llama").initial(&device);
            let found = evaluate_task(&model, &task, &pairs, 2).unwrap();
            assert_close(
                name,
                &[found.loss as f32],
                &golden.floats(&format!("{name}.loss")),
                LOSS,
            );
            for (metric, value) in &found.metrics {
                let known = format!("{name}.{metric}");
                if golden.has(&known) {
                    assert_close(&known, &[*value as f32], &golden.floats(&known), LOSS);
                }
            }
            let names = [format!("{name}.loss"), format!("{name}.grad/")];
            let names = [names[0].as_str(), names[1].as_str()];
            compare(name, &golden, names, model, &task, &pairs, &device);
        }
    });
}

#[test]
fn a_fresh_adapter_has_the_loss_of_no_preference() {
    let golden = Golden::open("tasks");
    let device = Device::flex();
    let lora = burn_lora::adapter::LoraConfig::new(2, 4.0);
    let model = Golden::open("llama").base(&device);
    let model = burn_lora::adapter::attach(model, DEFAULT_NAME, &lora).unwrap();
    let task = Preference {
        loss: PreferenceLoss::Sigmoid,
        beta: 0.1,
        label_smoothing: 0.0,
        pad: 0,
    };
    let found = evaluate_task(&model, &task, &pairs(&golden), 4).unwrap();
    assert!(
        (found.loss - std::f64::consts::LN_2).abs() < 1e-6,
        "{found:?}"
    );
    assert_eq!(found.metrics["rewards/margins"], 0.0);
    let error = evaluate_task(
        &Golden::open("llama").base(&device),
        &task,
        &pairs(&golden),
        4,
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains("attach one, or take orpo"), "{error}");
}

fn numbers(value: &Value) -> Vec<f64> {
    let values = value.as_array().unwrap().iter();
    values.map(|value| value.as_f64().unwrap()).collect()
}

fn ids(value: &Value) -> Vec<usize> {
    numbers(value).into_iter().map(|id| id as usize).collect()
}

fn words(value: &Value) -> Vec<String> {
    let values = value.as_array().unwrap().iter();
    values
        .map(|value| value.as_str().unwrap().to_string())
        .collect()
}

/// They are exact: the last digits may differ by the order of sums.
#[track_caller]
fn same(what: &str, found: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    assert!(
        (found - expected).abs() < 1e-9,
        "{what}: {found} instead of {expected}"
    );
}

#[test]
fn metrics_are_those_of_their_libraries() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/tasks/metrics.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for case in golden["classes"].as_array().unwrap() {
        let (made, wanted) = (ids(&case["made"]), ids(&case["wanted"]));
        same("accuracy", accuracy(&made, &wanted), &case["accuracy"]);
        same("macro F1", macro_f1(&made, &wanted), &case["f1_macro"]);
        same("Matthews", matthews(&made, &wanted), &case["matthews"]);
        if !case["f1"].is_null() {
            same("F1", binary_f1(&made, &wanted), &case["f1"]);
        }
    }
    for case in golden["values"].as_array().unwrap() {
        let (made, wanted) = (numbers(&case["made"]), numbers(&case["wanted"]));
        same("Pearson", pearson(&made, &wanted), &case["pearson"]);
        same("Spearman", spearman(&made, &wanted), &case["spearman"]);
    }
    for case in golden["texts"].as_array().unwrap() {
        let pairs = case["pairs"].as_array().unwrap().iter();
        let pairs: Vec<[String; 2]> = pairs.map(|pair| words(pair).try_into().unwrap()).collect();
        same("BLEU", bleu(&pairs), &case["bleu"]);
        same("ROUGE-L", rouge_l(&pairs), &case["rouge_l"]);
    }
    let tags = &golden["tags"];
    let rows = |name: &str| -> Vec<Vec<String>> {
        tags[name].as_array().unwrap().iter().map(words).collect()
    };
    let found = entity_scores(&rows("made"), &rows("wanted"));
    same("precision", found.precision, &tags["precision"]);
    same("recall", found.recall, &tags["recall"]);
    same("F1", found.f1, &tags["f1"]);
}
