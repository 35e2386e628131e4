use std::path::PathBuf;

use crate::adapter_folder::from_trouble;
use crate::error::bullets;

/// Virtual tokens that cannot be made, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VirtualTokensError {
    /// What was asked for does not fit the model, or contradicts itself.
    #[error("these virtual tokens are not possible:{}", bullets(.faults))]
    Config {
        /// Every fault.
        faults: Vec<String>,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder of PEFT that does not fit the model. The model has no part of it.
    #[error("{} does not fit:{}", .path.display(), bullets(.faults))]
    Folder {
        /// The file that is to blame.
        path: PathBuf,
        /// Every fault.
        faults: Vec<String>,
    },
}

from_trouble!(VirtualTokensError);
