//! The work of a step.

use burn_lora_transformer::{BlockAnatomy, Place};
use serde::Serialize;

use super::{Placed, PlanOptions, Planner, saturated};

/// Floating-point operations of the matrix products of one optimizer step; a product of `m x k` and `k x n` has `2 m k n`.
///
/// A frozen weight is in two products: the forward one, and the gradient of its input; it has no gradient of its own. A
/// LoRA has `x A` and `(x A) B`, and backward the gradients of B, of `x A`, of A, and of x. Attention has two products
/// forward and four backward over the pairs of positions that see each other. Norms, activations and the softmax are not
/// counted, nor is what a kernel computes a second time for its own convenience.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StepFlops {
    /// Of the forward passes.
    pub forward: u64,
    /// Of the backward passes.
    pub backward: u64,
    /// Of blocks that are computed again.
    pub recomputed: u64,
    /// Of all.
    pub total: u64,
}

impl Planner {
    pub(super) fn flops(&self, options: &PlanOptions) -> StepFlops {
        let placed = &self.with_places(options);
        let [mut forward, mut backward, mut recomputed] = [0u128; 3];
        let first = self.first_block();
        for layer in &self.layers {
            // A head is behind the places of virtual tokens.
            let options = if layer.block.is_some() {
                placed
            } else {
                options
            };
            let [ahead, back] = self.layer_flops(layer, first, options);
            forward += ahead;
            backward += back;
            let again = layer
                .block
                .is_some_and(|block| block >= first && block < options.recompute);
            recomputed += if again { ahead } else { 0 };
        }
        for (index, block) in self.anatomy.blocks.iter().enumerate() {
            let product = self.attention_product(block, placed);
            forward += 2 * product;
            backward += if index >= first { 4 * product } else { 0 };
            let again = index >= first && index < options.recompute;
            recomputed += if again { 2 * product } else { 0 };
        }
        if self.has_tied_head {
            let sizes = [self.anatomy.d_model, self.anatomy.vocab_size].map(|size| size as u128);
            let product = 2 * self.learned_tokens(options) * sizes[0] * sizes[1];
            forward += product;
            backward += product * if self.trains_table() { 2 } else { 1 };
        }
        for part in &self.parts {
            // Two products of every bottleneck for every token, and the matrices of a network for every virtual token; backward the
            // gradients of both sides of each.
            let each = 2 * 2 * placed.tokens() * (self.anatomy.d_model * part.width) as u128;
            let of_block = each * part.bottlenecks as u128;
            let blocks = self.anatomy.blocks.len() as u128;
            let network = 2 * (part.virtual_tokens * part.network) as u128;
            forward += of_block * blocks + network;
            backward += 2 * (of_block * blocks + network);
            recomputed += of_block * options.recompute.min(self.anatomy.blocks.len()) as u128;
        }
        let passes = options.grad_accumulation as u128;
        let total = forward + backward + recomputed;
        let [forward, backward, recomputed, total] =
            [forward, backward, recomputed, total].map(|flops| saturated(flops * passes));
        StepFlops {
            forward,
            backward,
            recomputed,
            total,
        }
    }

    /// Forward and backward of a linear layer with its adapter.
    fn layer_flops(&self, layer: &Placed, first: usize, options: &PlanOptions) -> [u128; 2] {
        let [d_in, d_out] = layer.shape.map(|width| width as u128);
        let tokens = self.tokens_at(layer, options);
        let product = 2 * tokens * d_in * d_out;
        // Nothing below the first layers of the first block wants their input's gradient.
        let starts = layer.block == Some(first)
            && layer.place == Place::AttentionIn
            && !self.trains_embedding();
        let below = layer.block.is_some_and(|block| block < first);
        let inputs = u128::from(!starts && !below);
        let mut flops = [product, product * inputs];
        if layer.is_trained {
            flops[1] += product;
        }
        if let Some(adapter) = &layer.adapter
            && adapter.rank > 0
        {
            let rank = adapter.rank as u128;
            let (down, up) = (2 * tokens * d_in * rank, 2 * tokens * rank * d_out);
            flops[0] += down + up;
            flops[1] += down * (1 + inputs) + 2 * up;
        }
        flops
    }

    /// The head of a decoder, tied to the embedding or not, sees learned tokens only; a head for labels sees rows.
    fn tokens_at(&self, layer: &Placed, options: &PlanOptions) -> u128 {
        let tokens = options.tokens();
        if let Some(block) = layer.block {
            let BlockAnatomy { experts, top_k, .. } = self.anatomy.blocks[block];
            return match layer.is_expert {
                true => tokens * top_k as u128 / experts as u128,
                false => tokens,
            };
        }
        match layer.shape.contains(&self.anatomy.vocab_size) {
            true => self.learned_tokens(options),
            false => options.batch_size as u128,
        }
    }

    /// A row's last token is never learned from: nothing follows it.
    pub(super) fn learned_tokens(&self, options: &PlanOptions) -> u128 {
        let length = match self.anatomy.causal {
            true => options.seq_len.saturating_sub(1),
            false => options.seq_len,
        };
        (options.learned * options.batch_size as f64 * length as f64).ceil() as u128
    }

    /// One product over all heads of a block.
    fn attention_product(&self, block: &BlockAnatomy, options: &PlanOptions) -> u128 {
        let seq = options.seq_len as u128;
        let seen = match block.window {
            Some(window) if (window as u128) < seq => {
                let window = window as u128;
                match self.anatomy.causal {
                    // The first tokens see fewer.
                    true => window * (window + 1) / 2 + (seq - window) * window,
                    false => seq * window,
                }
            }
            _ if self.anatomy.causal => seq * (seq + 1) / 2,
            _ => seq * seq,
        };
        let width = (self.anatomy.n_heads * self.anatomy.d_head) as u128;
        2 * options.batch_size as u128 * seen * width * block.attentions as u128
    }

    fn trains_embedding(&self) -> bool {
        let embeddings = self
            .outline
            .base
            .iter()
            .filter(|base| base.kind == "embedding");
        let mut embeddings = embeddings.map(|base| &base.path);
        self.trains_all
            || self.parts.iter().any(|part| part.is_embedded)
            || embeddings.any(|path| {
                self.outline.saved.contains(path)
                    || self
                        .outline
                        .layers
                        .iter()
                        .any(|layer| layer.parameter == *path)
            })
    }
}
