use burn::nn::Embedding;
use burn::tensor::{Device, Int, Tensor};

use super::T5Config;

/// Which distances share a bias: near ones have a bucket of their own, far ones share on a logarithmic scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Buckets {
    count: usize,
    max_distance: usize,
    /// Half of the buckets are for keys behind the query; otherwise those count as the query's own place.
    both_sides: bool,
}

impl Buckets {
    pub(crate) fn new(config: &T5Config, both_sides: bool) -> Self {
        Self {
            count: config.relative_attention_num_buckets,
            max_distance: config.relative_attention_max_distance,
            both_sides,
        }
    }

    /// The bucket of a key that stands `offset` behind the query, before it where that is negative.
    fn of(self, offset: i64) -> usize {
        let (count, first, distance) = match self.both_sides {
            true => {
                let half = self.count / 2;
                (
                    half,
                    if offset > 0 { half } else { 0 },
                    offset.unsigned_abs(),
                )
            }
            false => (self.count, 0, (-offset).max(0).unsigned_abs()),
        };
        let (distance, exact) = (distance as usize, count / 2);
        if distance < exact {
            return first + distance;
        }
        // In f32 and in this order: at the edge of a bucket the rounding decides, and it must be the one that the model was
        // trained with.
        let steepness = (self.max_distance as f64 / exact as f64).ln() as f32;
        let part = (distance as f32 / exact as f32).ln() / steepness * (count - exact) as f32;
        first + (exact + part as usize).min(count - 1)
    }

    /// The biases for queries from position `start` on and keys from 0 on, `[1, heads, queries, keys]`.
    ///
    /// `table` is `[buckets, heads]`.
    pub(crate) fn bias(
        self,
        table: &Embedding,
        queries: usize,
        start: usize,
        keys: usize,
        device: &Device,
    ) -> Tensor<4> {
        let offset = |i: usize, j: usize| j as i64 - (start + i) as i64;
        let indices: Vec<i32> = (0..queries)
            .flat_map(|i| (0..keys).map(move |j| (i, j)))
            .map(|(i, j)| self.of(offset(i, j)) as i32)
            .collect();
        let device = device.clone().without_autodiff();
        let indices = Tensor::<1, Int>::from_ints(indices.as_slice(), &device);
        let table = table.weight.val();
        let heads = table.dims()[1];
        let biases = table.select(0, indices); // [queries * keys, heads]
        let biases = biases.reshape([queries, keys, heads]).permute([2, 0, 1]);
        biases.unsqueeze_dim(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by Transformers 5.23 for 32 buckets up to 128: distances at which a bucket starts that is not its own.
    const FAR_BOTH: [(i64, usize); 8] = [
        (8, 8),
        (12, 9),
        (16, 10),
        (23, 11),
        (32, 12),
        (46, 13),
        (64, 14),
        (91, 15),
    ];
    const FAR_BEFORE: [(i64, usize); 16] = [
        (16, 16),
        (19, 17),
        (21, 18),
        (24, 19),
        (27, 20),
        (31, 21),
        (35, 22),
        (40, 23),
        (46, 24),
        (52, 25),
        (59, 26),
        (67, 27),
        (77, 28),
        (87, 29),
        (99, 30),
        (113, 31),
    ];

    /// The distances at which a bucket starts.
    fn starts(buckets: Buckets, side: i64) -> Vec<(i64, usize)> {
        let of = |distance: i64| buckets.of(side * distance);
        (1..600)
            .filter(|distance| of(*distance) != of(distance - 1))
            .map(|distance| (distance, of(distance)))
            .collect()
    }

    #[test]
    fn buckets_start_where_transformers_starts_them() {
        let config = T5Config::default();
        let both = Buckets::new(&config, true);
        assert_eq!(starts(both, -1)[7..], FAR_BOTH);
        let behind = FAR_BOTH.map(|(distance, bucket)| (distance, bucket + 16));
        assert_eq!(starts(both, 1)[7..], behind);
        let before = Buckets::new(&config, false);
        assert_eq!(starts(before, -1)[15..], FAR_BEFORE);
        assert_eq!(starts(before, 1), []);
    }
}
