use std::sync::Arc;

use burn::tensor::{DType, Tensor};

use super::row_tokens::RowTokens;
use super::{Sizes, VirtualTokens};
use crate::weigh::cast;

/// What stands in front of the tokens of one forward pass, row by row.
pub(crate) struct Front {
    /// `[1, count, d_model]` each.
    embeddings: Fill<3>,
    /// By layer; none where no row has a prefix.
    prefix: Vec<LayerPrefix>,
}

/// Keys and values of one layer.
#[derive(Clone)]
pub(crate) struct LayerPrefix {
    /// `[1, kv_heads, count, d_head]` each.
    keys: Fill<4>,
    /// `[1, kv_heads, count, d_head]` each.
    values: Fill<4>,
}

/// What takes the place of what was computed.
#[derive(Clone)]
struct Fill<const D: usize> {
    sets: Vec<Tensor<D>>,
    /// Of each row.
    spots: Arc<Vec<Option<Spot>>>,
}

/// Where in a row one of the sets begins.
#[derive(Clone, Copy, PartialEq)]
struct Spot {
    set: usize,
    start: usize,
}

/// Each of them once, and where the rows have them.
fn placed<'a>(
    rows: &[Option<&'a VirtualTokens>],
    starts: &[usize],
    is_prefix: bool,
) -> (Vec<&'a VirtualTokens>, Arc<Vec<Option<Spot>>>) {
    let mut sets: Vec<&VirtualTokens> = Vec::new();
    let rows = rows.iter().enumerate().map(|(row, tokens)| {
        let tokens = tokens.filter(|tokens| tokens.is_prefix() == is_prefix)?;
        let known = sets.iter().position(|known| std::ptr::eq(*known, tokens));
        let set = known.unwrap_or_else(|| {
            sets.push(tokens);
            sets.len() - 1
        });
        let start = starts.get(row).or(starts.first()).copied().unwrap_or(0);
        Some(Spot { set, start })
    });
    let spots = Arc::new(rows.collect());
    (sets, spots)
}

impl Front {
    /// `starts` are the places of the first ones in each row; all are 0 where there are none.
    pub(crate) fn new(
        tokens: &RowTokens<'_>,
        sizes: Sizes,
        starts: &[usize],
        dtype: DType,
    ) -> Option<Self> {
        if tokens.is_none() {
            return None;
        }
        let (sets, spots) = placed(tokens.rows(), starts, false);
        let sets = sets.into_iter();
        let embeddings = Fill {
            sets: sets
                .map(|set| cast(set.flattened(), dtype).unsqueeze())
                .collect(),
            spots,
        };
        let (sets, spots) = placed(tokens.rows(), starts, true);
        if sets.is_empty() {
            return Some(Self {
                embeddings,
                prefix: Vec::new(),
            });
        }
        let (layers, kv_heads, d_head) = (sizes.prefix_layers, sizes.n_kv_heads, sizes.d_head);
        let by_layer = |set: &VirtualTokens| -> Tensor<4> {
            let flat = cast(set.flattened(), dtype);
            let count = flat.dims()[0];
            let flat: Tensor<4> = flat.reshape([count, 2 * layers, kv_heads, d_head]);
            flat.permute([1, 2, 0, 3]) // [2 * layers, kv_heads, count, d_head]
        };
        let sets: Vec<Tensor<4>> = sets.into_iter().map(by_layer).collect();
        let part = |index: usize| Fill {
            sets: sets
                .iter()
                .map(|set| set.clone().narrow(0, index, 1))
                .collect(),
            spots: spots.clone(),
        };
        let layer = |index: usize| {
            let place = sizes.submodules * index % layers;
            LayerPrefix {
                keys: part(2 * place),
                values: part(2 * place + 1),
            }
        };
        Some(Self {
            embeddings,
            prefix: (0..layers).map(layer).collect(),
        })
    }

    pub(crate) fn has_prefix(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// The keys and values of a layer, where any row has such in front.
    pub(crate) fn prefix(&self, layer: usize) -> Option<LayerPrefix> {
        self.prefix.get(layer).cloned()
    }

    /// Embedded tokens with the virtual ones in their places, in the rows that have embeddings.
    ///
    /// # Shapes
    ///
    /// - x, output: `[batch, seq, d_embedding]`
    pub(crate) fn put(&self, x: Tensor<3>) -> Tensor<3> {
        self.embeddings.put(x, 1)
    }

    /// With zeros in the places of a prefix: it has no embeddings that could be neighbours of what follows it.
    ///
    /// # Shapes
    ///
    /// - x, output: `[batch, seq, hidden]`
    pub(crate) fn cleared(&self, x: Tensor<3>) -> Tensor<3> {
        let Some(LayerPrefix { keys, .. }) = self.prefix.first() else {
            return x;
        };
        let options = (&x.device(), x.dtype());
        let zeros = |set: &Tensor<4>| Tensor::zeros([1, set.dims()[2], x.dims()[2]], options);
        let zeros = Fill {
            sets: keys.sets.iter().map(zeros).collect(),
            spots: keys.spots.clone(),
        };
        zeros.put(x, 1)
    }
}

impl LayerPrefix {
    /// Puts the prefix in the place of what was computed there.
    ///
    /// # Shapes
    ///
    /// - k, v, output: `[batch, kv_heads, seq, d_head]`
    pub(crate) fn put(&self, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        (self.keys.put(k, 2), self.values.put(v, 2))
    }
}

impl<const D: usize> Fill<D> {
    /// Exchanges the places of each row along one dimension.
    ///
    /// # Shapes
    ///
    /// - x, output: `[batch, ..., seq, ...]`
    fn put(&self, x: Tensor<D>, dim: usize) -> Tensor<D> {
        let seq = x.dims()[dim];
        let after = |x: &Tensor<D>, from: usize| {
            (from < seq).then(|| x.clone().narrow(dim, from, seq - from))
        };
        let joined = |parts: [Option<Tensor<D>>; 3]| {
            Tensor::cat(parts.into_iter().flatten().collect::<Vec<_>>(), dim)
        };
        let first = Some(Spot { set: 0, start: 0 });
        match self.sets.as_slice() {
            [] => return x,
            [set] if self.spots.iter().all(|spot| *spot == first) => {
                let mut shape = set.dims();
                shape[0] = x.dims()[0];
                let rest = after(&x, set.dims()[dim]);
                return joined([None, Some(set.clone().expand(shape)), rest]);
            }
            _ => {}
        }
        let row = |(row, spot): (usize, &Option<Spot>)| {
            let x = x.clone().narrow(0, row, 1);
            let Some(Spot { set, start }) = *spot else {
                return x;
            };
            let set = &self.sets[set];
            let before = (start > 0).then(|| x.clone().narrow(dim, 0, start));
            let rest = after(&x, start + set.dims()[dim]);
            joined([before, Some(set.clone()), rest])
        };
        Tensor::cat(self.spots.iter().enumerate().map(row).collect(), 0)
    }
}
