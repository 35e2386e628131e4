use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;

use super::super::cuda_source::{CudaSource, CudaText};
use crate::Scores;
use crate::attention_mask::Visible;

/// Of how many rows of a batch the kernels' parameters, at most 4 KiB, hold the bounds.
pub(super) const PADDED_ROWS: usize = 448;

/// Threads of a block: the four warps that multiply together on Hopper.
const UNITS: usize = 128;

/// Queries, or keys, of a block: 16 of each warp.
const ROWS: usize = UNITS / 2;

/// How one kernel divides its work.
#[derive(Clone, Copy)]
pub(super) struct Tiles(&'static [(&'static str, usize)]);

/// The sizes of an attention, and who sees what.
pub(super) struct Shape<'a> {
    pub(super) batch: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) queries: usize,
    pub(super) keys: usize,
    d: usize,
    half: bool,
    visible: Option<&'a Visible>,
    scores: Scores,
}

impl<'a> Shape<'a> {
    pub(super) fn new(
        q: &CubeTensor,
        k: &CubeTensor,
        visible: Option<&'a Visible>,
        scores: Scores,
    ) -> Self {
        let (q_shape, k_shape) = (q.meta.shape(), k.meta.shape());
        Self {
            batch: q_shape[0],
            heads: q_shape[1],
            kv_heads: k_shape[1],
            queries: q_shape[2],
            keys: k_shape[2],
            d: q_shape[3],
            half: q.dtype == DType::F16,
            visible,
            scores,
        }
    }

    /// One number for each query, and for those of the last tile that do not exist.
    pub(super) fn statistics(&self) -> [usize; 3] {
        [self.batch, self.heads, self.stat_row()]
    }

    /// Of the result, and of the gradients of queries.
    pub(super) fn of_queries(&self) -> [usize; 4] {
        [self.batch, self.queries, self.heads, self.d]
    }

    /// Of the gradients of keys and values.
    pub(super) fn of_keys(&self) -> [usize; 4] {
        [self.batch, self.keys, self.kv_heads, self.d]
    }

    fn stat_row(&self) -> usize {
        self.queries.next_multiple_of(ROWS)
    }

    /// Blocks of the kernels that go by queries.
    pub(super) fn query_blocks(&self) -> [usize; 3] {
        [self.batch * self.heads, self.queries.div_ceil(ROWS), 1]
    }

    /// Blocks of the kernel that goes by keys.
    pub(super) fn key_blocks(&self) -> [usize; 3] {
        [self.batch * self.kv_heads, self.keys.div_ceil(ROWS), 1]
    }

    // The divisions below were the fastest of those that fit an H100's registers and 48 KiB of shared memory, at 4 x 1024
    // and 1 x 8192 tokens with 32 heads, four to a key head.

    pub(super) fn forward(&self) -> Tiles {
        Tiles(if self.d > 64 {
            &[("KEYS", 64), ("STAGES", 1), ("RESIDENT", 2)]
        } else {
            &[("KEYS", 64), ("STAGES", 2), ("RESIDENT", 4)]
        })
    }

    pub(super) fn backward_queries(&self) -> Tiles {
        Tiles(if self.d > 64 {
            &[("KEYS", 32), ("RESIDENT", 2)]
        } else {
            &[("KEYS", 64), ("RESIDENT", 3)]
        })
    }

    pub(super) fn backward_keys(&self) -> Tiles {
        Tiles(if self.d > 64 {
            &[("QUERIES", 32), ("RESIDENT", 2)]
        } else {
            &[("QUERIES", 64), ("RESIDENT", 2)]
        })
    }

    pub(super) fn kernel(
        &self,
        text: &'static CudaText,
        entry: &'static str,
        Tiles(tiles): Tiles,
    ) -> CudaSource {
        let seen = |of: fn(&Visible) -> bool| usize::from(self.visible.is_some_and(of));
        let defines = [
            ("D", self.d),
            ("HALF", self.half.into()),
            ("THREADS", UNITS),
            ("CAUSAL", seen(|visible| visible.causal_from().is_some())),
            ("WINDOW", seen(|visible| visible.window().is_some())),
            ("PADDED", seen(Visible::is_padded) * PADDED_ROWS),
            ("SOFTCAP", self.scores.softcap.is_some().into()),
        ];
        let defines = defines.into_iter().chain(tiles.iter().copied());
        CudaSource::new(text, entry, UNITS as u32, defines)
    }

    /// The kernels' `Args`, with the strides of queries, keys, values and the result's gradient.
    pub(super) fn numbers(&self, strided: [&CubeTensor; 4]) -> Vec<u64> {
        let sizes = [
            self.batch,
            self.heads,
            self.kv_heads,
            self.queries,
            self.keys,
            self.visible.and_then(Visible::causal_from).unwrap_or(0),
            self.visible.and_then(Visible::window).unwrap_or(0),
            self.stat_row(),
        ];
        let strides = strided
            .iter()
            .flat_map(|tensor| &tensor.meta.strides()[..3]);
        let sizes = sizes.iter().chain(strides).map(|size| *size as u64);
        let scores = [self.scores.scale, self.scores.softcap.unwrap_or(0.0)];
        let mut numbers: Vec<u64> = sizes.chain(scores.map(f64::to_bits)).collect();
        if let Some(visible) = self.visible.filter(|visible| visible.is_padded()) {
            let bounds = (0..PADDED_ROWS).map(|row| {
                let keys = visible.keys_of(row, self.keys);
                (keys.end as u64) << 32 | keys.start as u64
            });
            numbers.extend(bounds);
        }
        numbers
    }
}
