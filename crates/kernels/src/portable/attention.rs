use burn::tensor::Tensor;

use crate::precision::accumulator;
use crate::{AttentionMask, Scores};

/// See [`crate::attention()`].
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, mask: &AttentionMask) -> Tensor<4> {
    let scores = Scores::of_width(q.dims()[3]);
    attention_with(q, k, v, mask, scores)
}

/// See [`crate::attention_with`].
pub fn attention_with(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: &AttentionMask,
    Scores { scale, softcap }: Scores,
) -> Tensor<4> {
    let [batch, heads, queries, d] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let groups = heads / kv_heads;
    let folded = [batch, kv_heads, groups * queries, d];
    let dtype = q.dtype();
    let wide = accumulator(dtype);

    let q = (q * scale).reshape(folded);
    let scores = q.matmul(k.swap_dims(2, 3)).cast(wide); // [batch, kv_heads, groups * queries, keys]
    let scores = match softcap {
        Some(cap) => (scores / cap).tanh() * cap,
        None => scores,
    };
    let scores = match mask.bias() {
        Some(bias) => {
            let bias: Tensor<5> = bias.cast(wide).unsqueeze_dim(1);
            let scores = scores.reshape([batch, kv_heads, groups, queries, keys]) + bias;
            scores.reshape([batch, kv_heads, groups * queries, keys])
        }
        None => scores,
    };

    let max = scores.clone().detach().max_dim(3);
    let exp = (scores - max).exp();
    let inverse = exp.clone().sum_dim(3).recip();
    let y = if dtype == wide {
        // Normalizing after the product touches d columns instead of `keys`.
        exp.matmul(v) * inverse
    } else {
        // A sum over many keys may exceed the range of f16, so normalize before it.
        (exp * inverse).cast(dtype).matmul(v)
    };
    y.reshape([batch, heads, queries, d])
}
