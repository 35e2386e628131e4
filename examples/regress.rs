//! Regression: a new head and an adapter on an encoder learn a number, here how many of the tokens of a text are 5.
//!
//! The encoder is a tiny random BERT; `SequenceClassifier::load_with` takes a real one, with `num_labels: Some(1)`.
//! `burn-lora train` does the same with `task: regression` (`burn-lora recipes print regression`).
//!
//! ```text
//! cargo run --release --example regress
//! ```

#![allow(clippy::print_stdout)]

use std::error::Error;

use burn::tensor::Device;
use burn_lora::data::{LabelledExample, Target};
use burn_lora::prelude::*;
use burn_lora::train::{Regression, TaskData, Warmup, evaluate_task, finetune_task};
use burn_lora::transformer::{EncoderConfig, SequenceClassifier};

const BERT: &str = r#"{"model_type": "bert", "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 16, "num_labels": 1}"#;

/// Texts of six tokens, of which up to three are 5.
fn texts(seeds: std::ops::Range<usize>) -> Vec<LabelledExample> {
    seeds
        .map(|seed| {
            let count = seed % 4;
            let mut ids: Vec<u32> = (0..6)
                .map(|at| (10 + (seed * 7 + at * 5) % 30) as u32)
                .collect();
            for at in 0..count {
                ids[(seed / 4 + 2 * at) % 6] = 5;
            }
            LabelledExample {
                type_ids: vec![0; ids.len()],
                ids,
                target: Target::Value(count as f64 / 2.0),
            }
        })
        .collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let base = SequenceClassifier::init(EncoderConfig::from_json(BERT)?, &Device::flex(), 7)?;
    let task = Regression::new(base.fresh());
    let lora = LoraConfig {
        modules_to_save: task.head_modules(),
        ..LoraConfig::new(8, 16.0).with_targets(Targets::names(["query", "value"]))
    };
    let model = attach(base, DEFAULT_NAME, &lora)?;
    let (train, valid) = (texts(0..200), texts(200..240));
    let before = evaluate_task(&model, &task, &valid, 16)?;

    let config = TrainConfig {
        steps: 150,
        batch_size: 16,
        learning_rate: 1e-2,
        warmup: Warmup::Steps(5),
        ..TrainConfig::default()
    };
    let data = TaskData {
        train,
        valid: valid.clone(),
    };
    let tuned = finetune_task(model, &task, &config, data, Observer::Nobody)?;
    let after = evaluate_task(&tuned.model, &task, &valid, 16)?;
    for (name, value) in &after.metrics {
        println!("{name:20} {:.3} -> {value:.3}", before.metrics[name]);
    }
    Ok(())
}
