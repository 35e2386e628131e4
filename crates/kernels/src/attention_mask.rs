use std::ops::Range;
use std::sync::{Arc, OnceLock};

use burn::tensor::{DType, Device, Tensor, TensorData};

/// Added to a score that must not count. Finite, so that a row in which nothing counts (a padding token that looks at
/// padding only) becomes a plain mean and not a NaN; large enough that `exp` of it is exactly 0 beside any real score.
const BLOCKED: f32 = -1e9;

/// Which keys each query may look at.
///
/// Built once for a batch and shared by all its layers.
#[derive(Debug, Clone)]
pub struct AttentionMask {
    form: Form,
    /// Where the bias of a visible range goes.
    device: Option<Device>,
    /// Made when a device first needs it.
    bias: Arc<OnceLock<Tensor<4>>>,
}

#[derive(Debug, Clone)]
enum Form {
    All,
    Visible(Arc<Visible>),
    Bias(Box<Tensor<4>>),
}

/// For each query, one range of keys.
#[derive(Debug, Clone, Default)]
pub(crate) struct Visible {
    queries: usize,
    keys: usize,
    /// Under a causal mask, the position of the first query.
    causal_from: Option<usize>,
    /// For each row of the batch, the keys at its start that are padding. Empty: none.
    left: Vec<usize>,
    /// For each row of the batch, where its keys end. Empty: all are real.
    lengths: Vec<usize>,
    /// Under a causal mask, how many keys up to its own a query sees.
    window: Option<usize>,
    /// Without a causal mask, how many keys to either side of its own a query sees.
    reach: Option<usize>,
    /// For each query of each row, the first key of its document. Empty: each row is one.
    starts: Vec<usize>,
    /// These, as the kernels of a GPU read them.
    #[cfg(feature = "cube")]
    pub(crate) bounds: OnceLock<crate::cube::Bounds>,
}

impl Visible {
    /// The keys that a query sees; `keys` is how many there are.
    #[inline]
    pub(crate) fn range(&self, row: usize, query: usize, keys: usize) -> Range<usize> {
        let end = self.causal_from.map_or(keys, |from| from + query + 1);
        let end = end
            .min(self.lengths.get(row).copied().unwrap_or(keys))
            .min(keys);
        let left = self.left.get(row).copied().unwrap_or(0);
        let from = match (self.window, self.causal_from) {
            (Some(window), Some(first)) => left.max((first + query + 1).saturating_sub(window)),
            _ => left,
        };
        let (from, end) = match self.reach {
            Some(reach) => (
                from.max(query.saturating_sub(reach)),
                end.min(query + reach + 1),
            ),
            None => (from, end),
        };
        let start = self.starts.get(row * self.queries + query).copied();
        let from = from.max(start.unwrap_or(0));
        from.min(end)..end
    }

    /// What of the keys of one row of the batch is not padding.
    #[cfg(feature = "cube")]
    pub(crate) fn keys_of(&self, row: usize, keys: usize) -> Range<usize> {
        let left = self.left.get(row).copied().unwrap_or(0);
        let end = self.lengths.get(row).copied().unwrap_or(keys);
        left..end
    }

    /// Whether rows of the batch differ in their keys.
    #[cfg(feature = "cube")]
    pub(crate) fn is_padded(&self) -> bool {
        !self.left.is_empty() || !self.lengths.is_empty()
    }

    /// Whether the ranges follow from nothing shorter than themselves.
    #[cfg(feature = "cube")]
    pub(crate) fn is_ranged(&self) -> bool {
        self.reach.is_some() || !self.starts.is_empty()
    }

    #[cfg(feature = "cube")]
    pub(crate) fn causal_from(&self) -> Option<usize> {
        self.causal_from
    }

    #[cfg(feature = "cube")]
    pub(crate) fn window(&self) -> Option<usize> {
        self.causal_from.and(self.window)
    }

    /// `[rows, 1, queries, keys]`, with as many rows as differ.
    fn bias(&self, device: &Device) -> Tensor<4> {
        let packed = self.starts.len() / self.queries.max(1);
        let rows = self.left.len().max(self.lengths.len()).max(packed).max(1);
        let mut bias = vec![BLOCKED; rows * self.queries * self.keys];
        for (at, scores) in bias.chunks_mut(self.keys.max(1)).enumerate() {
            let (row, query) = (at / self.queries, at % self.queries);
            scores[self.range(row, query, self.keys)].fill(0.0);
        }
        let data = TensorData::new(bias, [rows, 1, self.queries, self.keys]);
        Tensor::from_data(data, (device, DType::F32))
    }
}

impl AttentionMask {
    /// Every query sees every key.
    pub fn none() -> Self {
        Self::of(Form::All, None)
    }

    /// Query `i`, at position `start + i`, sees the keys `0..=start + i`.
    ///
    /// `start` is the number of keys that are there before the first query: 0 in training, the filled length of the
    /// cache in generation.
    pub fn causal(queries: usize, start: usize, device: &Device) -> Self {
        if queries == 1 {
            return Self::none();
        }
        let visible = Visible {
            queries,
            keys: start + queries,
            causal_from: Some(start),
            ..Visible::default()
        };
        Self::of(Form::Visible(Arc::new(visible)), Some(device))
    }

