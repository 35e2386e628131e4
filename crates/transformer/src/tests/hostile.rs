//! Configurations with a field of any value are refused or make sense; none panics.

use serde_json::{Value, json};

use super::*;
use crate::encoder::load::FromCheckpoint;
use crate::{ConfigError, Encoder, EncoderConfig, MaskedLm, T5, T5Config, T5Variant, Task};

fn values() -> Vec<Value> {
    let scaling = |kind: &str| {
        json!({"rope_type": kind, "factor": 0, "original_max_position_embeddings": 1,
            "low_freq_factor": 1, "high_freq_factor": 1, "short_factor": [], "long_factor": [-1]})
    };
    let kinds = [
        "linear", "dynamic", "llama3", "yarn", "longrope", "su", "default", "?",
    ];
    let numbers = [0u64, 1, 3, 7, 65_535, 1 << 31, 1 << 62, u64::MAX];
    let mut values: Vec<Value> = numbers.into_iter().map(Value::from).collect();
    values.extend([-1.0, 0.5, 1e-300, 1e300].map(Value::from));
    values.extend([
        Value::Null,
        json!(true),
        json!("silu"),
        json!([]),
        json!([1, "full_attention"]),
        json!(["sliding_attention", "full_attention"]),
        json!({}),
        json!({"rope_theta": "x", "full_attention": {}, "sliding_attention": 3}),
        json!({"type": 3, "factor": null}),
    ]);
    values.extend(kinds.map(scaling));
    values
}

/// Reads the text with every field that it has, and these, set to every value. What is taken must be taken again after it was
/// written.
fn change_every_field(
    name: &str,
    text: &str,
    more: &[&str],
    read: impl Fn(&str) -> Result<String, ConfigError>,
) -> usize {
    let mut fields: Value = serde_json::from_str(text).expect("an object");
    for more in more {
        fields[more] = Value::Null;
    }
    let names = fields.as_object().expect("an object").keys();
    let names: Vec<String> = names.cloned().collect();
    let mut refused = 0;
    for field in names {
        for value in values() {
            let mut changed = fields.clone();
            changed[&field] = value.clone();
            let Ok(text) = read(&changed.to_string()) else {
                refused += 1;
                continue;
            };
            let again = read(&text).unwrap_or_else(|error| {
                panic!("{name}: {field} {value} is taken and then refused: {error}")
            });
            assert_eq!(again, text, "{name}: {field} {value}");
        }
    }
    refused
}

#[test]
fn no_value_of_a_decoders_field_panics() {
    let read = |text: &str| {
        let mut config = DecoderConfig::from_json(text)?;
        let _ = config.num_labels();
        if config.n_layers() < 8 {
            Decoder::keys(&config, &Device::flex());
        }
        Ok(config.to_json())
    };
    let more = ["rope_parameters", "num_labels", "id2label"];
    let configs = configs().into_iter();
    let refused =
        configs.map(|(name, config)| change_every_field(name, &config.to_json(), &more, read));
    let refused: usize = refused.sum();
    assert!(refused > 1000, "{refused}");
}

#[test]
fn no_value_of_an_encoders_field_panics() {
    let read = |text: &str| {
        let config = EncoderConfig::from_json(text)?;
        if config.n_layers() < 8 {
            <Encoder as FromCheckpoint>::keys(&config, &Device::flex());
            if config.check_task(Task::MaskedLm).is_ok() {
                <MaskedLm as FromCheckpoint>::keys(&config, &Device::flex());
            }
        }
        Ok(config.to_json())
    };
    let more = [
        "num_labels",
        "rope_parameters",
        "rope_scaling",
        "position_embedding_type",
    ];
    let configs = super::encoder_families::encoders().into_iter();
    let refused =
        configs.map(|(name, config)| change_every_field(name, &config.to_json(), &more, read));
    let refused: usize = refused.sum();
    assert!(refused > 1000, "{refused}");
}

#[test]
fn no_value_of_a_t5s_field_panics() {
    let read = |text: &str| {
        let config = T5Config::from_json(text)?;
        if config.num_layers + config.num_decoder_layers < 16 {
            T5::keys(&config, &Device::flex());
        }
        Ok(config.to_json())
    };
    let mt5 = T5Config {
        variant: T5Variant::Mt5,
        ..super::t5::config()
    };
    let mut refused = 0;
    for (name, config) in [("t5", super::t5::original()), ("mt5", mt5)] {
        refused += change_every_field(name, &config.to_json(), &["is_decoder"], read);
    }
    assert!(refused > 200, "{refused}");
}
