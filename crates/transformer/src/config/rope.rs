//! The rotary part of a Llama configuration, in the spellings of Transformers 4 and 5.

use burn_lora_kernels::RopeScaling;
use serde_json::{Map, Value, json};

use super::fields::Fields;

/// Base and scaling of the rotary frequencies.
///
/// Transformers 4 writes `rope_theta` and `rope_scaling`, Transformers 5 one object `rope_parameters` with both.
pub(crate) fn read(fields: &mut Fields<'_>, max_positions: usize) -> (f64, RopeScaling) {
    let mut theta = fields.number("rope_theta", 10_000.0);
    let mut scaling = RopeScaling::None;
    for name in ["rope_scaling", "rope_parameters"] {
        let Some(value) = fields.value(name) else {
            continue;
        };
        let Some(map) = value.as_object() else {
            fields.refuse(format!("`{name}` is {value}, expected an object"));
            continue;
        };
        if let Some(base) = map.get("rope_theta").and_then(Value::as_f64) {
            theta = base;
        }
        match read_scaling(map, max_positions) {
            Ok(RopeScaling::None) => {}
            Ok(found) => scaling = found,
            Err(problem) => fields.refuse(format!("`{name}`: {problem}")),
        }
    }
    (theta, scaling)
}

fn read_scaling(map: &Map<String, Value>, max_positions: usize) -> Result<RopeScaling, String> {
    let kind = map.get("rope_type").or_else(|| map.get("type"));
    let kind = kind.and_then(Value::as_str).unwrap_or("default");
    let number = |name: &str| {
        map.get(name)
            .and_then(Value::as_f64)
            .filter(|number| *number > 0.0)
            .ok_or_else(|| format!("`{kind}` needs a positive number under `{name}`"))
    };
    match kind {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear {
            factor: number("factor")?,
        }),
        "llama3" => {
            let low = number("low_freq_factor")?;
            let high = number("high_freq_factor")?;
            if high <= low {
                return Err("`high_freq_factor` is not above `low_freq_factor`".into());
            }
            let original = map.get("original_max_position_embeddings");
            let original = original.and_then(Value::as_u64).map(|n| n as usize);
            Ok(RopeScaling::Llama3 {
                factor: number("factor")?,
                low_freq_factor: low,
                high_freq_factor: high,
                original_positions: original.unwrap_or(max_positions),
            })
        }
        other => Err(format!(
            "rope type `{other}` is not built; default, linear and llama3 are"
        )),
    }
}

/// The value of `rope_scaling` in the spelling of Transformers 4, which 5 reads too.
pub(crate) fn scaling_to_json(scaling: RopeScaling) -> Value {
    match scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_positions,
        } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_positions,
        }),
    }
}
