//! What a decoder carries beside its own parts: virtual tokens and bottlenecks.

use std::path::Path;

use burn::tensor::{Int, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};

use super::Decoder;
use super::block::Block;
use crate::bottleneck::{Bottleneck, BottleneckConfig, BottleneckError, BottleneckPlacement};
use crate::named::Named;
use crate::virtual_tokens::{
    PTuning, PrefixTuning, PromptTuning, Sizes, VirtualTokens, VirtualTokensConfig,
    VirtualTokensError,
};

/// PEFT's name of the part that holds virtual tokens.
pub(super) const PROMPT_ENCODER: &str = "prompt_encoder";

impl Decoder {
    /// Puts fresh virtual tokens in front of every sequence, in the place of those that there were. They are trainable f32 parameters
    /// under the path `prompt_encoder`; the same seed gives the same ones on every device.
    ///
    /// # Errors
    ///
    /// Every fault of the configuration.
    pub fn with_virtual_tokens(
        mut self,
        config: &VirtualTokensConfig,
        seed: u64,
    ) -> Result<Self, VirtualTokensError> {
        let faults = config.faults(self.vocab_size(), self.plan.max_positions);
        if !faults.is_empty() {
            return Err(VirtualTokensError::Config { faults });
        }
        let (sizes, device) = (self.sizes(), self.device());
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let tokens = match config {
            VirtualTokensConfig::Prompt { tokens, init } => {
                let prompt = PromptTuning::init(*tokens, init, self.embedding(), rng);
                VirtualTokens::Prompt(prompt)
            }
            VirtualTokensConfig::PTuning {
                tokens,
                encoder,
                d_hidden,
            } => {
                let shape = [*tokens, sizes.d_model, *d_hidden];
                VirtualTokens::PTuning(PTuning::init(shape, *encoder, &device, rng))
            }
            VirtualTokensConfig::Prefix { tokens, projection } => {
                let shape = [*tokens, sizes.layers, sizes.n_kv_heads * sizes.d_head];
                let prefix = PrefixTuning::init(shape, *projection, &device, rng);
                VirtualTokens::Prefix(prefix)
            }
        };
        self.virtual_tokens = Some(Named::new(PROMPT_ENCODER, tokens));
        Ok(self)
    }

    /// Puts these virtual tokens in front of every sequence, in the place of those that there were.
    ///
    /// # Errors
    ///
    /// When they are none, too many for the model's positions, or of another width than the model's.
    pub fn with_these_virtual_tokens(
        mut self,
        tokens: VirtualTokens,
    ) -> Result<Self, VirtualTokensError> {
        let faults = tokens.faults(self.sizes(), self.plan.max_positions);
        if !faults.is_empty() {
            return Err(VirtualTokensError::Config { faults });
        }
        self.virtual_tokens = Some(Named::new(PROMPT_ENCODER, tokens));
        Ok(self)
    }

    /// Takes the virtual tokens away.
    pub fn without_virtual_tokens(mut self) -> Self {
        self.virtual_tokens = None;
        self
    }

    /// Leaves the virtual tokens out of what is computed, which is then what the model computes without them, or takes them back in.
    pub fn with_virtual_tokens_enabled(mut self, enabled: bool) -> Self {
        self.virtual_tokens_enabled = enabled;
        self
    }

    /// The virtual tokens, if there are any.
    pub fn virtual_tokens(&self) -> Option<&VirtualTokens> {
        self.virtual_tokens.as_deref()
    }

    /// Writes the virtual tokens as a folder of PEFT, and returns the size of the weights in bytes. `other` are fields of a
    /// configuration that was read, to be written back.
    ///
    /// # Errors
    ///
    /// Without virtual tokens, when a number of theirs is not finite, and those of the system.
    pub fn save_virtual_tokens(
        &self,
        dir: &Path,
        base_model: Option<&str>,
        other: &Map<String, Value>,
    ) -> Result<u64, VirtualTokensError> {
        match self.virtual_tokens() {
            Some(tokens) => tokens.save(dir, self.sizes(), base_model, other),
            None => Err(VirtualTokensError::Config {
                faults: vec!["the model has none to save".to_string()],
            }),
        }
    }

    /// Reads virtual tokens from a folder of PEFT (`PROMPT_TUNING`, `P_TUNING`, `PREFIX_TUNING`), in the place of those that there
    /// were, and returns the fields of its configuration. What made them in training is in no folder.
    ///
    /// # Errors
    ///
    /// Every fault of the configuration, or every one of the tensors.
    pub fn load_virtual_tokens(
        self,
        dir: &Path,
    ) -> Result<(Self, Map<String, Value>), VirtualTokensError> {
        let (tokens, config) = VirtualTokens::load(dir, self.sizes(), &self.device())?;
        Ok((self.with_these_virtual_tokens(tokens)?, config))
    }

    fn sizes(&self) -> Sizes {
        let attention = &self.plan.attention;
        Sizes {
            d_model: self.plan.d_model,
            layers: self.plan.layers.len(),
            n_heads: attention.n_heads,
            n_kv_heads: attention.n_kv_heads,
            d_head: attention.d_head,
        }
    }

    /// The virtual tokens that are computed with.
    pub(super) fn active_virtual_tokens(&self) -> Option<&VirtualTokens> {
        self.virtual_tokens()
            .filter(|_| self.virtual_tokens_enabled)
    }

    /// How many they are.
    pub(super) fn virtual_count(&self) -> usize {
        self.active_virtual_tokens().map_or(0, VirtualTokens::count)
    }

    /// Tokens with places in front for virtual ones.
    pub(super) fn with_places(ids: Tensor<2, Int>, count: usize) -> Tensor<2, Int> {
        if count == 0 {
            return ids;
        }
        let places = Tensor::zeros([ids.dims()[0], count], &ids.device());
        Tensor::cat(vec![places, ids], 1)
    }

    /// Puts fresh bottlenecks into every block, in the place of those that there were: trainable f32 parameters beside a model that
    /// stays as it is. Fresh ones change nothing.
    ///
    /// # Errors
    ///
    /// Every fault of the configuration.
    pub fn with_bottlenecks(
        self,
        config: &BottleneckConfig,
        seed: u64,
    ) -> Result<Self, BottleneckError> {
        config.check(self.plan.d_model)?;
        let (d_model, device) = (self.plan.d_model, self.device());
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        Ok(self.with_blocks(|block| {
            let mut fresh = || Bottleneck::init(d_model, config, &device, rng);
            block.with_bottlenecks(config.placement, &mut fresh)
        }))
    }

    /// Takes the bottlenecks away.
    pub fn without_bottlenecks(self) -> Self {
        self.with_blocks(Block::without_bottlenecks)
    }

    /// Where the bottlenecks are, if there are any.
    pub fn bottlenecks(&self) -> Option<BottleneckPlacement> {
        self.trunk.blocks.first().and_then(Block::bottlenecks)
    }

    fn with_blocks(mut self, change: impl FnMut(Block) -> Block) -> Self {
        self.trunk = self.trunk.map_inner(|trunk| trunk.with_blocks(change));
        self
    }
}
