//! The adapter folders of Hugging Face PEFT: `adapter_config.json` and `adapter_model.safetensors`.

mod config;
mod describe;
mod keys;
mod load;
mod save;

pub use config::{PeftConfig, TargetModules};
pub use load::{load, read_config};
pub use save::{PeftMetadata, save};

/// Name of the configuration file.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// Name of the weights file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
