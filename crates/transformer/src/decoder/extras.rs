//! What a decoder carries beside its own parts: virtual tokens and bottlenecks.

use burn::tensor::{Device, Tensor};

use super::{Decoder, DecoderClassifier};
use crate::bottleneck::{self, BlockBottlenecks};
use crate::parameters::device_of;
use crate::task::PeftTask;
use crate::virtual_tokens::{self, Sizes, TokenSlot};

impl PeftTask for Decoder {
    fn task_type(&self) -> Option<&'static str> {
        Some("CAUSAL_LM")
    }
}

impl virtual_tokens::Host for Decoder {
    fn sizes(&self) -> Sizes {
        let (plan, attention) = (&self.plan, &self.plan.attention);
        Sizes {
            d_embedding: plan.d_model,
            vocab_size: plan.vocab_size,
            max_positions: plan.max_positions,
            layers: plan.layers.len(),
            prefix_layers: plan.layers.len(),
            n_heads: attention.n_heads,
            n_kv_heads: attention.n_kv_heads,
            d_head: attention.d_head,
            submodules: 1,
        }
    }

    fn slot(&self) -> &TokenSlot {
        &self.virtual_tokens
    }

    fn map_slot(mut self, change: impl FnOnce(TokenSlot) -> TokenSlot) -> Self {
        self.virtual_tokens = change(self.virtual_tokens);
        self
    }

    fn words(&self) -> Tensor<2> {
        self.embedding()
    }
}

impl bottleneck::Host for Decoder {
    fn d_model(&self) -> usize {
        self.plan.d_model
    }

    fn device_of_base(&self) -> Device {
        device_of(&self.trunk.tokens.weight)
    }

    fn map_blocks(mut self, change: &mut dyn FnMut(BlockBottlenecks) -> BlockBottlenecks) -> Self {
        let change = |block: super::block::Block| block.map_bottlenecks(&mut *change);
        self.trunk = self.trunk.map_inner(|trunk| trunk.with_blocks(change));
        self
    }

    fn first_block(&self) -> Option<&BlockBottlenecks> {
        self.trunk.blocks.first().map(|block| block.bottlenecks())
    }
}

impl PeftTask for DecoderClassifier {
    fn task_type(&self) -> Option<&'static str> {
        Some("SEQ_CLS")
    }
}

impl virtual_tokens::Host for DecoderClassifier {
    fn sizes(&self) -> Sizes {
        self.decoder.sizes()
    }

    fn slot(&self) -> &TokenSlot {
        self.decoder.slot()
    }

    fn map_slot(self, change: impl FnOnce(TokenSlot) -> TokenSlot) -> Self {
        self.map_decoder(|decoder| decoder.map_slot(change))
    }

    fn words(&self) -> Tensor<2> {
        self.decoder.words()
    }
}

impl bottleneck::Host for DecoderClassifier {
    fn d_model(&self) -> usize {
        self.decoder.d_model()
    }

    fn device_of_base(&self) -> Device {
        self.decoder.device_of_base()
    }

    fn map_blocks(self, change: &mut dyn FnMut(BlockBottlenecks) -> BlockBottlenecks) -> Self {
        self.map_decoder(|decoder| decoder.map_blocks(change))
    }

    fn first_block(&self) -> Option<&BlockBottlenecks> {
        self.decoder.first_block()
    }
}
