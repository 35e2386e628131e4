use burn::tensor::Tensor;

use crate::AttentionMask;
#[cfg(feature = "cube")]
use crate::cube;
#[cfg(feature = "host")]
use crate::host;
use crate::portable;

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
    #[cfg(any(feature = "host", feature = "cube"))]
    if let Some(visible) = mask.rule() {
        #[cfg(feature = "host")]
        if host::takes(&q) {
            return host::attention(q, k, v, visible, scores);
        }
        #[cfg(feature = "cuda")]
        if cube::attention::takes([&q, &k, &v], visible.as_deref(), scores) {
            return cube::attention::attention(q, k, v, visible, scores);
        }
        #[cfg(feature = "vulkan")]
        if cube::tiled_attention::takes([&q, &k, &v]) {
            return cube::tiled_attention::attention(q, k, v, visible, scores);
        }
        #[cfg(feature = "cube")]
        if [&q, &k, &v].into_iter().all(cube::takes) {
            return cube::batched_attention(q, k, v, visible, scores);
        }
    }
    portable::attention_with(q, k, v, mask, scores)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_values, device};
    use burn::tensor::{DType, Device, Distribution, Tolerance};

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
