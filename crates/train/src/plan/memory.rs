//! The memory of a step at its peak.

use burn::tensor::DType;
use burn_lora_transformer::{BlockAnatomy, Place};
use serde::Serialize;

use super::{PlanOptions, Planner, saturated};
use crate::device::Backend;

/// Bytes of f32, in which adapters, their gradients and their moments are.
const F32: u128 = 4;
/// Bytes of logits that CPUs hold at a time; at least this many rows of them.
const CPU_CHUNK: (u128, u128) = (8 << 20, 128);
/// The same on GPUs.
const GPU_CHUNK: (u128, u128) = (128 << 20, 1);
/// What a GPU holds beyond the tensors: the pages of CubeCL's pools that are not full, as a share of the tensors, and the context of
/// the driver with its compiled kernels, in bytes. Eight steps on one H100 were within 2% of this (docs/measurements.md).
const PAGES: f64 = 0.03;
const CONTEXT: u128 = 410 << 20;

/// Bytes at the peak of a step.
///
/// The parts are counted as if all were there at once. They nearly are: at the end of the forward everything is kept, and
/// what the backward gives back the memory pools hold for the next step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryParts {
    /// The base.
    pub weights: u64,
    /// The parameters of the adapter.
    pub adapter: u64,
    /// Their gradients.
    pub gradients: u64,
    /// What the optimizer keeps of each.
    pub optimizer: u64,
    /// What the forward keeps for the backward.
    pub activations: u64,
    /// The logits that exist at a time, with the gradients that the loss computes beside them.
    pub logits: u64,
    /// What a block needs for a moment.
    pub workspace: u64,
    /// What the pools and the driver of a GPU hold beyond the tensors.
    pub pools: u64,
    /// All of these.
    pub total: u64,
}

impl MemoryParts {
    /// The parts by name, the total left out.
    pub fn parts(&self) -> [(&'static str, u64); 8] {
        [
            ("weights", self.weights),
            ("adapter", self.adapter),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("logits", self.logits),
            ("workspace", self.workspace),
            ("pools", self.pools),
        ]
    }
}

impl Planner {
    pub(super) fn memory(&self, options: &PlanOptions) -> MemoryParts {
        let size = options.dtype.size() as u128;
        let trained = self.trained() as u128;
        let base = self.outline.base_parameters() as u128;
        // Two sets while those of one pass are added to those before.
        let sets = if options.grad_accumulation > 1 { 2 } else { 1 };
        let own = match self.trains_all {
            true => size,
            false => F32,
        };
        // AdamW's are not in f16.
        let of_moments = match options.dtype {
            DType::F16 => F32,
            _ => own,
        };
        let added = (self.outline.added() + self.beside()) as u128;
        let placed = &self.with_places(options);
        let activations = self.activations(placed);
        let (logits, workspace) = (self.logits(options), self.workspace(placed));
        let tensors = [
            base * size,
            (added + self.outline.shared_parameters as u128) * F32,
            trained * own * sets,
            trained * of_moments * options.moments as u128,
            activations,
            logits,
            workspace,
        ];
        let pools = match is_gpu(options.backend) {
            true => (PAGES * tensors.iter().sum::<u128>() as f64) as u128 + CONTEXT,
            false => 0,
        };
        let [
            base,
            added,
            gradients,
            moments,
            activations,
            logits,
            workspace,
        ] = tensors;
        let parts = [
            base,
            added,
            gradients,
            moments,
            activations,
            logits,
            workspace,
            pools,
        ];
        let total = saturated(parts.iter().sum());
        let [
            weights,
            adapter,
            gradients,
            optimizer,
            activations,
            logits,
            workspace,
            pools,
        ] = parts.map(saturated);
        MemoryParts {
            weights,
            adapter,
            gradients,
            optimizer,
            activations,
            logits,
            workspace,
            pools,
            total,
        }
    }

    /// What all blocks keep. Of one that is computed again it is its input; while that happens, it keeps what the others do.
    fn activations(&self, options: &PlanOptions) -> u128 {
        let tokens = options.tokens();
        let stream = tokens * (self.anatomy.d_model * options.dtype.size()) as u128;
        let first = self.first_block();
        let again = match self.anatomy.keeps_scores {
            // Blocks with relative positions are not computed again.
            true => 0,
            false => options.recompute.min(self.anatomy.blocks.len()),
        };
        let block = |index: usize| self.kept(index, options);
        let kept: u128 = (first.max(again)..self.anatomy.blocks.len())
            .map(block)
            .sum();
        let anew = (first..again).map(block).max().unwrap_or(0);
        let inputs = again.saturating_sub(first) as u128 * stream;
        inputs + kept.max(anew) + self.composed()
    }

