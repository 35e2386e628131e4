use super::{DecoderConfig, Gpt2Config};
use crate::error::ConfigError;
use crate::nearest::nearest;

/// One of the eight sizes of GPT-3 (arXiv:2005.14165, table 2.1), for planning: what a model of this size and an adapter
/// on it take. There are no weights.
///
/// The table prints 24 heads of 128 for a width of 2048 (XL) and a width of 5140 for 40 heads of 128 (13B), which do not
/// multiply. The sizes here are those that give the parameters of the paper's table D.1: 16 heads, and 5120.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gpt3Shape {
    /// The size in the paper's name of the model: `125M` to `175B`.
    pub name: &'static str,
    /// Number of blocks.
    pub n_layers: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Attention heads.
    pub n_heads: usize,
}

/// Tokens of GPT-2's vocabulary, which GPT-3 shares.
const VOCABULARY: usize = 50_257;
/// Positions, for every size.
const POSITIONS: usize = 2048;

/// A linear layer of a block, as the LoRA paper counts them: query, key and value apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projection {
    /// Query, `[d, d]`.
    Query,
    /// Key, `[d, d]`.
    Key,
    /// Value, `[d, d]`.
    Value,
    /// The output of attention, `[d, d]`.
    Output,
    /// Into the inner layer, `[d, 4 d]`.
    Up,
    /// Out of the inner layer, `[4 d, d]`.
    Down,
}

impl Projection {
    /// All linear layers of a block.
    pub const ALL: [Self; 6] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::Output,
        Self::Up,
        Self::Down,
    ];

    fn sizes(self, d_model: usize) -> (usize, usize) {
        match self {
            Self::Query | Self::Key | Self::Value | Self::Output => (d_model, d_model),
            Self::Up => (d_model, 4 * d_model),
            Self::Down => (4 * d_model, d_model),
        }
    }
}

impl Gpt3Shape {
    /// All sizes, the smallest first.
    pub const ALL: [Self; 8] = [
        Self::new("125M", 12, 768, 12),
        Self::new("350M", 24, 1024, 16),
        Self::new("760M", 24, 1536, 16),
        Self::new("1.3B", 24, 2048, 16),
        Self::new("2.7B", 32, 2560, 32),
        Self::new("6.7B", 32, 4096, 32),
        Self::new("13B", 40, 5120, 40),
        Self::new("175B", 96, 12_288, 96),
    ];

    const fn new(name: &'static str, n_layers: usize, d_model: usize, n_heads: usize) -> Self {
        Self {
            name,
            n_layers,
            d_model,
            n_heads,
        }
    }

    /// The size of this name.
    ///
    /// # Errors
    ///
    /// [`ConfigError::UnknownModel`] with all names and the nearest.
    pub fn named(name: &str) -> Result<Self, ConfigError> {
        let same = |shape: &Self| shape.name.eq_ignore_ascii_case(name);
        Self::ALL.into_iter().find(same).ok_or_else(|| {
            let known = Self::ALL.map(|shape| shape.name);
            ConfigError::UnknownModel {
                found: name.into(),
                nearest: nearest(name, known),
                known: known.map(String::from).to_vec(),
            }
        })
    }

    /// The configuration: GPT-2's blocks of this size. GPT-3 makes every other attention sparse, which has no
    /// parameters.
    pub fn config(&self) -> DecoderConfig {
        DecoderConfig::Gpt2(Gpt2Config {
            vocab_size: VOCABULARY,
            n_positions: POSITIONS,
            n_embd: self.d_model,
            n_layer: self.n_layers,
            n_head: self.n_heads,
            n_inner: 4 * self.d_model,
            ..Gpt2Config::default()
        })
    }

    /// The parameters of the model: embeddings, blocks with biases and norms, and the last norm; the head is tied.
    pub fn parameters(&self) -> u64 {
        self.config().parameters()
    }

    /// The parameters of a LoRA adapter on these layers of every block.
    pub fn lora_parameters(&self, rank: usize, targets: &[Projection]) -> u64 {
        let of_layer = |target: &Projection| {
            let (d_in, d_out) = target.sizes(self.d_model);
            (rank * (d_in + d_out)) as u64
        };
        self.n_layers as u64 * targets.iter().map(of_layer).sum::<u64>()
    }

