use burn::tensor::{DType, Tensor};

use super::{Sizes, VirtualTokens};
use crate::weigh::cast;

/// What stands in front of the tokens of one forward pass.
#[allow(clippy::large_enum_variant, reason = "there is one in each forward")]
pub(crate) enum Front {
    /// `[1, count, d_model]`
    Embeddings(Tensor<3>),
    /// By layer.
    Prefix(Vec<LayerPrefix>),
}

/// Keys and values of one layer.
#[derive(Clone)]
pub(crate) struct LayerPrefix {
    /// `[1, kv_heads, count, d_head]`
    keys: Tensor<4>,
    /// `[1, kv_heads, count, d_head]`
    values: Tensor<4>,
    /// The number of padding tokens before it in each row; nothing where no row has any.
    left: Vec<usize>,
}

impl Front {
    pub(crate) fn new(tokens: &VirtualTokens, sizes: Sizes, left: &[usize], dtype: DType) -> Self {
        let flat = cast(tokens.flattened(), dtype);
        let VirtualTokens::Prefix(_) = tokens else {
            return Self::Embeddings(flat.unsqueeze());
        };
        let count = flat.dims()[0];
        let (layers, kv_heads, d_head) = (sizes.prefix_layers, sizes.n_kv_heads, sizes.d_head);
        let flat: Tensor<4> = flat.reshape([count, 2 * layers, kv_heads, d_head]);
        let flat = flat.permute([1, 2, 0, 3]); // [2 * layers, kv_heads, count, d_head]
        let part = |index: usize| flat.clone().narrow(0, index, 1);
        let layer = |index: usize| {
            let place = sizes.submodules * index % layers;
            LayerPrefix {
                keys: part(2 * place),
                values: part(2 * place + 1),
                left: left.to_vec(),
            }
        };
        Self::Prefix((0..layers).map(layer).collect())
    }

    /// The keys and values of a layer, if it is those that are in front.
    pub(crate) fn prefix(&self, layer: usize) -> Option<LayerPrefix> {
        match self {
            Self::Prefix(layers) => layers.get(layer).cloned(),
            Self::Embeddings(_) => None,
        }
    }

    /// Embedded tokens with the virtual ones in their places, if these are embeddings.
    ///
    /// # Shapes
    ///
    /// - x, output: `[batch, seq, d_embedding]`
    pub(crate) fn put(&self, x: Tensor<3>, left: &[usize]) -> Tensor<3> {
        match self {
            Self::Embeddings(embeddings) => in_front(x, embeddings.clone(), 1, left),
            Self::Prefix(_) => x,
        }
    }
}

impl LayerPrefix {
    /// Puts the prefix in the place of what was computed there.
    ///
    /// # Shapes
    ///
    /// - k, v, output: `[batch, kv_heads, seq, d_head]`
    pub(crate) fn put(&self, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let put = |x, prefix: &Tensor<4>| in_front(x, prefix.clone(), 2, &self.left);
        (put(k, &self.keys), put(v, &self.values))
    }
}

/// Exchanges the first places of each row, those after its padding, along one dimension.
///
/// # Shapes
///
/// - x, output: `[batch, ..., seq, ...]`
/// - front: `[1, ..., count, ...]`
fn in_front<const D: usize>(
    x: Tensor<D>,
    front: Tensor<D>,
    dim: usize,
    left: &[usize],
) -> Tensor<D> {
    let (batch, seq, count) = (x.dims()[0], x.dims()[dim], front.dims()[dim]);
    let after = |x: Tensor<D>, from: usize| (from < seq).then(|| x.narrow(dim, from, seq - from));
    if left.iter().all(|left| *left == 0) {
        let mut shape = front.dims();
        shape[0] = batch;
        let parts = [Some(front.expand(shape)), after(x, count)];
        return Tensor::cat(parts.into_iter().flatten().collect(), dim);
    }
    let row = |(row, left): (usize, &usize)| {
        let x = x.clone().narrow(0, row, 1);
        let before = (*left > 0).then(|| x.clone().narrow(dim, 0, *left));
        let parts = [before, Some(front.clone()), after(x, left + count)];
        Tensor::cat(parts.into_iter().flatten().collect(), dim)
    };
    Tensor::cat(left.iter().enumerate().map(row).collect(), 0)
}