    /// What one block keeps, in bytes.
    fn kept(&self, index: usize, options: &PlanOptions) -> u128 {
        let anatomy = &self.anatomy;
        let block = &anatomy.blocks[index];
        let size = options.dtype.size() as u128;
        let tokens = options.tokens();
        let d = anatomy.d_model as u128;
        let queries = (anatomy.n_heads * anatomy.d_head) as u128;
        let keys = (anatomy.n_kv_heads * anatomy.d_head) as u128;
        let inner = self.inner_width(block);

        // Norms keep what they read; attention its queries, keys, values and result, and a number for each head; the
        // activation what it reads.
        let mut numbers = anatomy.norm_inputs as u128 * d;
        let attentions = block.attentions as u128;
        numbers += attentions * (2 * queries + 2 * keys);
        if anatomy.head_norms {
            numbers += queries + keys;
        }
        numbers += inner * if block.gated { 2 } else { 1 };
        let mut bytes = numbers * size + attentions * F32 * anatomy.n_heads as u128;
        if anatomy.keeps_scores {
            let scores = (anatomy.n_heads * options.seq_len) as u128;
            bytes += attentions * 2 * F32 * scores;
        }
        // A weight that is trained, or an adapter, keeps what it reads, once for all that read the same.
        let here = || {
            self.of_blocks[index]
                .iter()
                .map(|layer| &self.layers[*layer])
        };
        let reads = |place: Place| {
            here()
                .any(|layer| layer.place == place && (layer.is_trained || layer.adapter.is_some()))
        };
        bytes += size * if reads(Place::AttentionIn) { d } else { 0 };
        bytes += size
            * if reads(Place::MlpIn) {
                d * block.top_k as u128
            } else {
                0
            };
        bytes += size * if reads(Place::MlpOut) { inner } else { 0 };
        for layer in here() {
            bytes += self.adapter_keeps(layer, block, size);
        }
        for part in &self.parts {
            // Each keeps its input, and what is before and behind its activation, in f32.
            let (each, width) = (part.bottlenecks as u128, part.width as u128);
            bytes += each * F32 * (d + 2 * width);
        }
        tokens * bytes
    }

    /// What an adapter keeps beside the input of its layer, in bytes for a token.
    fn adapter_keeps(&self, layer: &super::Placed, block: &BlockAnatomy, size: u128) -> u128 {
        let Some(adapter) = &layer.adapter else {
            return 0;
        };
        let [d_in, d_out] = layer.shape.map(|width| width as u128);
        let mut bytes = F32 * adapter.rank as u128;
        if self.dropout > 0.0 {
            // The input without what was dropped, and what was.
            bytes += 2 * F32 * d_in;
        }
        bytes += match adapter.method {
            // The product before it is scaled.
            "Dora" => 2 * F32 * d_out,
            "Ia3" => size * d_out,
            _ => 0,
        };
        match layer.is_expert {
            true => bytes * block.top_k as u128 / block.experts as u128,
            false => bytes,
        }
    }

    /// The matrices that some methods build of their parameters, whatever the batch.
    fn composed(&self) -> u128 {
        let layers = self.outline.layers.iter();
        let numbers = layers.map(|layer| {
            let matrix = (layer.shape[0] * layer.shape[1]) as u128;
            match layer.method {
                // Both products, and the product of these.
                "LoHa" => 3 * matrix,
                "LoKr" => matrix,
                _ => 0,
            }
        });
        F32 * numbers.sum::<u128>()
    }

    fn inner_width(&self, block: &BlockAnatomy) -> u128 {
        (block.d_inner * block.top_k) as u128
    }

    fn logits(&self, options: &PlanOptions) -> u128 {
        let size = options.dtype.size() as u128;
        let (vocab, d) = (
            self.anatomy.vocab_size as u128,
            self.anatomy.d_model as u128,
        );
        let learned = self.learned_tokens(options);
        let of_vocabulary = |layer: &super::Placed| layer.shape[1] as u128 == vocab;
        if !self.has_tied_head && !self.layers.iter().any(of_vocabulary) {
            return 0;
        }
        let (bytes, fewest) = match is_gpu(options.backend) {
            true => GPU_CHUNK,
            false => CPU_CHUNK,
        };
        let rows = (bytes / (size * vocab).max(1)).max(fewest).min(learned);
        let adapted = |layer: &&super::Placed| layer.block.is_none() && layer.adapter.is_some();
        // An adapted head has no one weight, so that all logits are there at once, with their gradient.
        let rows = match self.layers.iter().any(|layer| adapted(&layer)) {
            true => 3 * learned,
            false => rows,
        };
        let gradient = if self.trains_table() {
            vocab * d * F32
        } else {
            0
        };
        rows * vocab * size + learned * d * size + gradient
    }

    /// Whether the matrix of a tied head is trained.
    pub(super) fn trains_table(&self) -> bool {
        let tables = self.outline.layers.iter();
        self.trains_all
            || tables
                .filter(|layer| matches!(layer.method, "Dense" | "Tokens"))
                .any(|layer| self.anatomy.block(&layer.layer).is_none())
    }

    /// The gradients that are on their way through a block.
    fn workspace(&self, options: &PlanOptions) -> u128 {
        let tokens = options.tokens() * options.dtype.size() as u128;
        let widest = self.anatomy.blocks.iter().map(|block| {
            let inner = self.inner_width(block);
            inner * if block.gated { 2 } else { 1 }
        });
        let widest = widest.max().unwrap_or(0);
        tokens * (widest + 4 * self.anatomy.d_model as u128)
    }
}

pub(super) fn is_gpu(backend: Option<Backend>) -> bool {
    !matches!(backend, None | Some(Backend::Flex | Backend::NdArray))
}