    /// The memory of full training but for activations, in bytes: of each parameter in f32 the value, its gradient and the
    /// two moments of AdamW.
    pub fn training_bytes(&self) -> u64 {
        TRAINED_BYTES * self.parameters()
    }

    /// The memory of training an adapter but for activations, in bytes: the frozen base at so many bytes a parameter (4 of
    /// f32, 2 of f16 and bf16), and for each parameter of the adapter what full training has for all.
    pub fn lora_training_bytes(
        &self,
        bytes_per_weight: usize,
        rank: usize,
        targets: &[Projection],
    ) -> u64 {
        let base = bytes_per_weight as u64 * self.parameters();
        base + TRAINED_BYTES * self.lora_parameters(rank, targets)
    }
}

/// Four numbers of f32.
const TRAINED_BYTES: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use Projection::{Key, Output, Query, Value};

    #[test]
    fn the_sizes_have_the_published_parameters() {
        // Table D.1, in millions.
        let published = [125, 356, 760, 1_320, 2_650, 6_660, 12_850, 174_600];
        for (shape, millions) in Gpt3Shape::ALL.into_iter().zip(published) {
            let found = shape.parameters() as f64 / 1e6;
            let share = found / f64::from(millions);
            assert!(
                (share - 1.0).abs() < 5e-3,
                "{}: {found} million",
                shape.name
            );
            shape.config().check().expect("heads divide the width");
        }
    }

    #[test]
    fn the_count_is_that_of_the_formula() {
        for shape in Gpt3Shape::ALL {
            let (layers, d) = (shape.n_layers as u64, shape.d_model as u64);
            // Four squares for attention and eight for the inner layer, 9 biases of width d, 2 norms; 1 norm at the end.
            let block = 12 * d * d + 9 * d + 4 * d;
            let expected = (VOCABULARY + POSITIONS) as u64 * d + layers * block + 2 * d;
            assert_eq!(shape.parameters(), expected, "{}", shape.name);
        }
    }

    #[test]
    fn adapters_have_the_counts_of_the_lora_paper() {
        let large = Gpt3Shape::named("175b").expect("known");
        let attention = [Query, Key, Value, Output];
        // arXiv:2106.09685, the GPT-3 rows of its hyperparameter study, in tenths of a million.
        let cases: [(usize, &[Projection], u64); 8] = [
            (2, &[Value], 47),
            (1, &[Query, Value], 47),
            (2, &[Query, Value], 94),
            (1, &attention, 94),
            (4, &[Query, Value], 188),
            (2, &attention, 188),
            (8, &[Query, Value], 377),
            (64, &[Query, Value], 3_019),
        ];
        for (rank, targets, published) in cases {
            let found = large.lora_parameters(rank, targets);
            assert_eq!(found / 100_000, published, "{rank} {targets:?}: {found}");
        }
        // "From 350GB to 35MB", in f16, at rank 4 on query and value.
        let checkpoint = 2 * large.lora_parameters(4, &[Query, Value]);
        assert!((35..=38).contains(&(checkpoint / 1_000_000)));
        assert_eq!(2 * large.parameters() / 1_000_000_000, 349);
        assert_eq!(large.lora_parameters(1, &Projection::ALL), 96 * 18 * 12_288);
    }

    #[test]
    fn an_adapter_needs_the_memory_of_the_frozen_base() {
        let large = Gpt3Shape::named("175B").expect("known");
        let gigabytes = |bytes: u64| bytes / 1_000_000_000;
        // In f16, at the rank of the paper's large table; the adapter is 0.3 of it.
        let adapter = large.lora_training_bytes(2, 4, &[Query, Value]);
        assert_eq!(gigabytes(adapter), 349);
        assert_eq!(adapter - 2 * large.parameters(), 16 * 18_874_368);
        // The paper's 1.2 TB keeps some of this in f16.
        assert_eq!(gigabytes(large.training_bytes()), 2_793);
    }

    #[test]
    fn an_unknown_size_names_the_nearest() {
        let error = Gpt3Shape::named("174B").expect_err("unknown").to_string();
        assert!(error.contains("nearest: `175B`"), "{error}");
    }
}
