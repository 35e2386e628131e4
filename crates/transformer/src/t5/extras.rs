//! What a T5 carries beside its own parts: virtual tokens and bottlenecks.

use burn::tensor::{Device, Tensor};

use super::{T5, T5Block};
use crate::bottleneck::{self, BlockBottlenecks};
use crate::parameters::device_of;
use crate::task::PeftTask;
use crate::virtual_tokens::{self, Front, Host, RowTokens, Sizes, TokenSlot};

impl T5 {
    /// The virtual tokens of each row: a prefix is the decoder's, embeddings are the encoder's.
    pub(super) fn row_tokens(&self, batch: usize, is_decoder: bool) -> RowTokens<'_> {
        let tokens = RowTokens::of(&self.virtual_tokens, batch);
        tokens.only(|tokens| tokens.is_prefix() == is_decoder)
    }

    pub(super) fn front(&self, tokens: &RowTokens<'_>, starts: &[usize]) -> Option<Front> {
        Front::new(tokens, self.sizes(), starts, self.dtype())
    }

    /// How many places the decoder needs in front.
    pub(super) fn places(&self) -> usize {
        let acting = self.virtual_tokens.acting().into_iter();
        let prefixes = acting.filter(|tokens| tokens.is_prefix());
        prefixes.map(|prefix| prefix.count()).max().unwrap_or(0)
    }
}

impl PeftTask for T5 {
    fn task_type(&self) -> Option<&'static str> {
        Some("SEQ_2_SEQ_LM")
    }
}

impl virtual_tokens::Host for T5 {
    fn sizes(&self) -> Sizes {
        let config = &self.config;
        Sizes {
            d_embedding: config.d_model,
            vocab_size: config.vocab_size,
            max_positions: usize::MAX,
            layers: config.num_layers,
            // PEFT has as many as the encoder has blocks; where the decoder has more, it is to be told so.
            prefix_layers: config.num_layers.max(config.num_decoder_layers),
            n_heads: config.num_heads,
            n_kv_heads: config.num_heads,
            d_head: config.d_kv,
            submodules: 2,
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
        self.shared.weight.base()
    }
}

impl bottleneck::Host for T5 {
    fn d_model(&self) -> usize {
        self.config.d_model
    }

    fn device_of_base(&self) -> Device {
        device_of(&self.shared.weight)
    }

    fn map_blocks(mut self, change: &mut dyn FnMut(BlockBottlenecks) -> BlockBottlenecks) -> Self {
        let mut change = |block: T5Block| block.map_bottlenecks(&mut *change);
        self.encoder = self
            .encoder
            .map_inner(|stack| stack.with_blocks(&mut change));
        self.decoder = self
            .decoder
            .map_inner(|stack| stack.with_blocks(&mut change));
        self
    }

    fn first_block(&self) -> Option<&BlockBottlenecks> {
        self.encoder.block.first().map(T5Block::bottlenecks)
    }
}
