//! Fetches the files of a model from the Hugging Face hub.
//!
//! ```no_run
//! use burn_lora_hub::{Hub, HubSettings, Wanted};
//!
//! # fn main() -> Result<(), burn_lora_hub::HubError> {
//! let hub = Hub::new(HubSettings::from_env()?);
//! let fetched = hub.fetch("org/name", None, Wanted::Model, &mut |_| ())?;
//! println!("{}", fetched.folder.display());
//! # Ok(())
//! # }
//! ```
//!
//! The folder is the snapshot of one commit in the cache that Python's `huggingface_hub` uses too: what one fetched, the
//! other finds. Only what a model needs is fetched: configuration, tokenizer, and the weights in one format
//! ([`Wanted`]). Sizes and digests are compared with the hub's list; a connection that was cut goes on where it was.
//!
//! The library prints nothing.

mod cache;
mod download;
mod error;
mod hub;
mod listing;
mod model_id;
mod request;
mod settings;
mod wanted;

pub use error::HubError;
pub use hub::{FetchProgress, Fetched, Hub};
pub use model_id::{MAIN, is_model_id};
pub use settings::HubSettings;
pub use wanted::Wanted;
