//! Masked language modelling: an encoder learns what stands behind masks, here in texts of one word.
//!
//! The encoder is a tiny random BERT; `MaskedLm::load` takes a real one, and `encode_texts` real texts. `burn-lora train` does the
//! same with `task: masked` (`burn-lora recipes print masked`).
//!
//! ```text
//! cargo run --release --example mask
//! ```

#![allow(clippy::print_stdout)]

use std::error::Error;

use burn::tensor::Device;
use burn_lora::prelude::*;
use burn_lora::train::{Masked, TaskData, Warmup, evaluate_task, finetune_task};
use burn_lora::transformer::{EncoderConfig, MaskedLm};

const BERT: &str = r#"{"model_type": "bert", "vocab_size": 24, "hidden_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 96, "max_position_embeddings": 16, "initializer_range": 0.2}"#;

/// `[CLS] k k k k k k k k [SEP]`
fn texts() -> Vec<Vec<u32>> {
    let text = |word: u32| [&[0], &[word; 8][..], &[1]].concat();
    (4..24).map(text).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let base = MaskedLm::init(EncoderConfig::from_json(BERT)?, &Device::flex(), 7)?;
    let task = Masked {
        mask: 2,
        special: vec![0, 1, 2, 3],
        vocab_size: 24,
        probability: 0.15,
    };
    let lora = LoraConfig::new(16, 32.0);
    let model = attach(base, DEFAULT_NAME, &lora)?;
    let (train, valid) = (texts(), texts());
    let before = evaluate_task(&model, &task, &valid, 16)?;

    let config = TrainConfig {
        steps: 200,
        batch_size: 20,
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
