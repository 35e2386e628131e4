//! What a run learns.

mod causal;
mod inputs;
mod masked;
mod notes;
mod preference;
mod seq2seq;
mod sequence;
mod tagging;

use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use burn_lora_kernels::LossTerms;

pub use causal::Causal;
pub use inputs::ModelLimits;
pub use masked::{Masked, MaskedBatch};
pub use notes::{Notes, Told};
pub use preference::{Preference, PreferenceBatch, PreferenceLoss};
pub use seq2seq::{Seq2Seq, Seq2SeqBatch};
pub(crate) use sequence::lies_in;
pub use sequence::{Classification, Regression, SequenceBatch, SequenceModel};
pub use tagging::{Tagging, TaggingBatch};

use crate::config::TrainConfig;

/// What the recipe's loop asks of a task: how examples become a batch, what its loss is, and what is measured.
///
/// `M` is the model; the loop itself trains whatever the model shows. A task holds settings only, so that the same seed
/// and step give the same batch, and a resumed run is the uninterrupted one.
pub trait Task<M>: Clone + Debug + Send + Sync + 'static {
    /// An example on the host.
    type Example: Clone + Debug + Send + Sync + 'static;
    /// A batch on its device.
    type Batch: Debug + Send + 'static;

    /// Tokens of an example: batches are of like length.
    fn length(&self, example: &Self::Example) -> usize;

    /// Whether a row of a batch may hold several examples.
    fn packs(&self) -> bool {
        false
    }

    /// What in the examples does not fit the model or the configuration, beyond their length.
    fn faults(&self, model: &M, config: &TrainConfig, examples: &[&Self::Example]) -> Vec<String>;

    /// A batch of rows of examples, one in each unless the task [packs](Self::packs). Whatever is drawn follows from `draw`.
    fn batch(&self, rows: &[Vec<&Self::Example>], draw: u64, device: &Device) -> Self::Batch;

    /// What the loss of a batch is a mean over, and its tokens.
    fn counts(&self, batch: &Self::Batch) -> Counts;

    /// The sum of the losses of what [counts](Counts::learned). Shape `[1]`, f32.
    fn loss_sum(&self, model: &M, batch: &Self::Batch) -> Tensor<1>;

    /// What is minimized in training, the sum of the losses with `terms` added, and that sum alone, without autodiff.
    ///
    /// # Shapes
    /// - both: `[1]`, f32
    fn objective(&self, model: &M, batch: &Self::Batch, terms: LossTerms) -> [Tensor<1>; 2] {
        // Refused for tasks that know none.
        let _ = terms;
        let loss = self.loss_sum(model, batch);
        [loss.clone(), loss.inner()]
    }

    /// Whether the task knows terms that are added to the loss: label smoothing and the z-loss.
    fn has_terms(&self) -> bool {
        false
    }

    /// The model with noise on its embeddings in training (NEFTune), or nothing if it knows none.
    fn with_embedding_noise(&self, model: M, alpha: f64) -> Option<M> {
        let _ = (model, alpha);
        None
    }

    /// The same without gradients, and what the metrics of a validation need.
    fn judge(&self, model: &M, batch: &Self::Batch) -> (Tensor<1>, Option<Notes>) {
        (self.loss_sum(model, batch), None)
    }

    /// Whether `exp` of the mean loss is a perplexity.
    fn is_language(&self) -> bool {
        false
    }

    /// The names of what is measured, in the order of [`measure`](Self::measure).
    fn metrics(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// What was noted of all batches of a validation, in numbers.
    fn measure(&self, told: &[Arc<Told>]) -> Vec<f64> {
        let _ = told;
        Vec::new()
    }

    /// Modules that are trained as a whole beside the adapter, by the ends of their paths: PEFT's `modules_to_save`.
    fn saved_modules(&self) -> &[String] {
        &[]
    }
}

/// What a batch holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// What is learned, which the mean of the loss is over: tokens, rows or pairs.
    pub learned: usize,
    /// Tokens without padding: what throughput counts.
    pub tokens: usize,
}

impl Counts {
    /// Those of several batches.
    pub(crate) fn sum(counts: impl IntoIterator<Item = Self>) -> Self {
        counts.into_iter().fold(Self::default(), |sum, one| Self {
            learned: sum.learned + one.learned,
            tokens: sum.tokens + one.tokens,
        })
    }
}

#[cfg(test)]
mod tests;
