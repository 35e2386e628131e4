//! The options that name a decoder with its adapter, and loading them.

use std::path::PathBuf;

use burn_lora::transformer::{Decoder, LoadOptions, WithParts};
use burn_lora_hub::Wanted;
use clap::Args;

use crate::compute::Compute;
use crate::failure::Failure;
use crate::source;

/// A decoder, perhaps with an adapter.
#[derive(Debug, Args)]
pub struct ModelOptions {
    /// Hugging Face folder of a decoder, or its name on the hub (organization/name)
    #[arg(long, value_name = "DIR|NAME")]
    pub model: String,

    /// Branch, tag or commit of a model on the hub
    #[arg(long, value_name = "NAME")]
    pub revision: Option<String>,

    /// PEFT folder of an adapter, or its name on the hub
    #[arg(long, value_name = "DIR|NAME")]
    pub adapter: Option<String>,

    #[command(flatten)]
    pub compute: Compute,
}

/// What was loaded.
pub struct Loaded {
    /// The folder of the model.
    pub folder: PathBuf,
    /// The decoder, with its adapter attached.
    pub model: Decoder,
    /// The name of the device.
    pub device: String,
}

impl ModelOptions {
    /// The folder of the adapter.
    ///
    /// # Errors
    ///
    /// A name that is no folder, here or on the hub.
    pub fn adapter_folder(&self) -> Result<Option<PathBuf>, Failure> {
        let adapter = self.adapter.as_deref();
        adapter
            .map(|name| source::folder(name, None, Wanted::Adapter))
            .transpose()
    }

    /// Loads the decoder, and attaches the adapter.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the folders or the device.
    pub fn load(&self) -> Result<Loaded, Failure> {
        let folder = source::folder(&self.model, self.revision.as_deref(), Wanted::Model)?;
        let adapter = self.adapter_folder()?;
        let (choice, device) = self.compute.open()?;
        let mut model = Decoder::load(
            &folder,
            &LoadOptions::new(self.compute.dtype.into(), device),
        )?;
        if let Some(adapter) = adapter {
            model = model.load_adapters(&adapter)?;
        }
        Ok(Loaded {
            folder,
            model,
            device: choice.to_string(),
        })
    }
}
