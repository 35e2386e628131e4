//! Configurations with a field of any value are refused or make sense; none panics.

use serde_json::{Value, json};

use super::*;

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

#[test]
fn no_value_of_a_field_panics() {
    let mut refused = 0;
    for (name, config) in configs() {
        let text = config.to_json();
        let mut fields: Value = serde_json::from_str(&text).expect("an object");
        for more in ["rope_parameters", "num_labels", "id2label"] {
            fields[more] = Value::Null;
        }
        let names: Vec<String> = fields
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect();
        for field in names {
            for value in values() {
                let mut changed = fields.clone();
                changed[&field] = value.clone();
                let Ok(mut config) = DecoderConfig::from_json(&changed.to_string()) else {
                    refused += 1;
                    continue;
                };
                let text = config.to_json();
                let again = DecoderConfig::from_json(&text);
                let again = again.unwrap_or_else(|error| {
                    panic!("{name}: {field} {value} is taken and then refused: {error}")
                });
                assert_eq!(again.to_json(), text, "{name}: {field} {value}");
                let _ = config.num_labels();
                if config.n_layers() < 8 {
                    Decoder::keys(&config, &Device::flex());
                }
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}
