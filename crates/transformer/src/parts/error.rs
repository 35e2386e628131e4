use std::path::PathBuf;

use burn_lora_adapter::AdapterError;

use crate::adapter_folder::from_trouble;
use crate::bottleneck::BottleneckError;
use crate::error::bullets;
use crate::virtual_tokens::VirtualTokensError;

/// An adapter, on weights or beside them, that cannot be attached, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PartError {
    /// One of weights.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// Virtual tokens.
    #[error(transparent)]
    VirtualTokens(#[from] VirtualTokensError),
    /// Bottlenecks.
    #[error(transparent)]
    Bottleneck(#[from] BottleneckError),
    /// A file could not be read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder that holds no adapter, or more than a model takes.
    #[error("{} is no adapter:{}", .path.display(), bullets(.faults))]
    Folder {
        /// The folder or file that is to blame.
        path: PathBuf,
        /// Every fault.
        faults: Vec<String>,
    },
}

from_trouble!(PartError);

impl PartError {
    /// Whether the settings are to blame and no file.
    pub fn is_of_settings(&self) -> bool {
        matches!(
            self,
            Self::VirtualTokens(VirtualTokensError::Config { .. })
                | Self::Bottleneck(BottleneckError::Config { .. })
        )
    }
}
