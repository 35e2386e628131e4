//! Sequence to sequence: a T5 learns to write one text for another, here the same tokens each one higher.
//!
//! The model is tiny and random; `T5::load` takes a real one, and `encode_seq2seq` real texts. `burn-lora train` does the same with
//! `task: seq2seq` (`burn-lora recipes print seq2seq`), and measures exact match, BLEU and ROUGE-L of what is written.
//!
//! ```text
//! cargo run --release --example translate
//! ```

#![allow(clippy::print_stdout)]

use std::error::Error;

use burn::tensor::Device;
use burn_lora::data::SourceTarget;
use burn_lora::prelude::*;
use burn_lora::train::{Seq2Seq, TaskData, Warmup, evaluate_task, finetune_task};
use burn_lora::transformer::{ModelConfig, T5};

const T5_CONFIG: &str = r#"{"model_type": "t5", "vocab_size": 24, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2,
    "num_heads": 2, "relative_attention_num_buckets": 8, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
    "feed_forward_proj": "relu"}"#;
const END: u32 = 1;

/// Three tokens, and the three that are one higher.
fn texts(seeds: std::ops::Range<u32>) -> Vec<SourceTarget> {
    seeds
        .map(|seed| {
            let ids: Vec<u32> = (0..3).map(|at| 3 + (seed * 3 + at * 5) % 20).collect();
            let written = ids.iter().map(|id| id + 1).chain([END]).collect();
            SourceTarget {
                source: ids.into_iter().chain([END]).collect(),
                target: written,
            }
        })
        .collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let ModelConfig::T5(config) = ModelConfig::from_json(T5_CONFIG)? else {
        return Err("not a T5".into());
    };
    let base = T5::init(config, &Device::flex(), 7)?;
    let model = attach(base, DEFAULT_NAME, &LoraConfig::new(16, 32.0))?;
    let task = Seq2Seq::default();
    let before = evaluate_task(&model, &task, &texts(0..20), 10)?;

    let config = TrainConfig {
        steps: 250,
        batch_size: 20,
        learning_rate: 1e-2,
        warmup: Warmup::Steps(5),
        ..TrainConfig::default()
    };
    let data = TaskData {
        train: texts(0..20),
        valid: Vec::new(),
    };
    let tuned = finetune_task(model, &task, &config, data, Observer::Nobody)?;
    let after = evaluate_task(&tuned.model, &task, &texts(0..20), 10)?;
    println!(
        "loss                 {:.3} -> {:.3}",
        before.loss, after.loss
    );

    let options = GenerateOptions {
        max_new_tokens: 4,
        eos: vec![END],
        ..GenerateOptions::default()
    };
    let asked = &texts(3..4)[0];
    let written = generate(&tuned.model, std::slice::from_ref(&asked.source), &options)?;
    println!("{:?} is written for {:?}", written[0], asked.source);
    Ok(())
}
