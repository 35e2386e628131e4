use burn::tensor::{DType, Tensor, activation};

/// `softmax(scores + bias) v`, the softmax in f32: attention whose scores are made elsewhere.
///
/// # Shapes
///
/// - scores: `[batch, heads, queries, keys]`
/// - bias: what the scores' shape broadcasts with
/// - v: `[batch, heads, keys, d]`
/// - output: `[batch, heads, queries, d]`
pub(crate) fn weigh(scores: Tensor<4>, bias: Option<Tensor<4>>, v: Tensor<4>) -> Tensor<4> {
    let dtype = v.dtype();
    let scores = cast(scores, DType::F32);
    let scores = match bias {
        Some(bias) => scores + cast(bias, DType::F32),
        None => scores,
    };
    cast(activation::softmax(scores, 3), dtype).matmul(v)
}

/// A cast that leaves alone what has the dtype already.
pub(crate) fn cast<const D: usize>(tensor: Tensor<D>, dtype: DType) -> Tensor<D> {
    match tensor.dtype() == dtype {
        true => tensor,
        false => tensor.cast(dtype),
    }
}
