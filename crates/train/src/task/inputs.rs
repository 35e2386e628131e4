use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_lora_transformer::EncoderBatch;

use super::Counts;
use super::causal::{too_long, unknown_token};

/// Rows of tokens, padded behind to the longest.
///
/// # Shapes
/// - output: `[rows, seq]`
pub(crate) fn padded(rows: &[&[u32]], pad: u32, device: &Device) -> Tensor<2, Int> {
    let seq = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let mut ids = Vec::with_capacity(rows.len() * seq);
    for (at, row) in rows.iter().enumerate() {
        ids.extend_from_slice(row);
        ids.resize((at + 1) * seq, pad);
    }
    Tensor::from_data(TensorData::new(ids, [rows.len(), seq]), device)
}

/// A batch for an encoder; without `segments` all tokens are of the first.
pub(crate) fn encoder_batch(
    rows: &[&[u32]],
    segments: Option<&[&[u32]]>,
    device: &Device,
) -> EncoderBatch {
    let lengths: Vec<usize> = rows.iter().map(|row| row.len()).collect();
    let batch = EncoderBatch::new(padded(rows, 0, device), lengths);
    match segments {
        Some(segments) if segments.iter().any(|row| row.iter().any(|id| *id > 0)) => {
            batch.with_segments(padded(segments, 0, device))
        }
        _ => batch,
    }
}

/// The hidden states at flat places, `[places, d]`.
pub(crate) fn states_at(hidden: Tensor<3>, places: &[u32]) -> Tensor<2> {
    let device = hidden.device().without_autodiff();
    let places = TensorData::new(places.to_vec(), [places.len()]);
    let places = Tensor::<1, Int>::from_data(places, &device);
    hidden.flatten::<2>(0, 1).select(0, places)
}

/// The sum of the cross-entropies of classes.
///
/// # Shapes
/// - logits: `[n, classes]`
/// - output: `[1]`, f32
pub(crate) fn class_losses(logits: Tensor<2>, classes: &[usize]) -> Tensor<1> {
    let device = logits.device().without_autodiff();
    let ids: Vec<u32> = classes.iter().map(|class| *class as u32).collect();
    let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [classes.len()]), &device);
    let weights = Tensor::ones([classes.len()], &device);
    burn_lora_kernels::cross_entropy(logits, ids, weights)
}

/// What a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelLimits {
    /// The longest sequence, in tokens.
    pub positions: usize,
    /// Tokens that it knows.
    pub vocab_size: usize,
    /// Kinds of segments that it tells apart; 0 where it knows none.
    pub segments: usize,
}

impl ModelLimits {
    /// What is wrong with rows of tokens.
    pub(crate) fn faults<'a>(self, rows: impl Iterator<Item = &'a [u32]> + Clone) -> Vec<String> {
        let longest = rows.clone().map(<[u32]>::len).max().unwrap_or(0);
        let empty = rows.clone().filter(|row| row.is_empty()).count();
        let mut faults: Vec<String> = too_long(longest, self.positions).into_iter().collect();
        faults.extend(unknown_token(rows.flatten(), self.vocab_size));
        if empty > 0 {
            faults.push(format!("{empty} examples have no token"));
        }
        faults
    }
}

/// Names the first few of the examples that have a fault.
pub(crate) fn culprits(what: &str, numbers: &[usize]) -> Option<String> {
    let shown: Vec<String> = numbers.iter().take(10).map(usize::to_string).collect();
    let more = if numbers.len() > 10 { ", ..." } else { "" };
    let shown = shown.join(", ");
    (!numbers.is_empty()).then(|| format!("{} examples {what}: {shown}{more}", numbers.len()))
}

/// Counts of a batch of rows.
pub(crate) fn row_counts(learned: usize, inputs: &EncoderBatch) -> Counts {
    Counts {
        learned,
        tokens: inputs.lengths.iter().sum(),
    }
}
