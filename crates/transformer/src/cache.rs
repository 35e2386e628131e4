//! Keys and values of the tokens that a model has seen.

use burn::tensor::Tensor;

/// The keys and values of all layers, for generation token by token.
///
/// Room for the whole sequence is taken at the first write, and each token is written in place.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    len: usize,
    capacity: usize,
}

impl KvCache {
    /// An empty cache for `capacity` tokens in each row.
    pub(crate) fn new(n_layers: usize, capacity: usize) -> Self {
        let layers = (0..n_layers).map(|_| LayerCache::default()).collect();
        Self {
            layers,
            len: 0,
            capacity,
        }
    }

    /// The tokens seen so far, padding included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token was seen.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The most tokens it holds.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Counts the tokens of a finished forward pass.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }

    pub(crate) fn layer(&mut self, index: usize) -> LayerWriter<'_> {
        LayerWriter {
            layer: &mut self.layers[index],
            start: self.len,
            capacity: self.capacity,
        }
    }
}

#[derive(Debug, Default)]
struct LayerCache {
    /// `[batch, kv_heads, capacity, d_head]` each.
    filled: Option<(Tensor<4>, Tensor<4>)>,
}

/// The place of one layer, at the end of what is filled.
pub(crate) struct LayerWriter<'a> {
    layer: &'a mut LayerCache,
    start: usize,
    capacity: usize,
}

impl LayerWriter<'_> {
    /// Writes the keys and values of new tokens and returns those of all tokens.
    ///
    /// # Shapes
    ///
    /// - k, v: `[batch, kv_heads, seq, d_head]`
    /// - output: `[batch, kv_heads, filled + seq, d_head]` each
    pub(crate) fn append(self, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [batch, heads, seq, d] = k.dims();
        let end = self.start + seq;
        let room = |like: &Tensor<4>| {
            let options = (&like.device(), like.dtype());
            Tensor::zeros([batch, heads, self.capacity, d], options)
        };
        // Taken out, not cloned: a tensor with one owner is written in place.
        let filled = self.layer.filled.take();
        let (keys, values) = filled.unwrap_or_else(|| (room(&k), room(&v)));
        let place = [0..batch, 0..heads, self.start..end, 0..d];
        let keys = keys.slice_assign(place.clone(), k);
        let values = values.slice_assign(place, v);
        let seen = [0..batch, 0..heads, 0..end, 0..d];
        let all = (keys.clone().slice(seen.clone()), values.clone().slice(seen));
        self.layer.filled = Some((keys, values));
        all
    }
}
