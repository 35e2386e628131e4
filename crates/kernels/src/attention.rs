use std::ops::Range;
use std::sync::{Arc, OnceLock};

use burn::tensor::{DType, Device, Tensor, TensorData};

#[cfg(feature = "cube")]
use crate::cube;
#[cfg(feature = "host")]
use crate::host;
use crate::portable;

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
}

/// What is made of the products of queries and keys before the softmax.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// The factor of the products.
    pub scale: f64,
    /// Bounds the scores: `c tanh(score / c)` (Gemma 2, arXiv:2408.00118).
    pub softcap: Option<f64>,
}

impl Scores {
    /// The scale `1 / sqrt(d)`, and no bound.
    pub fn of_width(d: usize) -> Self {
        Self {
            scale: (d as f64).powf(-0.5),
            softcap: None,
        }
    }
}

/// Scaled dot-product attention with grouped queries (arXiv:1706.03762, arXiv:2305.13245).
///
/// `y = softmax(q k^T / sqrt(d) + mask) v`, the softmax in `f32`.
///
/// Query head `h` reads key and value head `h / (heads / kv_heads)`. The queries that share a key head are folded into
/// its rows, so that keys and values are never repeated.
///
/// # Shapes
///
/// - q: `[batch, heads, queries, d]`
/// - k: `[batch, kv_heads, keys, d]`
/// - v: `[batch, kv_heads, keys, d]`
/// - output: `[batch, heads, queries, d]`
///
/// # Panics
///
/// If `heads` is not a multiple of `kv_heads`.
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, mask: &AttentionMask) -> Tensor<4> {
    let scores = Scores::of_width(q.dims()[3]);
    attention_with(q, k, v, mask, scores)
}

