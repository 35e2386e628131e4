use std::fs;

use serde_json::Value;

use super::config::RunConfig;
use crate::error::TrainError;

/// What the parameters of a checkpoint belong to, beside the settings of the training and the data.
fn identity(config: &RunConfig) -> Value {
    serde_json::json!({
        "model": config.model,
        "revision": config.revision,
        "dtype": config.dtype,
        "adapter": config.adapter,
    })
}

/// Compares the configuration of a run that is resumed with the one that it was started with.
///
/// # Errors
/// [`TrainError::ResumeMismatch`].
pub(super) fn check_same(config: &RunConfig) -> Result<(), TrainError> {
    let path = config.output.join("config.yaml");
    if !config.training.resume || config.training.allow_changes {
        return Ok(());
    }
    // A file that is missing or was changed by hand says nothing; the checkpoint has hashes of its own.
    let Some(old) = fs::read_to_string(&path)
        .ok()
        .and_then(|text| RunConfig::parse(&text, &[]).ok())
    else {
        return Ok(());
    };
    let mut differences = Vec::new();
    compare("", &identity(&old), &identity(config), &mut differences);
    match differences.is_empty() {
        true => Ok(()),
        false => Err(TrainError::ResumeMismatch { path, differences }),
    }
}

fn compare(path: &str, old: &Value, new: &Value, differences: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let gone = old.keys().filter(|key| !new.contains_key(*key));
            for key in new.keys().chain(gone) {
                let at = match path.is_empty() {
                    true => key.clone(),
                    false => format!("{path}.{key}"),
                };
                let [old, new] = [old, new].map(|map| map.get(key).unwrap_or(&Value::Null));
                compare(&at, old, new, differences);
            }
        }
        _ if old != new => differences.push(format!("{path}: {old}, now {new}")),
        _ => {}
    }
}
