use std::sync::Arc;

use burn::nn::Embedding;
use burn::tensor::{Distribution, Int, Tensor};
use burn_lora_adapter::embed;
use burn_lora_kernels::{AttentionMask, RopeTables};

use super::attention::Surroundings;
use super::block::{Block, Stream};
use super::norm::Norm;
use super::plan::Plan;
use super::scope::Scope;
use crate::cache::{KvCache, LayerWriter};
use crate::named::{Named, unnamed_module};
use crate::positions::Positions;
use crate::recompute::Recomputation;
use crate::virtual_tokens::Front;

/// All of a decoder but the head.
#[derive(Debug, Clone)]
pub(crate) struct Trunk {
    /// `[vocab, d_model]`
    pub(crate) tokens: Named<Embedding>,
    /// `[positions, d_model]`
    positions: Option<Named<Embedding>>,
    pub(crate) blocks: Named<Vec<Block>>,
    last_norm: Named<Norm>,
    plan: Arc<Plan>,
    /// NEFTune's alpha.
    noise: Option<f64>,
}

unnamed_module!(Trunk { tokens, positions, blocks, last_norm } with { plan, noise });

impl Trunk {
    pub(crate) fn build(plan: &Arc<Plan>, scope: &mut Scope<'_, '_>) -> Self {
        let (names, d) = (plan.names, plan.d_model);
        let tokens = scope.embedding(names.tokens, plan.vocab_size, d);
        let positions = plan
            .learned_positions
            .then(|| scope.embedding(names.positions, plan.max_positions, d));
        let blocks = scope.list(names.blocks, plan.layers.len(), |index, mut scope| {
            Block::build(plan, index, &mut scope)
        });
        Self {
            tokens,
            positions,
            blocks,
            last_norm: scope.norm(names.last_norm, d, plan.norm),
            plan: plan.clone(),
            noise: None,
        }
    }

    /// With other noise on its embeddings.
    pub(crate) fn with_noise(self, noise: Option<f64>) -> Self {
        Self { noise, ..self }
    }

    /// With other blocks.
    pub(crate) fn with_blocks(self, change: impl FnMut(Block) -> Block) -> Self {
        let changed = |blocks: Vec<Block>| blocks.into_iter().map(change).collect();
        Self {
            blocks: self.blocks.map_inner(changed),
            ..self
        }
    }

    /// The hidden states after the last norm.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`
    /// - output: `[batch, seq, d_model]`
    pub(crate) fn hidden(
        &self,
        ids: Tensor<2, Int>,
        positions: &Positions<'_>,
        front: Option<&Front>,
        recomputation: &Recomputation,
        mut cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let device = ids.device();
        let mut x = embed(&self.tokens, ids); // [batch, seq, d_model]
        if let Some(alpha) = self.noise.filter(|_| x.is_autodiff()) {
            x = with_noise(x, alpha);
        }
        if let Some(scale) = self.plan.embedding_scale {
            x = x * scale;
        }
        if let Some(front) = front {
            x = front.put(x);
        }
        if let Some(places) = &self.positions {
            x = x + places.forward(positions.tensor(&device)); // [batch or 1, seq, d_model]
        }
        // A cache is meant for a sequence of its capacity.
        let length = cache.as_deref().map(KvCache::capacity);
        let values = positions.values();
        let length = length.unwrap_or_else(|| values.iter().max().map_or(0, |last| last + 1));
        let ropes = self.plan.ropes.iter();
        let ropes: Vec<RopeTables> = ropes
            .map(|rope| rope.tables_within(length, &values, positions.rows(), x.dtype(), &device))
            .collect();
        let masks: Vec<(Option<usize>, AttentionMask)> = self
            .plan
            .windows()
            .into_iter()
            .map(|window| (window, positions.mask(window, &device)))
            .collect();
        let none = AttentionMask::none();

        let mut stream = Stream::new(x);
        for (index, (block, layer)) in self.blocks.iter().zip(&self.plan.layers).enumerate() {
            let mask = masks.iter().find(|(window, _)| *window == layer.window);
            let mask = mask.map_or(&none, |(_, mask)| mask).clone();
            let rope = layer.rope.and_then(|rope| ropes.get(rope)).cloned();
            let prefix = front.and_then(|front| front.prefix(index));
            let cache = cache.as_deref_mut().map(|cache| cache.layer(index));
            let run = move |block: &Block, stream: Stream, cache: Option<LayerWriter<'_>>| {
                let (rope, mask, prefix) = (rope.as_ref(), &mask, prefix.as_ref());
                block.forward(stream, &Surroundings { rope, mask, prefix }, cache)
            };
            stream = match recomputation.has(index) {
                true => {
                    let run = move |block: &Block, x| run(block, Stream::new(x), None).sum();
                    Stream::new(recomputation.run(index, block, stream.sum(), run))
                }
                false => run(block, stream, cache),
            };
        }
        let [_, normed] = stream.normed(&self.last_norm);
        normed
    }
}

/// NEFTune, arXiv:2310.05914: `x + u alpha / sqrt(seq d_model)`, with `u` uniform in `[-1, 1)`.
pub(crate) fn with_noise(x: Tensor<3>, alpha: f64) -> Tensor<3> {
    let [_, seq, d_model] = x.dims();
    let bound = alpha / ((seq * d_model) as f64).sqrt();
    let noise = x.random_like(Distribution::Uniform(-bound, bound));
    x + noise.detach()
}
