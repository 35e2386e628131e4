//! Methods that stand beside the weights, handled as one: attached, counted, saved and loaded, whichever it is.

mod error;
mod folder;
mod inspect;
mod outline;

use std::path::Path;

use burn_lora_adapter::{AdapterError, DEFAULT_NAME, adapters, peft, set_enabled};
use serde_json::{Map, Value};

use crate::bottleneck::{BottleneckConfig, WithBottlenecks};
use crate::task::PeftTask;
use crate::virtual_tokens::{VirtualTokensConfig, WithVirtualTokens};

pub use error::PartError;
pub use folder::{AdapterFolder, AdapterKind, adapter_folders};
pub use inspect::{PartReport, PartTensor, inspect_part};
pub use outline::PartOutline;

/// A method beside the weights, with its settings.
#[derive(Debug, Clone, PartialEq)]
pub enum PartConfig {
    /// Prompt tuning, P-tuning or prefix tuning.
    VirtualTokens(VirtualTokensConfig),
    /// Bottleneck adapters.
    Bottleneck(BottleneckConfig),
}

/// What is attached beside the weights of a model, and adapters of any kind from their folders.
///
/// A model has virtual tokens of one method, bottlenecks of one kind, and adapters of its weights, all at once.
pub trait WithParts: WithVirtualTokens + WithBottlenecks {
    /// Attaches a method beside the weights; see [`WithVirtualTokens::with_virtual_tokens`] and
    /// [`WithBottlenecks::with_bottlenecks`].
    ///
    /// [`attach`](burn_lora_adapter::attach) freezes all that was there before, so adapters of the weights come first.
    ///
    /// # Errors
    ///
    /// Every fault of the configuration.
    fn with_part(self, part: &PartConfig, seed: u64) -> Result<Self, PartError> {
        Ok(match part {
            PartConfig::VirtualTokens(config) => self.with_virtual_tokens(config, seed)?,
            PartConfig::Bottleneck(config) => self.with_bottlenecks(config, seed)?,
        })
    }

    /// What [`Self::with_part`] would attach, counted; the model's values are not looked at.
    ///
    /// # Errors
    ///
    /// Those of [`Self::with_part`].
    fn outline_part(&self, part: &PartConfig) -> Result<PartOutline, PartError> {
        outline::outline(self, part)
    }

    /// The width of a virtual token: of its embedding, or of its key in one layer. PEFT's `token_dim`.
    fn token_width(&self, is_prefix: bool) -> usize {
        let sizes = self.sizes();
        match is_prefix {
            true => sizes.kv(),
            false => sizes.d_embedding,
        }
    }

    /// Writes what [`Self::with_part`] attached, trained by now, as a folder of PEFT's form, and returns the size of the weights in bytes.
    /// `fields` go into its configuration: `base_model_name_or_path`, `task_type`, and `modules_to_save`, whose parameters are saved,
    /// too; without these names, those of the head of a model that classifies.
    ///
    /// # Errors
    ///
    /// Nothing is attached, bottlenecks are others than these, a number is not finite, and those of the system.
    fn save_part(
        &self,
        part: &PartConfig,
        dir: &Path,
        fields: &Map<String, Value>,
    ) -> Result<u64, PartError> {
        Ok(match part {
            PartConfig::VirtualTokens(_) => self.save_virtual_tokens(dir, None, fields)?,
            PartConfig::Bottleneck(config) => self.save_bottlenecks_with(dir, config, fields)?,
        })
    }

    /// Loads all adapters of a [folder](adapter_folders), those of weights under [`DEFAULT_NAME`].
    ///
    /// # Errors
    ///
    /// Everything for which one of them does not fit the model.
    fn load_adapters(self, dir: &Path) -> Result<Self, PartError> {
        let mut folders = adapter_folders(dir)?;
        // What is attached to weights freezes the rest.
        folders.sort_by_key(|folder| folder.kind != AdapterKind::Weights);
        folders.iter().try_fold(self, |model, folder| {
            Ok(match folder.kind {
                AdapterKind::Weights => peft::load(model, DEFAULT_NAME, &folder.path)?.0,
                AdapterKind::VirtualTokens => model.load_virtual_tokens(&folder.path)?.0,
                AdapterKind::Bottleneck => model.load_bottlenecks(&folder.path)?.0,
            })
        })
    }

    /// Whether anything is attached, on weights or beside them.
    fn has_adapters(&self) -> bool {
        !adapters(self).is_empty()
            || self.virtual_tokens().is_some()
            || self.bottlenecks().is_some()
    }

    /// The model as it was before anything was attached: whatever is on its weights or beside them is off.
    ///
    /// # Errors
    ///
    /// Adapters that are merged.
    fn without_adapters(self) -> Result<Self, AdapterError> {
        let bare = match adapters(&self).is_empty() {
            true => self,
            false => set_enabled(self, false)?,
        };
        Ok(bare
            .with_virtual_tokens_enabled(false)
            .with_bottlenecks_enabled(false))
    }
}

impl<M: WithVirtualTokens + WithBottlenecks> WithParts for M {}

/// The fields of a configuration that say what an adapter is for.
pub(crate) fn task_of<M: PeftTask>(model: &M, fields: &Map<String, Value>) -> Value {
    let stated = fields.get("task_type").cloned();
    stated.unwrap_or_else(|| model.task_type().into())
}
