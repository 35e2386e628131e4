//! Models and adapters, in folders of this machine or on the hub.

use std::path::{Path, PathBuf};

use burn_lora_hub::{Hub, HubSettings, Wanted, is_model_id};

use crate::failure::{Failure, Kind};
use crate::progress::Bar;

/// The folder that a user means by `text`: one of this machine, or one on the hub, which is fetched.
///
/// # Errors
///
/// A text that is neither; and whatever fetching can fail with.
pub fn folder(text: &str, revision: Option<&str>, wanted: Wanted) -> Result<PathBuf, Failure> {
    let path = Path::new(text);
    if path.is_dir() {
        if let Some(revision) = revision {
            let reason =
                format!("{text} is a folder of this machine, which has no revision `{revision}`");
            return Err(Failure::new(Kind::Usage, reason));
        }
        return Ok(path.into());
    }
    if path.exists() {
        let reason = format!("{text} is a file; name the folder that holds the model");
        return Err(Failure::new(Kind::Usage, reason));
    }
    if !is_model_id(text) {
        let reason = format!(
            "{text} is no folder here, and no name of a model on the hub (organization/name)"
        );
        return Err(Failure::new(Kind::Model, reason));
    }
    let hub = Hub::new(HubSettings::from_env()?);
    let bar = Bar::bytes("fetching");
    let mut progress = |progress: burn_lora_hub::FetchProgress<'_>| {
        bar.set(progress.bytes, progress.total_bytes);
    };
    let fetched = hub.fetch(text, revision, wanted, &mut progress);
    fetched.map(|fetched| fetched.folder).map_err(Failure::from)
}
