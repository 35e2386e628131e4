use burn::tensor::Tensor;

#[cfg(feature = "cube")]
use crate::cube;
#[cfg(feature = "host")]
use crate::host;
use crate::portable;

/// A low-rank change of a projection (Hu et al., 2021, arXiv:2106.09685).
#[derive(Debug, Clone)]
pub struct LowRank {
    /// Down-projection, shape `[d_in, rank]`.
    pub a: Tensor<2>,
    /// Up-projection, shape `[rank, d_out]`.
    pub b: Tensor<2>,
    /// What the low-rank product is multiplied by.
    pub scale: f64,
}

/// A linear layer with a low-rank change of its weight, which is never composed.
///
/// `y = x W + bias + s (x A) B`
///
/// The factors are in `f32` or in the dtype of W; the result is in the dtype of W. What is not tracked costs nothing in
/// the backward: with W frozen, no gradient of its shape is computed, and no input is kept for it.
///
/// # Shapes
///
/// - x: `[..., d_in]`
/// - weight: `[d_in, d_out]`
/// - bias: `[d_out]`
/// - output: `[..., d_out]`
pub fn projection<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    low_rank: Option<LowRank>,
) -> Tensor<D> {
    #[cfg(feature = "host")]
    if host::takes(&x) && host::takes(&weight) {
        return host::projection(x, weight, bias, low_rank);
    }
    #[cfg(feature = "cube")]
    if cube::takes(&x) && cube::takes(&weight) {
        return cube::projection(x, weight, bias, low_rank);
    }
    portable::projection(x, weight, bias, low_rank)
}

/// One of several projections of the same input.
#[derive(Debug, Clone)]
pub struct Branch {
    /// `[d_in, d_out]`
    pub weight: Tensor<2>,
    /// `[d_out]`
    pub bias: Option<Tensor<1>>,
    /// As in [`projection`].
    pub low_rank: Option<LowRank>,
}

/// Several projections of one input as one: their outputs side by side. The input is read once, forward and backward, by
/// the products with the weights and by those with the factors, and has one gradient instead of a sum of several.
///
/// `None` where they are not one product: unless the weights are frozen and lie beside each other on a GPU
/// ([`side_by_side`]), have biases all or none, none of them tracked, and at most three low-rank changes, of one scale and
/// dtype, of no more than 128 ranks together.
///
/// # Shapes
///
/// - x: `[..., d_in]`
/// - output: `[..., d_out of the first + d_out of the second + ...]`
pub fn projections<const D: usize>(x: &Tensor<D>, branches: &[Branch]) -> Option<Tensor<D>> {
    #[cfg(feature = "cube")]
    if cube::takes(x) && branches.iter().all(|branch| cube::takes(&branch.weight)) {
        return cube::projections(x, branches);
    }
    let _ = (x, branches);
    None
}

/// The same weights, beside each other in one memory, for [`projections`]. They stay as they are where nothing is gained: on a
/// CPU; where one is tracked, or not of the first one's rows and dtype; where the memory of a device is bound in pieces that
/// columns are no multiple of; and where the rows of all would be longer than the device reads well. A copy of one of
/// them, as on another device, lies alone again.
///
/// # Shapes
///
/// - weights: `[d_in, d_out]` of each; or biases, `[d_out]`
pub fn side_by_side<const D: usize>(weights: Vec<Tensor<D>>) -> Vec<Tensor<D>> {
    #[cfg(feature = "cube")]
    if let Some(laid) = cube::side_by_side::lay(&weights) {
        return laid;
    }
    weights
}

/// Whether weights, or biases, lie as [`side_by_side`] lays them.
pub fn are_side_by_side<const D: usize>(weights: &[Tensor<D>]) -> bool {
    #[cfg(feature = "cube")]
    if !weights.is_empty() && weights.iter().all(cube::takes) {
        return cube::side_by_side::are(weights);
    }
    let _ = weights;
    false
}

/// Adds a low-rank change to the output `y` of a projection: `y + s (x A) B`.
///
/// For an input other than the projection's own (dropout), and for a further adapter of the same weight.
///
/// # Shapes
///
/// - y, output: `[..., d_out]`
/// - x: `[..., d_in]`
pub fn add_low_rank<const D: usize>(y: Tensor<D>, x: Tensor<D>, low_rank: LowRank) -> Tensor<D> {
    #[cfg(feature = "host")]
    if host::takes(&x) && host::takes(&low_rank.a) {
        return add(y, x, low_rank, host::projection);
    }
    #[cfg(feature = "cube")]
    if cube::takes(&x) && cube::takes(&low_rank.a) {
        // The products are as fast as their dtype is narrow.
        let dtype = x.dtype();
        let narrow = |factor: Tensor<2>| match factor.dtype() == dtype {
            true => factor,
            false => factor.cast(dtype),
        };
        let low_rank = LowRank {
            a: narrow(low_rank.a),
            b: narrow(low_rank.b),
            ..low_rank
        };
        return add(y, x, low_rank, cube::projection);
    }
    portable::add_low_rank(y, x, low_rank)
}

/// [`add_low_rank`] by two projections, each with a backward of its own.
#[cfg(any(feature = "host", feature = "cube"))]
fn add<const D: usize>(
    y: Tensor<D>,
    x: Tensor<D>,
    LowRank { a, b, scale }: LowRank,
    projection: fn(Tensor<D>, Tensor<2>, Option<Tensor<1>>, Option<LowRank>) -> Tensor<D>,
) -> Tensor<D> {
    let low = projection(x, a, None, None).mul_scalar(scale); // [..., rank]
    let change = projection(low, b, None, None);
    let dtype = y.dtype();
    y + if change.dtype() == dtype {
        change
    } else {
        change.cast(dtype)
    }
}
