use burn::tensor::module::linear;
use burn::tensor::{DType, Tensor};

use crate::projection::LowRank;

/// See [`crate::projection()`].
pub fn projection<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    low_rank: Option<LowRank>,
) -> Tensor<D> {
    let y = linear(x.clone(), weight, bias);
    match low_rank {
        Some(low_rank) => add_low_rank(y, x, low_rank),
        None => y,
    }
}

/// See [`crate::add_low_rank`].
pub fn add_low_rank<const D: usize>(y: Tensor<D>, x: Tensor<D>, low_rank: LowRank) -> Tensor<D> {
    let dtype = y.dtype();
    let LowRank { a, b, scale } = low_rank;
    // The scale is applied between the products, where a row has `rank` numbers and not `d_out`.
    let low = linear(cast(x, a.dtype()), a, None).mul_scalar(scale); // [..., rank]
    y + cast(linear(low, b, None), dtype)
}

/// Casts where the dtype differs: Burn does not promote, and a cast to the same dtype would still be an operation.
fn cast<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    if x.dtype() == dtype { x } else { x.cast(dtype) }
}
