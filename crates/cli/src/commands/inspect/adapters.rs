//! The adapters of a folder: one, or several that belong together.

use std::path::Path;

use burn_lora::transformer::{AdapterKind, adapter_folders};
use serde_json::json;

use super::{adapter, part};
use crate::failure::Failure;
use crate::output::Output;

/// Looks at a folder with an `adapter_config.json`, or at folders with one in it.
pub fn run(folder: &Path, output: &Output) -> Result<(), Failure> {
    let mut lines = Vec::new();
    let mut objects = Vec::new();
    for one in adapter_folders(folder)? {
        let (told, object) = match one.kind {
            AdapterKind::Weights => adapter::look(&one.path)?,
            AdapterKind::VirtualTokens | AdapterKind::Bottleneck => part::look(&one.path)?,
        };
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.extend(told);
        objects.push(object);
    }
    let object = match objects.len() {
        1 => objects.remove(0),
        _ => json!({
            "command": "inspect",
            "kind": "adapters",
            "path": folder,
            "adapters": objects,
        }),
    };
    output.done(&lines, &object);
    Ok(())
}
