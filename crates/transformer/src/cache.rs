//! Keys and values of the tokens that a model has seen.

use std::ops::Range;

use burn::tensor::{Int, Tensor};

/// The keys and values of all layers, for generation token by token.
///
/// Room for the whole sequence is taken at the first write, and each token is written in place.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    len: usize,
    capacity: usize,
    /// The places in front of each row that its virtual tokens leave; none where no row has any.
    free: Vec<usize>,
}

impl KvCache {
    /// An empty cache for `capacity` tokens in each row.
    pub(crate) fn new(n_layers: usize, capacity: usize) -> Self {
        let layers = (0..n_layers).map(|_| LayerCache::default()).collect();
        Self {
            layers,
            len: 0,
            capacity,
            free: Vec::new(),
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

    /// The places in front of each row that its virtual tokens leave: these, if the cache is to begin.
    pub(crate) fn free(&mut self, free: Vec<usize>) -> Vec<usize> {
        if self.is_empty() {
            self.free = free;
        }
        self.free.clone()
    }

    /// Counts the tokens of a finished forward pass.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }

    /// Row `i` becomes what row `rows[i]` was. Rows may be repeated, moved and left out.
    ///
    /// Row `i` and row `rows[i]` are known to have their first `shared` tokens in common, so these need not be moved
    /// while the number of rows stays: the beams of one prompt share it.
    ///
    /// # Panics
    ///
    /// If a row does not exist.
    pub fn select_rows(&mut self, rows: &[usize], shared: usize) {
        if !self.free.is_empty() {
            self.free = rows.iter().map(|row| self.free[*row]).collect();
        }
        let is_same = |batch: usize| rows.iter().copied().eq(0..batch);
        for layer in &mut self.layers {
            let Some((keys, values)) = layer.filled.take() else {
                continue;
            };
            layer.filled = Some(match is_same(keys.dims()[0]) {
                true => (keys, values),
                false => (
                    selected(keys, rows, shared..self.len),
                    selected(values, rows, shared..self.len),
                ),
            });
        }
    }

    pub(crate) fn layer(&mut self, index: usize) -> LayerWriter<'_> {
        LayerWriter {
            layer: &mut self.layers[index],
            start: self.len,
            capacity: self.capacity,
        }
    }
}

/// The rows of one tensor in another order; when their number stays, only the tokens of `moved` are touched.
///
/// # Shapes
///
/// - filled: `[batch, kv_heads, capacity, d_head]`
/// - output: `[rows, kv_heads, capacity, d_head]`
fn selected(filled: Tensor<4>, rows: &[usize], moved: Range<usize>) -> Tensor<4> {
    let [batch, heads, capacity, d] = filled.dims();
    let device = filled.device();
    let index: Vec<i32> = rows.iter().map(|row| *row as i32).collect();
    let index = Tensor::<1, Int>::from_ints(index.as_slice(), &device);
    if rows.len() == batch {
        if moved.is_empty() {
            return filled;
        }
        let place = [0..batch, 0..heads, moved, 0..d];
        let rows = filled.clone().slice(place.clone()).select(0, index);
        return filled.slice_assign(place, rows);
    }
    let end = moved.end;
    let options = (&device, filled.dtype());
    let seen = filled.slice([0..batch, 0..heads, 0..end, 0..d]);
    let place = [0..rows.len(), 0..heads, 0..end, 0..d];
    Tensor::zeros([rows.len(), heads, capacity, d], options)
        .slice_assign(place, seen.select(0, index))
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
