use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::error::AdapterError;
use crate::factors::reading::{Names, check_ranks, number};
use crate::factors::{FactorSet, Factors};
use crate::peft::{CONFIG_FILE, tensors};

/// Name of mlx-lm's weights file.
const WEIGHTS_FILE: &str = "adapters.safetensors";

const NAMES: Names = Names {
    prefix: "",
    a: ".lora_a",
    b: ".lora_b",
};

/// Reads a LoRA folder of mlx-lm: `adapters.safetensors` with `<path>.lora_a [in, r]` and `<path>.lora_b [r, out]`, which is
/// Burn's layout, and `adapter_config.json`, whose `lora_parameters` have the `scale` itself (20 where nothing else is said).
///
/// mlx-lm's paths are those of Hugging Face's checkpoints for the Llama family. A layer with other tensors (the magnitudes of
/// its DoRA, factors of experts in three dimensions) is refused by name.
///
/// # Errors
///
/// [`AdapterError::Io`]; [`AdapterError::ConfigFile`]; [`AdapterError::Unsupported`] for a run that was no LoRA;
/// [`AdapterError::Tensors`] with every tensor that is none of these, lacks its counterpart or is not finite.
pub fn read_mlx(folder: &Path) -> Result<FactorSet, AdapterError> {
    let path = folder.join(CONFIG_FILE);
    let text = fs::read_to_string(&path).map_err(AdapterError::io(&path))?;
    let faulty = |reason: String| AdapterError::ConfigFile {
        path: path.clone(),
        reason,
    };
    let config: Value =
        serde_json::from_str(&text).map_err(|error| faulty(format!("not JSON: {error}")))?;
    // Versions before fine_tune_type had LoRA only.
    let kind = config.get("fine_tune_type").and_then(Value::as_str);
    if let Some(kind) = kind.filter(|kind| *kind != "lora") {
        return Err(AdapterError::Unsupported {
            path,
            features: vec![format!("fine_tune_type \"{kind}\"; lora is read here")],
        });
    }
    let parameters = config.get("lora_parameters");
    let parameters = parameters.ok_or_else(|| faulty("it has no lora_parameters".to_string()))?;
    let mut faults = Vec::new();
    let scale = number(parameters, &["scale"]).filter(|scale| scale.is_finite());
    let alpha = number(parameters, &["alpha"]);
    let rank = number(parameters, &["rank"]);
    let scale = scale.or_else(|| Some(alpha? / rank?));
    if scale.is_none() {
        faults.push("lora_parameters has no number for scale".to_string());
    }
    if rank.is_none_or(|rank| rank < 1.0 || rank.fract() != 0.0) {
        faults.push("lora_parameters has no whole number for rank".to_string());
    }
    let (Some(scale), Some(rank), true) = (scale, rank, faults.is_empty()) else {
        return Err(faulty(faults.join("; ")));
    };
    let path = folder.join(WEIGHTS_FILE);
    let stored = tensors::read_safetensors(&path)?;
    let pairs = NAMES
        .pairs(stored)
        .and_then(|pairs| check_ranks(pairs, &NAMES));
    let pairs = pairs.map_err(|faults| AdapterError::Tensors { path, faults })?;
    let odd = pairs
        .iter()
        .filter(|(_, [a, _])| a.columns() as f64 != rank);
    let odd: Vec<String> = odd
        .map(|(layer, [a, _])| {
            format!(
                "{layer} has rank {}, lora_parameters says {rank}",
                a.columns()
            )
        })
        .collect();
    if !odd.is_empty() {
        return Err(AdapterError::Factors {
            action: "reading the adapter",
            faults: odd,
        });
    }
    let pairs = pairs.into_iter();
    Ok(pairs
        .map(|(layer, [a, b])| (layer, Factors { a, b, scale }))
        .collect())
}