    /// The causal mask for rows that are padded on the left: row `r` sees no key before `left[r]`.
    pub fn causal_left_padded(
        queries: usize,
        start: usize,
        left: &[usize],
        device: &Device,
    ) -> Self {
        if left.iter().all(|count| *count == 0) {
            return Self::causal(queries, start, device);
        }
        let visible = Visible {
            queries,
            keys: start + queries,
            causal_from: Some(start),
            left: left.to_vec(),
            ..Visible::default()
        };
        Self::of(Form::Visible(Arc::new(visible)), Some(device))
    }

    /// [`causal_left_padded`](Self::causal_left_padded) within a sliding window: a query sees at most `window` keys, its
    /// own the last of them.
    pub fn sliding(
        queries: usize,
        start: usize,
        left: &[usize],
        window: usize,
        device: &Device,
    ) -> Self {
        if start + queries <= window {
            return Self::causal_left_padded(queries, start, left, device);
        }
        let visible = Visible {
            queries,
            keys: start + queries,
            causal_from: Some(start),
            left: left.to_vec(),
            window: Some(window),
            ..Visible::default()
        };
        Self::of(Form::Visible(Arc::new(visible)), Some(device))
    }

    /// For an encoder whose rows are padded on the right: every query of row `r` sees the keys `0..lengths[r]`.
    ///
    /// There are as many keys as queries.
    pub fn right_padded(queries: usize, lengths: &[usize], device: &Device) -> Self {
        if lengths.iter().all(|length| *length >= queries) {
            return Self::none();
        }
        let visible = Visible {
            queries,
            keys: queries,
            lengths: lengths.to_vec(),
            ..Visible::default()
        };
        Self::of(Form::Visible(Arc::new(visible)), Some(device))
    }

    /// [`right_padded`](Self::right_padded) within a window to both sides: query `i` sees the keys from `i - reach` to
    /// `i + reach`.
    pub fn local(queries: usize, lengths: &[usize], reach: usize, device: &Device) -> Self {
        if reach + 1 >= queries {
            return Self::right_padded(queries, lengths, device);
        }
        let is_padded = lengths.iter().any(|length| *length < queries);
        let visible = Visible {
            queries,
            keys: queries,
            lengths: if is_padded {
                lengths.to_vec()
            } else {
                Vec::new()
            },
            reach: Some(reach),
            ..Visible::default()
        };
        Self::of(Form::Visible(Arc::new(visible)), Some(device))
    }

    /// The causal mask for rows that hold several documents, one after the other: a query sees no key before its own
    /// document, nor more than `window` keys where there is one. `documents` are the lengths of each row's; what is behind
    /// the last is padding.
    pub fn causal_documents(
        queries: usize,
        documents: &[Vec<usize>],
        window: Option<usize>,
        device: &Device,
    ) -> Self {
        let mut starts = Vec::with_capacity(documents.len() * queries);
        for (row, lengths) in documents.iter().enumerate() {
            let mut start = 0;
            for length in lengths {
                starts.resize(starts.len() + length, start);
                start += length;
            }
            starts.resize((row + 1) * queries, start);
        }
        let visible = Visible {
            queries,
            keys: queries,
            causal_from: Some(0),
            window,
            starts,
            ..Visible::default()
        };
        Self::of(Form::Visible(Arc::new(visible)), Some(device))
    }

    /// Any bias of shape `[batch or 1, 1, queries, keys]`, added to the scores.
    pub fn from_bias(bias: Tensor<4>) -> Self {
        Self::of(Form::Bias(Box::new(bias)), None)
    }

    fn of(form: Form, device: Option<&Device>) -> Self {
        Self {
            form,
            device: device.map(|device| device.clone().without_autodiff()),
            bias: Arc::default(),
        }
    }

    /// What to add to the scores. Shape `[batch or 1, 1, queries, keys]`.
    pub(crate) fn bias(&self) -> Option<Tensor<4>> {
        match (&self.form, &self.device) {
            (Form::Bias(bias), _) => Some(Tensor::clone(bias)),
            (Form::Visible(visible), Some(device)) => {
                Some(self.bias.get_or_init(|| visible.bias(device)).clone())
            }
            _ => None,
        }
    }

    /// What each query sees, where that is a rule: nothing of it if it is every key, and none at all where there is a bias.
    #[cfg(any(feature = "host", feature = "cube"))]
    #[expect(clippy::option_option, reason = "a rule, and one that hides nothing")]
    pub(crate) fn rule(&self) -> Option<Option<Arc<Visible>>> {
        match &self.form {
            Form::All => Some(None),
            Form::Visible(visible) => Some(Some(visible.clone())),
            Form::Bias(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::device;

    #[test]
    fn a_window_to_both_sides_ends_at_its_reach_and_at_padding() {
        let mask = AttentionMask::local(4, &[4, 2], 1, &device());
        let Form::Visible(visible) = &mask.form else {
            panic!("a range")
        };
        let seen = |row| -> Vec<_> { (0..4).map(|query| visible.range(row, query, 4)).collect() };
        assert_eq!(seen(0), [0..2, 0..3, 1..4, 2..4]);
        assert_eq!(seen(1), [0..2, 0..2, 1..2, 2..2]);
        // As good as the whole sequence.
        let mask = AttentionMask::local(4, &[4, 4], 3, &device());
        assert!(matches!(mask.form, Form::All));
    }
}
