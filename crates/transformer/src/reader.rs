//! Reads the parameters of a model from its checkpoint, one at a time.

use std::collections::HashMap;

use burn::tensor::{DType, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use safetensors::Dtype;

use crate::checkpoint::{Checkpoint, Entry};
use crate::convert::{self, file_dtype};
use crate::error::LoadError;
use crate::fault::NotFinite;
use crate::finite::{position, scan};
use crate::load::{LoadOptions, LoadProgress, LoadReport};
use crate::resize::{Filling, NewRows, grow};
use crate::weights::Key;

/// What became of one parameter.
pub(crate) enum Outcome {
    Read(TensorData),
    /// The checkpoint does not hold it.
    Absent,
    /// It could not be read, or another before it.
    Failed,
}

/// The checkpoint of a model that is being built.
///
/// A constructor cannot fail halfway, so that what goes wrong is kept until [`Self::finish`]. From then on nothing more
/// is made, but all tensors are still examined.
pub(crate) struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    /// The tensors under the paths of their parameters.
    found: HashMap<String, &'a Entry>,
    dtype: DType,
    new_rows: Option<NewRows>,
    /// The standard deviation of new rows.
    std: f64,
    rng: ChaCha8Rng,
    options: &'a LoadOptions,
    progress: LoadProgress,
    rows_added: usize,
    not_finite: Vec<NotFinite>,
    failure: Option<LoadError>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        checkpoint: &'a Checkpoint,
        found: HashMap<String, &'a Entry>,
        options: &'a LoadOptions,
        std: f64,
    ) -> Self {
        let seed = match options.new_rows {
            Some(NewRows::Normal { seed }) => seed,
            _ => 0,
        };
        let progress = LoadProgress {
            total_tensors: found.len(),
            total_bytes: found.values().map(|entry| entry.bytes()).sum(),
            ..LoadProgress::default()
        };
        Self {
            checkpoint,
            found,
            dtype: options.dtype,
            new_rows: options.new_rows,
            std,
            rng: ChaCha8Rng::seed_from_u64(seed),
            options,
            progress,
            rows_added: 0,
            not_finite: Vec::new(),
            failure: None,
        }
    }

    pub(crate) fn read(&mut self, key: &Key) -> Outcome {
        let Some(entry) = self.found.get(&key.path).copied() else {
            return Outcome::Absent;
        };
        if self.failure.is_some() {
            return Outcome::Failed;
        }
        let mut bytes = match self.checkpoint.read(entry) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.failure = Some(error);
                return Outcome::Failed;
            }
        };
        self.progress.tensors += 1;
        self.progress.bytes += entry.bytes();
        if let Some(callback) = &self.options.progress {
            (callback.0)(&self.progress);
        }
        if !self.options.allow_not_finite {
            self.examine(key, entry, &bytes);
        }
        if !self.not_finite.is_empty() {
            return Outcome::Failed;
        }
        // The checkpoint fits its own configuration, so what is missing are the rows of new tokens.
        if let (Some(wanted), Some(rows)) = (key.file_shape().first(), entry.shape.first())
            && wanted > rows
        {
            self.grow(entry, &mut bytes, *rows, wanted - rows);
        }
        let (shape, to) = (&key.shape, self.dtype);
        Outcome::Read(convert::read(bytes, entry.dtype, shape, key.transposed, to))
    }

    fn examine(&mut self, key: &Key, entry: &Entry, bytes: &[u8]) {
        let to = file_dtype(self.dtype).unwrap_or(Dtype::F32);
        let Some(found) = scan(bytes, entry.dtype, to) else {
            return;
        };
        self.not_finite.push(NotFinite {
            file: self.checkpoint.file_name(entry),
            tensor: key.path.clone(),
            position: position(found.first, &entry.shape),
            value: found.value,
            overflows: found.value.is_finite().then_some(self.dtype),
            count: found.count,
        });
    }

    fn grow(&mut self, entry: &Entry, bytes: &mut Vec<u8>, rows: usize, new_rows: usize) {
        let filling = match self.new_rows {
            Some(NewRows::Normal { .. }) => Filling::Normal {
                std: self.std,
                rng: &mut self.rng,
            },
            _ => Filling::Mean,
        };
        grow(bytes, entry.dtype, rows, new_rows, filling);
        self.rows_added = self.rows_added.max(new_rows);
    }

    /// What was read, or what went wrong.
    pub(crate) fn finish(self) -> Result<LoadReport, LoadError> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        if !self.not_finite.is_empty() {
            return Err(LoadError::NotFinite {
                tensors: self.not_finite,
            });
        }
        Ok(LoadReport {
            tensors: self.progress.tensors,
            bytes: self.progress.bytes,
            new_rows: self.rows_added,
        })
    }
}
