//! Options of a method on weights, by PEFT's keys.

use burn_lora_adapter::{AdapterError, LoraConfig, TrainedBiases, peft};
use serde_json::{Map, Value};

/// PEFT's keys for what a run says elsewhere, and where.
const ELSEWHERE: [(&str, &str); 26] = [
    ("r", "adapter.rank"),
    ("init_r", "adapter.rank"),
    ("lora_alpha", "adapter.alpha"),
    ("alpha", "adapter.alpha"),
    ("lora_dropout", "adapter.dropout"),
    ("vera_dropout", "adapter.dropout"),
    ("use_rslora", "adapter.rslora"),
    ("target_modules", "adapter.targets"),
    ("bias", "adapter.bias"),
    ("peft_type", "adapter.method"),
    ("use_dora", "adapter.method"),
    ("init_lora_weights", "adapter.initialization"),
    ("init_weights", "adapter.initialization"),
    ("init_ia3_weights", "adapter.initialization"),
    ("eva_config", "adapter.initialization_options"),
    ("corda_config", "adapter.initialization_options"),
    ("loftq_config", "adapter.initialization_options"),
    ("lora_ga_config", "adapter.initialization_options"),
    ("total_step", "training.steps"),
    ("base_model_name_or_path", "model"),
    ("revision", "revision"),
    ("task_type", "task"),
    // A head that is fresh is trained as a whole.
    ("modules_to_save", "task"),
    // Which way the weights lie, the model says.
    ("fan_in_fan_out", "model"),
    ("tokenizer_name_or_path", "model"),
    ("inference_mode", "output"),
];

/// The adapter with these options.
///
/// # Errors
/// Everything that is wrong with them, and with nothing else.
pub(super) fn with_options(
    config: LoraConfig,
    options: &Map<String, Value>,
) -> Result<LoraConfig, Vec<String>> {
    let elsewhere = |key: &str| ELSEWHERE.iter().find(|(name, _)| *name == key);
    let mut faults = Vec::new();
    let mut own = Map::new();
    for (key, value) in options {
        match elsewhere(key) {
            Some((_, setting)) => faults.push(format!("{key} has a setting of its own: {setting}")),
            None => {
                own.insert(key.clone(), value.clone());
            }
        }
    }
    // What the other settings are wrong by is told of them.
    let plain = LoraConfig {
        rank: config.rank.max(1),
        alpha: 1.0,
        dropout: 0.0,
        use_rslora: false,
        trained_biases: TrainedBiases::None,
        ..config.clone()
    };
    match peft::with_options(plain, &own) {
        Ok(read) if faults.is_empty() => Ok(LoraConfig {
            rank: config.rank,
            alpha: config.alpha,
            dropout: config.dropout,
            use_rslora: config.use_rslora,
            trained_biases: config.trained_biases,
            ..read
        }),
        Ok(_) => Err(faults),
        Err(AdapterError::Config { faults: wrong }) => {
            faults.extend(wrong);
            Err(faults)
        }
        Err(other) => {
            faults.push(other.to_string());
            Err(faults)
        }
    }
}
