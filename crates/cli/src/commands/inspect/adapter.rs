//! An adapter of weights, by its folder alone.

use std::path::Path;

use burn_lora::adapter::peft::{AdapterReport, TargetModules, inspect};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::units::{bytes_text, thousands};

/// Looks at a folder, in lines and as an object.
pub fn look(folder: &Path) -> Result<(Vec<String>, Value), Failure> {
    let report = inspect(folder)?;
    let config = &report.config;
    let base = config.base_model_name_or_path.as_deref();
    let targets = config.target_modules.as_ref().map(|targets| match targets {
        TargetModules::Names(names) => names.join(", "),
        TargetModules::Expression(text) => text.clone(),
    });
    let mut lines = vec![
        format!("adapter     {}", folder.display()),
        format!(
            "method      {} ({})",
            report.adapter.method, config.peft_type
        ),
        format!(
            "rank        {}, alpha {}",
            report.adapter.rank, report.adapter.alpha
        ),
        format!(
            "task        {}",
            config.task_type.as_deref().unwrap_or("none named")
        ),
        format!("base        {}", base.unwrap_or("none named")),
        format!(
            "targets     {}",
            targets.as_deref().unwrap_or("those of the family")
        ),
        format!(
            "parameters  {} on {} layers, {}",
            thousands(report.parameters as u64),
            report.layers.len(),
            bytes_text(report.bytes)
        ),
    ];
    let dtypes: Vec<String> = report
        .dtypes
        .iter()
        .map(|(dtype, tensors)| format!("{tensors} {dtype}"))
        .collect();
    lines.push(format!("tensors     {}", dtypes.join(", ")));
    lines.extend(report.others.iter().map(|key| format!("also        {key}")));
    lines.extend(table(&report));
    let faults = report
        .faults
        .iter()
        .map(|fault| format!("fault       {fault}"));
    lines.extend(faults);
    if report.faults.is_empty() {
        lines.push("faults      none found without the base".to_string());
    }
    let layers = report.layers.iter().map(|layer| {
        json!({
            "layer": layer.layer,
            "parameters": layer.parameters,
            "rank": layer.rank,
            "scale": layer.scale,
            "norm": layer.change.as_ref().map(|change| change.norm),
        })
    });
    let object = json!({
        "command": "inspect",
        "kind": "adapter",
        "path": folder,
        "method": report.adapter.method.to_string(),
        "peft_type": config.peft_type,
        "task_type": config.task_type,
        "base": base,
        "rank": report.adapter.rank,
        "alpha": report.adapter.alpha,
        "targets": targets,
        "modules_to_save": config.modules_to_save,
        "parameters": report.parameters,
        "bytes": report.bytes,
        "dtypes": report.dtypes,
        "layers": layers.collect::<Vec<_>>(),
        "others": report.others,
        "faults": report.faults,
    });
    Ok((lines, object))
}

/// The layers with the norms of what is added to them, and a bar for each.
fn table(report: &AdapterReport) -> Vec<String> {
    let layers = &report.layers;
    let width = layers.iter().map(|layer| layer.layer.len()).max();
    let width = width.unwrap_or(0).max("layer".len());
    let norms = || layers.iter().filter_map(|layer| layer.change.as_ref());
    let most = norms().map(|change| change.norm).fold(0.0, f64::max);
    let mut lines = vec![format!(
        "{:<width$}  {:>5}  {:>8}  {:>11}  norm of the change",
        "layer", "rank", "scale", "parameters"
    )];
    lines.extend(layers.iter().map(|layer| {
        let rank = layer.rank.map_or("-".into(), |rank| rank.to_string());
        let scale = layer
            .scale
            .map_or("-".into(), |scale| format!("{scale:.4}"));
        let norm = layer.change.as_ref().map_or("-".into(), |change| {
            let bar = (16.0 * change.norm / most.max(f64::MIN_POSITIVE)).round() as usize;
            format!("{:.5} {}", change.norm, "#".repeat(bar))
        });
        let line = format!(
            "{:<width$}  {rank:>5}  {scale:>8}  {:>11}  {norm}",
            layer.layer,
            thousands(layer.parameters as u64)
        );
        line.trim_end().to_string()
    }));
    lines
}
