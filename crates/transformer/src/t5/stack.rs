use burn::nn::Embedding;
use burn::tensor::{DType, Device, Tensor};

use super::T5Config;
use super::block::{KeysValues, T5Block};
use super::buckets::Buckets;
use crate::cache::KvCache;
use crate::encoder::scope::Scope;
use crate::encoder::view::{BLOCKED, on};
use crate::named::{Named, unnamed_module};
use crate::norm::RmsNorm;
use crate::virtual_tokens::Front;
use crate::weigh::cast;

/// The blocks of the encoder or of the decoder.
#[derive(Debug, Clone)]
pub struct T5Stack {
    /// What each head adds to the scores at a distance, `[buckets, heads]`; the first block holds it for all.
    pub relative_bias: Named<Embedding>,
    /// The blocks.
    pub block: Named<Vec<T5Block>>,
    /// After the last block.
    pub final_layer_norm: Named<RmsNorm>,
    buckets: Buckets,
}

unnamed_module!(T5Stack { relative_bias, block, final_layer_norm } with { buckets });

/// What a decoder sees of the encoder: for each block keys and values, and what blocks the padding.
pub(crate) struct Cross<'a> {
    pub(crate) keys_values: &'a [KeysValues],
    pub(crate) padding: Option<&'a Tensor<4>>,
}

impl T5Stack {
    pub(crate) fn build(config: &T5Config, is_decoder: bool, scope: &mut Scope<'_, '_>) -> Self {
        let layers = match is_decoder {
            true => config.num_decoder_layers,
            false => config.num_layers,
        };
        let block = scope.enter("block", |scope| {
            let block = |index: usize| {
                let block = scope.enter(index.to_string(), |scope| {
                    T5Block::build(config, is_decoder, scope)
                });
                block.into_inner()
            };
            (0..layers).map(block).collect()
        });
        scope.set_std(config.initializer_factor * (config.d_model as f64).powf(-0.5));
        Self {
            relative_bias: scope.embedding(
                "block.0.layer.0.SelfAttention.relative_attention_bias",
                [config.relative_attention_num_buckets, config.num_heads],
            ),
            block,
            final_layer_norm: scope.rms_norm(
                "final_layer_norm",
                config.d_model,
                config.layer_norm_epsilon,
            ),
            buckets: Buckets::new(config, !is_decoder),
        }
    }

    /// What the encoder adds to its scores, `[batch or 1, heads, seq, seq]`.
    pub(crate) fn encoder_bias(
        &self,
        seq: usize,
        padding: Option<&Tensor<4>>,
        device: &Device,
    ) -> Tensor<4> {
        let table = &self.relative_bias;
        let bias = self.buckets.bias(table, seq, 0, seq, device);
        match padding {
            Some(padding) => bias + padding.clone().cast(self.dtype()),
            None => bias,
        }
    }

    /// What the decoder adds to its scores for queries from position `start` on, `[batch or 1, heads, seq, start + seq]`. Of each
    /// row the first keys are `free`: they are nobody's.
    pub(crate) fn decoder_bias(
        &self,
        seq: usize,
        start: usize,
        free: &[usize],
        device: &Device,
    ) -> Tensor<4> {
        let keys = start + seq;
        let bias = self
            .buckets
            .bias(&self.relative_bias, seq, start, keys, device);
        let bias = match seq {
            1 => bias,
            _ => {
                let row = |query: usize| {
                    (0..keys).map(move |key| if key > start + query { BLOCKED } else { 0.0 })
                };
                let causal: Vec<f32> = (0..seq).flat_map(row).collect();
                bias + on(causal, [1, 1, seq, keys], device).cast(self.dtype())
            }
        };
        if free.is_empty() {
            return bias;
        }
        let row = |free: &usize| {
            let free = *free;
            (0..keys).map(move |key| if key < free { BLOCKED } else { 0.0 })
        };
        let nobodys: Vec<f32> = free.iter().flat_map(row).collect();
        // In f32, in which it is finite: a place that sees nothing else stays a number.
        cast(bias, DType::F32) + on(nobodys, [free.len(), 1, 1, keys], device)
    }

    fn dtype(&self) -> DType {
        self.relative_bias.weight.base().dtype()
    }

    pub(crate) fn with_blocks(mut self, change: impl FnMut(T5Block) -> T5Block) -> Self {
        let changed = |blocks: Vec<T5Block>| blocks.into_iter().map(change).collect();
        self.block = self.block.map_inner(changed);
        self
    }

    /// # Shapes
    ///
    /// - x, output: `[batch, seq, d_model]`
    pub(crate) fn forward(
        &self,
        mut x: Tensor<3>,
        bias: Tensor<4>,
        cross: Option<Cross<'_>>,
        front: Option<&Front>,
        mut cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        for (index, block) in self.block.iter().enumerate() {
            let cross = cross.as_ref().map(|cross| {
                let keys_values = cross.keys_values[index].clone();
                (keys_values, cross.padding.cloned())
            });
            let cache = cache.as_deref_mut().map(|cache| cache.layer(index));
            let prefix = front.and_then(|front| front.prefix(index));
            x = block.forward(x, &bias, cross, prefix.as_ref(), cache);
        }
        self.final_layer_norm.forward(x)
    }
}
