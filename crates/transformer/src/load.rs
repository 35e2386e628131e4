//! How a folder is loaded, and what was loaded.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{DType, Device};

use crate::convert::file_dtype;
use crate::error::LoadError;
use crate::resize::NewRows;

/// How weights are put on a device.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// f32, f16 or bf16. Activations have the dtype of the weights.
    pub dtype: DType,
    /// Where the weights go. With autodiff on it, they go there untracked.
    pub device: Device,
    /// The tokens that the model must know, from the tokenizer. More than the embedding has are an error unless
    /// [`Self::new_rows`] says what to do.
    pub tokens: Option<usize>,
    /// What the rows of tokens beyond the embedding hold.
    pub new_rows: Option<NewRows>,
    /// Takes numbers that are NaN or infinite as they are.
    pub allow_not_finite: bool,
    /// Told of every tensor that was read.
    pub progress: Option<ProgressCallback>,
}

impl LoadOptions {
    /// Weights of this dtype on this device, for as many tokens as the folder has.
    pub fn new(dtype: DType, device: Device) -> Self {
        Self {
            dtype,
            device,
            tokens: None,
            new_rows: None,
            allow_not_finite: false,
            progress: None,
        }
    }

    /// Requires a row of the embedding for each of so many tokens.
    pub fn with_tokens(mut self, tokens: usize) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Gives the embedding, and a head of its own, rows for the tokens that they lack.
    pub fn with_new_rows(mut self, new_rows: NewRows) -> Self {
        self.new_rows = Some(new_rows);
        self
    }

    /// Takes numbers that are NaN or infinite as they are.
    pub fn with_not_finite(mut self) -> Self {
        self.allow_not_finite = true;
        self
    }

    /// Calls back after every tensor, from the thread that loads.
    pub fn with_progress(
        mut self,
        progress: impl Fn(&LoadProgress) + Send + Sync + 'static,
    ) -> Self {
        self.progress = Some(ProgressCallback(Arc::new(progress)));
        self
    }

    /// Whether weights of this dtype can be on this device.
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        let refuse = |reason: &str| {
            Err(LoadError::DType {
                dtype: self.dtype,
                reason: reason.into(),
            })
        };
        if file_dtype(self.dtype).is_none() {
            return refuse("choose F32, F16 or BF16");
        }
        if !self.device.supports_dtype(self.dtype) {
            return refuse("the device does not compute in it");
        }
        Ok(())
    }

    /// How many tokens the embedding is to have, where that is not what the folder says.
    pub(crate) fn larger_vocabulary(
        &self,
        dir: &Path,
        embedding: usize,
    ) -> Result<Option<usize>, LoadError> {
        match (self.tokens, self.new_rows) {
            (Some(tokens), None) if tokens > embedding => Err(LoadError::Vocabulary {
                dir: dir.into(),
                tokens,
                embedding,
            }),
            (Some(tokens), Some(_)) if tokens > embedding => Ok(Some(tokens)),
            _ => Ok(None),
        }
    }
}

/// How far a load is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadProgress {
    /// Tensors read.
    pub tensors: usize,
    /// Tensors to read.
    pub total_tensors: usize,
    /// Bytes of the files read.
    pub bytes: u64,
    /// Bytes of the files to read.
    pub total_bytes: u64,
}

/// What is told of the progress of a load.
#[derive(Clone)]
pub struct ProgressCallback(pub(crate) Arc<dyn Fn(&LoadProgress) + Send + Sync>);

impl fmt::Debug for ProgressCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProgressCallback")
    }
}

/// What a load did beside making the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Tensors read.
    pub tensors: usize,
    /// Their bytes in the files.
    pub bytes: u64,
    /// The rows that the embedding gained, by [`LoadOptions::new_rows`].
    pub new_rows: usize,
}
