//! Preferences: of two answers to a prompt, a decoder learns to give the better one, by DPO or ORPO.
//!
//! DPO's reference is the same model with its adapter turned off. `burn-lora train` does the same with `task: dpo`, `ipo` or `orpo`
//! (`burn-lora recipes print dpo`).
//!
//! ```text
//! cargo run --release --example prefer
//! ```

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;

use burn_lora::data::{Row, Rows, encode_preferences};
use burn_lora::prelude::*;
use burn_lora::train::{
    Preference, PreferenceLoss, TaskData, Warmup, evaluate_task, finetune_task,
};

fn rows() -> Result<Rows, burn_lora::data::DataError> {
    let ships = ["Osprey", "Heron", "Tern", "Gannet", "Petrel", "Dunlin"];
    let row = |ship: &str| Row::Preference {
        prompt: format!("The {ship} is late."),
        chosen: " She will be here on Thursday.".into(),
        rejected: " Nobody knows.".into(),
    };
    Rows::new("rows made here", ships.map(row))
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/tiny-base"));
    let device = DeviceChoice::resolve(Some("flex"))?.open()?;
    let tokenizer = Tokenizer::from_folder(folder)?;
    let (pairs, _) = encode_preferences(&rows()?, &tokenizer, &EncodeOptions::new(64))?;
    let config = TrainConfig {
        steps: 20,
        batch_size: 3,
        learning_rate: 2e-3,
        warmup: Warmup::Steps(2),
        ..TrainConfig::default()
    };
    for loss in [PreferenceLoss::Sigmoid, PreferenceLoss::Orpo] {
        let task = Preference {
            loss,
            beta: 0.1,
            label_smoothing: 0.0,
            pad: tokenizer.pad(),
        };
        let base = Decoder::load(folder, &LoadOptions::new(DType::F32, device.clone()))?;
        let model = attach(base, DEFAULT_NAME, &LoraConfig::new(8, 16.0))?;
        let before = evaluate_task(&model, &task, &pairs, 3)?;
        let data = TaskData {
            train: pairs.clone(),
            valid: Vec::new(),
        };
        let tuned = finetune_task(model, &task, &config, data, Observer::Nobody)?;
        let after = evaluate_task(&tuned.model, &task, &pairs, 3)?;
        println!("{loss:?}");
        for (name, value) in &after.metrics {
            println!("{name:20} {:.3} -> {value:.3}", before.metrics[name]);
        }
    }
    Ok(())
}
