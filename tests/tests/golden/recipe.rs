//! The recipe as users run it: its loss and its optimizer against PyTorch's.

use burn_lora::train::{Decay, Observer, TrainConfig, TrainData, Warmup, finetune};
use burn_lora_tests::{Golden, assert_close, on_each_device, parameters};

use crate::common::{LOSS, STEPPED, values};

/// Five steps as the reference took them, by one forward pass each or by several.
fn recipe(golden: &Golden, batch_size: usize, grad_accumulation: usize) -> TrainConfig {
    TrainConfig {
        steps: golden.shape("adamw.losses")[0],
        batch_size,
        grad_accumulation,
        learning_rate: golden.number("adamw.learning_rate"),
        weight_decay: golden.number("adamw.weight_decay"),
        warmup: Warmup::Steps(0),
        decay: Decay::Constant,
        grad_clip_norm: None,
        ..TrainConfig::default()
    }
}

fn takes_the_steps_of_the_reference(batch_size: usize, grad_accumulation: usize) {
    on_each_device(|device| {
        for golden in Golden::all() {
            let data = TrainData {
                train: golden.examples(),
                valid: golden.examples(),
                pad: 0,
            };
            let config = recipe(&golden, batch_size, grad_accumulation);
            let model = golden.initial(&device);
            let outcome = finetune(model, &config, data, Observer::Nobody).unwrap();

            let losses = golden.floats("adamw.losses");
            assert_eq!(outcome.steps, losses.len());
            let mean = losses.iter().sum::<f32>() / losses.len() as f32;
            let train_loss = outcome.train_loss.unwrap() as f32;
            assert_close(golden.name, &[train_loss], &[mean], 10.0 * LOSS);
            // After the steps, so lower than before the last.
            assert!((outcome.valid_loss.unwrap() as f32) < losses[losses.len() - 1]);

            let actual = parameters(&outcome.model);
            for (path, expected) in golden.stage("adamw.weight/") {
                let what = format!("{}: {path}", golden.name);
                assert_close(&what, &values(&actual[&path]), &values(&expected), STEPPED);
            }
        }
    });
}

#[test]
fn the_recipe_takes_the_optimizer_steps_of_pytorch() {
    takes_the_steps_of_the_reference(3, 1);
}

#[test]
fn accumulated_gradients_make_the_same_steps() {
    // The rows have different numbers of learned tokens: a mean of the rows' means would be another loss.
    takes_the_steps_of_the_reference(1, 3);
}
