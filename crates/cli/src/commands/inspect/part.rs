//! Virtual tokens or bottlenecks, by their folder alone.

use std::path::Path;

use burn_lora::transformer::{PartReport, inspect_part};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::units::{bytes_text, thousands};

/// What of a configuration says how much of the method there is; a folder has those of its own.
const SETTINGS: [&str; 9] = [
    "num_virtual_tokens",
    "prompt_tuning_init_text",
    "prefix_projection",
    "encoder_reparameterization_type",
    "encoder_hidden_size",
    "bottleneck_size",
    "placement",
    "non_linearity",
    "scaling",
];

/// Looks at a folder, in lines and as an object.
pub fn look(folder: &Path) -> Result<(Vec<String>, Value), Failure> {
    let report = inspect_part(folder)?;
    let PartReport {
        folder: found,
        config,
        ..
    } = &report;
    let base = config
        .get("base_model_name_or_path")
        .and_then(Value::as_str);
    let settings = SETTINGS.into_iter().filter_map(|name| {
        let value = config.get(name).filter(|value| !value.is_null())?;
        Some((name, value))
    });
    let settings: Vec<(&str, &Value)> = settings.collect();
    let mut lines = vec![
        format!("adapter     {}", folder.display()),
        format!(
            "method      {} ({})",
            word(&found.peft_type),
            found.peft_type
        ),
        format!(
            "task        {}",
            found.task_type.as_deref().unwrap_or("none named")
        ),
        format!("base        {}", base.unwrap_or("none named")),
    ];
    lines.extend(
        settings
            .iter()
            .map(|(name, value)| format!("setting     {name}: {value}")),
    );
    lines.push(format!(
        "parameters  {} in {} tensors, {}",
        thousands(report.parameters() as u64),
        report.tensors.len(),
        bytes_text(report.bytes)
    ));
    if !found.modules_to_save.is_empty() {
        lines.push(format!("also        {}", found.modules_to_save.join(", ")));
    }
    lines.extend(table(&report));
    let faults = report.faults.iter();
    lines.extend(faults.map(|fault| format!("fault       {fault}")));
    if report.faults.is_empty() {
        lines.push("faults      none found without the base".to_string());
    }
    let tensors = report.tensors.iter().map(|tensor| {
        json!({
            "name": tensor.name,
            "shape": tensor.shape,
            "dtype": tensor.dtype,
            "rms": tensor.rms,
        })
    });
    let object = json!({
        "command": "inspect",
        "kind": "adapter",
        "path": folder,
        "method": word(&found.peft_type),
        "peft_type": found.peft_type,
        "task_type": found.task_type,
        "base": base,
        "settings": settings.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "modules_to_save": found.modules_to_save,
        "parameters": report.parameters(),
        "bytes": report.bytes,
        "tensors": tensors.collect::<Vec<_>>(),
        "faults": report.faults,
    });
    Ok((lines, object))
}

/// The word of a configuration for what PEFT calls otherwise.
fn word(peft_type: &str) -> &'static str {
    match peft_type {
        "PROMPT_TUNING" => "prompt",
        "P_TUNING" => "p-tuning",
        "PREFIX_TUNING" => "prefix",
        _ => "bottleneck",
    }
}

/// The tensors with the root mean square of their numbers.
fn table(report: &PartReport) -> Vec<String> {
    let widest = report.tensors.iter().map(|tensor| tensor.name.len()).max();
    let width = widest.unwrap_or(0).max("tensor".len());
    let mut lines = vec![format!(
        "{:<width$}  {:>14}  {:>5}  root mean square",
        "tensor", "shape", "dtype"
    )];
    lines.extend(report.tensors.iter().map(|tensor| {
        let shape: Vec<String> = tensor.shape.iter().map(ToString::to_string).collect();
        let rms = tensor
            .rms
            .map_or("-".to_string(), |rms| format!("{rms:.5}"));
        format!(
            "{:<width$}  {:>14}  {:>5}  {rms}",
            tensor.name,
            shape.join(" x "),
            tensor.dtype
        )
    }));
    lines
}
