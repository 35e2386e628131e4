//! The adapter folders of Hugging Face PEFT: `adapter_config.json` and `adapter_model.safetensors` (or, from
//! older versions, `adapter_model.bin`).

mod card;
mod config;
mod contents;
mod describe;
mod fields;
mod folder;
mod groups;
mod inspect;
mod keys;
mod load;
mod options;
mod save;
pub(crate) mod tensors;
mod write;

pub use crate::outline::weights_bytes;
pub use card::card_of;
pub use config::{PeftConfig, TargetModules};
pub(crate) use folder::{Tensors, write_folder};
pub(crate) use groups::grouped_shapes;
pub use inspect::{AdapterLayer, AdapterReport, inspect};
pub(crate) use keys::{SHARED, layer_key, saved_key};
pub use load::{hot_swap, load, read_config};
pub use options::with_options;
pub use save::{PeftMetadata, save};

/// Name of the configuration file.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// Name of the weights file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Name of the weights file that PEFT wrote before it wrote safetensors; it is read where the other is absent.
pub const OLD_WEIGHTS_FILE: &str = "adapter_model.bin";
/// Name of the model card.
pub const CARD_FILE: &str = "README.md";
