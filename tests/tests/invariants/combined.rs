//! LoRA trained together with a prefix: by the recipe, on a Llama, a BERT that classifies and a T5.

use std::fmt::Debug;
use std::fs;
use std::path::Path;

use burn::tensor::{DType, Device};
use burn_lora::adapter::{DEFAULT_NAME, attach, peft, peft::PeftMetadata};
use burn_lora::data::{Example, LabelledExample, SourceTarget, Target};
use burn_lora::train::{
    Causal, Classification, Observer, Seq2Seq, Task, TaskData, TrainConfig, finetune_task,
};
use burn_lora::transformer::{VirtualTokensConfig, WithRows};
use burn_lora_tests::{
    Parameters, Subject, assert_same, bert, llama, on_each_device, parameters, t5,
};
use serde_json::Map;

use crate::common::{assert_changed, assert_same_parameters};

fn is_head(path: &str) -> bool {
    path.starts_with("classifier.")
}

/// The base's own, without what is trained with both.
fn base_of(found: Parameters) -> Parameters {
    let is_added = |path: &str| path.contains(".lora.") || path.contains("prompt_encoder.");
    let found = found.into_iter();
    found
        .filter(|(path, _)| !is_added(path) && !is_head(path))
        .collect()
}

fn forget_after(step: usize, folder: &Path) {
    for entry in fs::read_dir(folder.join("checkpoints")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let number = name.strip_prefix("step-").and_then(|n| n.parse().ok());
        if number.is_some_and(|number: usize| number > step) {
            fs::remove_dir_all(path).unwrap();
        }
    }
}

fn check<M, T>(subject: &Subject<M>, task: &T, heads: &[String], examples: Vec<T::Example>)
where
    M: WithRows + 'static,
    T: Task<M>,
    T::Example: Clone + Debug,
{
    let what = subject.name;
    for projection in [None, Some(5)] {
        let tokens = 2;
        let prefix = VirtualTokensConfig::Prefix { tokens, projection };
        let lora = subject.config().with_modules_to_save(heads.to_vec());
        // An adapter of weights closes everything but itself, so it comes first.
        let model = attach(subject.base.clone(), DEFAULT_NAME, &lora).unwrap();
        let model = model.with_virtual_tokens(&prefix, 3).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = TrainConfig {
            steps: 4,
            batch_size: 2,
            learning_rate: 1e-2,
            eval_every: Some(2),
            save_every: Some(2),
            keep: 3,
            output_dir: Some(folder.path().to_path_buf()),
            ..TrainConfig::default()
        };
        let data = || TaskData {
            train: examples.clone(),
            valid: examples.clone(),
        };
        let run = |config: &TrainConfig| {
            let outcome = finetune_task(model.clone(), task, config, data(), Observer::Nobody);
            outcome.unwrap().model
        };
        let trained = run(&config);

        // Each parameter of both changed, and the base did not.
        let (before, after) = (parameters(&model), parameters(&trained));
        for (path, value) in &after {
            let is_trained =
                path.contains(".lora.") || path.contains("prompt_encoder.") || is_head(path);
            assert_eq!(before[path] != *value, is_trained, "{what}: {path}");
        }
        assert_same_parameters(
            what,
            &base_of(after.clone()),
            &base_of(parameters(&subject.base)),
        );

        // A checkpoint brings both back: with either missing, the rest of the run would be another.
        forget_after(2, folder.path());
        let resumed = run(&TrainConfig {
            resume: true,
            ..config
        });
        assert_same_parameters(what, &parameters(&resumed), &after);

        // So do the folders, onto a base that has neither.
        let trained = trained.valid();
        let expected = subject.output(&trained);
        let (weights, tokens) = (folder.path().join("weights"), folder.path().join("tokens"));
        peft::save(
            &trained,
            DEFAULT_NAME,
            &lora,
            &PeftMetadata::default(),
            &weights,
        )
        .unwrap();
        trained
            .save_virtual_tokens(&tokens, None, &Map::new())
            .unwrap();
        let (adapted, _) = peft::load(subject.base.clone(), DEFAULT_NAME, &weights).unwrap();
        assert_changed(what, &subject.output(&adapted), &expected);
        let (both, _) = adapted.load_virtual_tokens(&tokens).unwrap();
        assert_same(what, &subject.output(&both), &expected);
        let (first, _) = subject.base.clone().load_virtual_tokens(&tokens).unwrap();
        assert_changed(what, &subject.output(&first), &expected);
        let (both, _) = peft::load(first, DEFAULT_NAME, &weights).unwrap();
        assert_same(what, &subject.output(&both), &expected);
    }
}

const TEXTS: [[u32; 6]; 3] = [
    [7, 3, 11, 30, 20, 8],
    [5, 31, 2, 9, 4, 4],
    [1, 30, 4, 17, 6, 22],
];

fn on_each(check: impl Fn(&Device)) {
    on_each_device(|device| check(&device));
}

#[test]
fn lora_and_a_prefix_are_trained_together_on_a_llama() {
    on_each(|device| {
        let subject = llama(device, DType::F32);
        let task = Causal { pad: 0 };
        let examples = TEXTS.map(|text| Example::new(text.to_vec(), 2).unwrap());
        check(&subject, &task, &[], examples.to_vec());
    });
}

#[test]
fn lora_and_a_prefix_are_trained_together_on_a_bert_with_its_head() {
    on_each(|device| {
        let subject = bert(device, DType::F32);
        let labels = subject.base.config().num_labels();
        let task = Classification::new(labels, &[]);
        let examples = TEXTS.into_iter().enumerate();
        let examples = examples.map(|(index, text)| LabelledExample {
            ids: text.to_vec(),
            type_ids: vec![0; text.len()],
            target: Target::Class(index % labels),
        });
        check(&subject, &task, &task.head_modules(), examples.collect());
    });
}

#[test]
fn lora_and_a_prefix_are_trained_together_on_a_t5() {
    on_each(|device| {
        let subject = t5(device, DType::F32);
        let examples = TEXTS.map(|text| SourceTarget {
            source: text.to_vec(),
            target: text[1..4].to_vec(),
        });
        check(&subject, &Seq2Seq::default(), &[], examples.to_vec());
    });
}