/// [`attention()`] with other scores than the products over `sqrt(d)`.
///
/// # Shapes
///
/// As [`attention()`].
///
/// # Panics
///
/// As [`attention()`].
pub fn attention_with(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: &AttentionMask,
    scores: Scores,
) -> Tensor<4> {
    let [heads, kv_heads] = [q.dims()[1], k.dims()[1]];
    assert!(
        heads.is_multiple_of(kv_heads),
        "{heads} query heads do not share {kv_heads} key heads evenly"
    );
    #[cfg(feature = "host")]
    if host::takes(&q) {
        match &mask.form {
            Form::All => return host::attention(q, k, v, None, scores),
            Form::Visible(visible) => {
                return host::attention(q, k, v, Some(visible.clone()), scores);
            }
            Form::Bias(_) => {}
        }
    }
    #[cfg(feature = "cube")]
    {
        let visible = match &mask.form {
            Form::All => Some(None),
            Form::Visible(visible) => Some(Some(visible.clone())),
            Form::Bias(_) => None,
        };
        if let Some(visible) = visible {
            #[cfg(feature = "cuda")]
            if cube::attention::takes([&q, &k, &v], visible.as_deref(), scores) {
                return cube::attention::attention(q, k, v, visible, scores);
            }
            #[cfg(feature = "vulkan")]
            if cube::tiled_attention::takes([&q, &k, &v]) {
                return cube::tiled_attention::attention(q, k, v, visible, scores);
            }
            if [&q, &k, &v].into_iter().all(cube::takes) {
                return cube::batched_attention(q, k, v, visible, scores);
            }
        }
    }
    portable::attention_with(q, k, v, mask, scores)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_values, device};
    use burn::tensor::{Distribution, Tolerance};

    fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
    }

    /// Row by row and head by head, in plain Rust.
    fn reference(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>, left: &[usize]) -> Vec<f32> {
        let [b, h, s, d] = q.dims();
        let [_, hkv, t, _] = k.dims();
        let read = |x: &Tensor<4>| x.to_data().try_to_vec::<f32>().expect("f32");
        let (q, k, v) = (read(q), read(k), read(v));
        let mut out = Vec::new();
        for (row, &left) in left.iter().enumerate().take(b) {
            for head in 0..h {
                let kv = (row * hkv + head / (h / hkv)) * t;
                for i in 0..s {
                    let seen = left..=(t - s + i);
                    let at = ((row * h + head) * s + i) * d;
                    let score = |j: usize| -> f32 {
                        (0..d).map(|c| q[at + c] * k[(kv + j) * d + c]).sum::<f32>()
                            / (d as f32).sqrt()
                    };
                    let weights: Vec<f32> = seen.clone().map(|j| score(j).exp()).collect();
                    let total: f32 = weights.iter().sum();
                    for c in 0..d {
                        let sum: f32 = seen
                            .clone()
                            .zip(&weights)
                            .map(|(j, w)| w * v[(kv + j) * d + c])
                            .sum();
                        out.push(sum / total);
                    }
                }
            }
        }
        out
    }

    #[test]
    fn equal_keys_average_the_visible_values() {
        let device = device();
        let q = Tensor::<4>::ones([1, 1, 2, 1], &device);
        let k = Tensor::<4>::ones([1, 1, 2, 1], &device);
        let v = Tensor::<4>::from_floats([[[[2.0], [4.0]]]], &device);
        let y = attention(q, k, v, &AttentionMask::causal(2, 0, &device));
        assert_values(y, &[2.0, 3.0]);
    }

    #[test]
    fn grouped_causal_attention_equals_the_loop() {
        let device = device();
        let q = random([2, 4, 3, 8], &device);
        let (k, v) = (random([2, 2, 3, 8], &device), random([2, 2, 3, 8], &device));
        let expected = reference(&q, &k, &v, &[0, 0]);
        let y = attention(q, k, v, &AttentionMask::causal(3, 0, &device));
        assert_values(y, &expected);
    }

    #[test]
    fn queries_behind_a_cache_see_all_of_it() {
        let device = device();
        let q = random([1, 2, 2, 4], &device);
        let (k, v) = (random([1, 1, 5, 4], &device), random([1, 1, 5, 4], &device));
        let expected = reference(&q, &k, &v, &[0]);
        let y = attention(q, k, v, &AttentionMask::causal(2, 3, &device));
        assert_values(y, &expected);
    }

    #[test]
    fn left_padding_is_never_seen() {
        let device = device();
        let q = random([2, 2, 1, 4], &device);
        let (k, v) = (random([2, 2, 5, 4], &device), random([2, 2, 5, 4], &device));
        let expected = reference(&q, &k, &v, &[0, 3]);
        let mask = AttentionMask::causal_left_padded(1, 4, &[0, 3], &device);
        assert_values(attention(q, k, v, &mask), &expected);
    }

    #[test]
    fn a_window_hides_what_lies_before_it() {
        let device = device();
        let q = random([1, 2, 5, 4], &device);
        let (k, v) = (random([1, 1, 5, 4], &device), random([1, 1, 5, 4], &device));
        let whole = attention_with(
            q.clone(),
            k.clone(),
            v.clone(),
            &AttentionMask::sliding(5, 0, &[0], 2, &device),
            Scores::of_width(4),
        );
        for at in 0..5usize {
            let from = (at + 1).saturating_sub(2);
            let keys = |x: &Tensor<4>| x.clone().narrow(2, from, at + 1 - from);
            let alone = attention(
                q.clone().narrow(2, at, 1),
                keys(&k),
                keys(&v),
                &AttentionMask::none(),
            );
            let expected = alone.into_data().try_to_vec::<f32>().expect("f32");
            assert_values(whole.clone().narrow(2, at, 1), &expected);
        }
        // One query behind a cache sees the same as the last of many.
        let mask = AttentionMask::sliding(1, 4, &[0], 2, &device);
        let last = attention(q.narrow(2, 4, 1), k, v, &mask);
        let expected = whole.narrow(2, 4, 1).into_data();
        assert_values(last, &expected.try_to_vec::<f32>().expect("f32"));
    }

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

    #[test]
    fn documents_of_a_row_do_not_see_each_other() {
        let device = device();
        let documents = [vec![3, 1, 4], vec![2, 5]];
        let (q, k, v) = (
            random([2, 4, 9, 8], &device),
            random([2, 2, 9, 8], &device),
            random([2, 2, 9, 8], &device),
        );
        for window in [None, Some(2)] {
            let mask = AttentionMask::causal_documents(9, &documents, window, &device);
            let scores = Scores::of_width(8);
            for packed in [
                attention(q.clone(), k.clone(), v.clone(), &mask),
                portable::attention_with(q.clone(), k.clone(), v.clone(), &mask, scores),
            ] {
                for (row, lengths) in documents.iter().enumerate() {
                    let mut start = 0;
                    for length in lengths {
                        let part = |x: &Tensor<4>| {
                            let rows = x.clone().narrow(0, row, 1);
                            rows.narrow(2, start, *length)
                        };
                        let alone = match window {
                            Some(window) => {
                                AttentionMask::sliding(*length, 0, &[], window, &device)
                            }
                            None => AttentionMask::causal(*length, 0, &device),
                        };
                        let expected = attention(part(&q), part(&k), part(&v), &alone);
                        let expected = expected.into_data().try_to_vec::<f32>().expect("f32");
                        assert_values(part(&packed), &expected);
                        start += length;
                    }
                }
            }
        }
    }

    #[test]
    fn a_query_that_sees_nothing_stays_finite() {
        let device = device();
        let q = random([1, 1, 2, 4], &device);
        let (k, v) = (random([1, 1, 2, 4], &device), random([1, 1, 2, 4], &device));
        let mask = AttentionMask::causal_left_padded(2, 0, &[2], &device);
        let y = attention(q, k, v, &mask);
        assert!(!y.contains_nan().into_scalar::<bool>());
    }

    #[test]
    fn gradients_equal_those_of_the_repeated_form() {
        let device = device();
        let q = random([2, 4, 3, 8], &device).require_grad();
        let k = random([2, 2, 3, 8], &device).require_grad();
        let v = random([2, 2, 3, 8], &device).require_grad();
        let weight = random([2, 4, 3, 8], &device);

        let y = attention(
            q.clone(),
            k.clone(),
            v.clone(),
            &AttentionMask::causal(3, 0, &device),
        );
        let folded = (y * weight.clone()).sum().backward();

        let repeat = |x: Tensor<4>| {
            let x: Tensor<5> = x.reshape([2, 2, 1, 3, 8]);
            x.repeat_dim(2, 2).reshape([2, 4, 3, 8])
        };
        let options = burn::tensor::ops::AttentionModuleOptions {
            scale: None,
            softcap: None,
            is_causal: true,
        };
        let (kr, vr) = (repeat(k.clone()), repeat(v.clone()));
        let y = burn::tensor::module::attention(q.clone(), kr, vr, None, None, options);
        let repeated = (y * weight).sum().backward();

        for (name, x) in [("q", q), ("k", k), ("v", v)] {
            let ours = x.grad(&folded).expect(name).into_data();
            let theirs = x.grad(&repeated).expect(name).into_data();
            ours.assert_approx_eq::<f32>(&theirs, Tolerance::absolute(1e-5));
        }
    }

    #[test]
    fn low_precision_stays_close() {
        let device = device();
        let q = random([1, 2, 4, 8], &device);
        let (k, v) = (random([1, 1, 4, 8], &device), random([1, 1, 4, 8], &device));
        let mask = AttentionMask::causal(4, 0, &device);
        let wide = attention(q.clone(), k.clone(), v.clone(), &mask);
        let half = |x: Tensor<4>| x.cast(DType::BF16);
        let y = attention(half(q), half(k), half(v), &mask);
        assert_eq!(y.dtype(), DType::BF16);
        let y = y.cast(DType::F32).into_data();
        y.assert_approx_eq::<f32>(&wide.into_data(), Tolerance::absolute(5e-2));
    }
}
