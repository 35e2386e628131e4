//! Tagging: an encoder learns a tag for each word, here that 5 begins an entity and that 6 behind it goes on with it.
//!
//! The encoder is a tiny random BERT; `TokenClassifier::load` takes a real one, and `encode_tagged` real words, which are learned at
//! their first tokens. `burn-lora train` does the same with `task: tagging` (`burn-lora recipes print tagging`).
//!
//! ```text
//! cargo run --release --example tag
//! ```

#![allow(clippy::print_stdout)]

use std::error::Error;

use burn::tensor::Device;
use burn_lora::data::TaggedExample;
use burn_lora::prelude::*;
use burn_lora::train::{Tagging, TaskData, Warmup, evaluate_task, finetune_task};
use burn_lora::transformer::{EncoderConfig, TokenClassifier};

const BERT: &str = r#"{"model_type": "bert", "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 16, "num_labels": 3}"#;
const TAGS: [&str; 3] = ["O", "B-PLACE", "I-PLACE"];

/// Texts of six words, with an entity of one or two.
fn texts(seeds: std::ops::Range<usize>) -> Vec<TaggedExample> {
    seeds
        .map(|seed| {
            let mut ids: Vec<u32> = (0..6)
                .map(|at| (10 + (seed * 7 + at * 5) % 30) as u32)
                .collect();
            let mut tags = vec![Some(0); 6];
            let first = seed % 5;
            (ids[first], tags[first]) = (5, Some(1));
            if seed % 3 > 0 {
                (ids[first + 1], tags[first + 1]) = (6, Some(2));
            }
            TaggedExample { ids, tags }
        })
        .collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let base = TokenClassifier::init(EncoderConfig::from_json(BERT)?, &Device::flex(), 7)?;
    let task = Tagging::new(TAGS.map(String::from).to_vec(), base.fresh());
    let lora = LoraConfig {
        modules_to_save: task.head_modules(),
        ..LoraConfig::new(8, 16.0).with_targets(Targets::names(["query", "value"]))
    };
    let model = attach(base, DEFAULT_NAME, &lora)?;
    let (train, valid) = (texts(0..200), texts(200..240));
    let before = evaluate_task(&model, &task, &valid, 16)?;

    let config = TrainConfig {
        steps: 80,
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
