//! Models that virtual tokens can stand in front of.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Tensor;
use burn_lora_adapter::DEFAULT_NAME;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};

use super::slot::{NamedTokens, TokenSlot};
use super::{
    PTuning, PrefixTuning, PromptTuning, VirtualTokens, VirtualTokensConfig, VirtualTokensError,
};
use crate::slot::check_word;
use crate::task::PeftTask;

/// What of a model its virtual tokens depend on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sizes {
    /// The width of the embedding of tokens.
    pub(crate) d_embedding: usize,
    pub(crate) vocab_size: usize,
    pub(crate) max_positions: usize,
    /// Blocks, those of the encoder where there are two kinds.
    pub(crate) layers: usize,
    /// Blocks that a prefix has keys and values for.
    pub(crate) prefix_layers: usize,
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) d_head: usize,
    /// PEFT's `num_transformer_submodules`: 2 of an encoder with a decoder.
    ///
    /// PEFT lays a prefix out twice then, one after the other, and deals it to the blocks with keys and values for two attentions each, of
    /// which the one to the encoder drops its own. So block `i` has what stands at place `2 i` of `layers`, counted round.
    pub(crate) submodules: usize,
}

impl Sizes {
    /// The width of a layer's keys.
    pub(crate) fn kv(&self) -> usize {
        self.n_kv_heads * self.d_head
    }

    /// How many numbers a virtual token is.
    pub(crate) fn columns(&self, is_prefix: bool) -> usize {
        match is_prefix {
            true => self.prefix_layers * 2 * self.kv(),
            false => self.d_embedding,
        }
    }
}

/// A model with a place for virtual tokens.
pub trait Host: Module + PeftTask {
    /// What they depend on.
    fn sizes(&self) -> Sizes;

    /// Their place.
    fn slot(&self) -> &TokenSlot;

    /// Changes what is in it.
    fn map_slot(self, change: impl FnOnce(TokenSlot) -> TokenSlot) -> Self;

    /// The embedding of tokens as it is stored, `[vocab, d_embedding]`.
    fn words(&self) -> Tensor<2>;
}

/// Prompt tuning, P-tuning and prefix tuning, in every model of this crate: what is trained stands in front of each sequence, and the
/// model stays as it is.
///
/// Hidden states and logits are those of the real tokens only. What pools a sequence pools the embeddings of virtual tokens with the
/// others, and takes one of these where it takes the first; a [prefix](VirtualTokensConfig::Prefix) it does not see. An encoder with a
/// decoder has embeddings in front of what the encoder reads, and a prefix in front of what the decoder writes. Both as in PEFT.
///
/// A model holds several under different names, of which one acts: [`Self::add_virtual_tokens`] and what follows it; or one for each row
/// of a batch ([`WithRows`](crate::WithRows)). Those that are given no name are [`DEFAULT_NAME`]'s.
pub trait WithVirtualTokens: Host {
    /// Puts fresh virtual tokens in front of every sequence, in the place of those of [`DEFAULT_NAME`]. They are trainable f32 parameters
    /// under the path `prompt_encoder.NAME`; the same seed gives the same ones on every device.
    ///
    /// # Errors
    ///
    /// Every fault of the configuration.
    fn with_virtual_tokens(
        self,
        config: &VirtualTokensConfig,
        seed: u64,
    ) -> Result<Self, VirtualTokensError> {
        let tokens = fresh(&self, config, seed)?;
        Ok(put(self, DEFAULT_NAME, tokens))
    }

    /// Puts these virtual tokens in front of every sequence, in the place of those of [`DEFAULT_NAME`].
    ///
    /// # Errors
    ///
    /// When they are none, too many for the model's positions, or of another width than the model's.
    fn with_these_virtual_tokens(self, tokens: VirtualTokens) -> Result<Self, VirtualTokensError> {
        put_these(self, DEFAULT_NAME, tokens)
    }

    /// Adds fresh virtual tokens under a name, which act from now on in the place of those that did.
    ///
    /// # Errors
    ///
    /// Every fault of the configuration, a name that is taken, and one that is empty or has a dot.
    fn add_virtual_tokens(
        self,
        name: &str,
        config: &VirtualTokensConfig,
        seed: u64,
    ) -> Result<Self, VirtualTokensError> {
        self.slot().check_new(name).map_err(refused)?;
        let tokens = fresh(&self, config, seed)?;
        Ok(put(self, name, tokens))
    }

    /// The names of all virtual tokens, in the order in which they came.
    fn virtual_token_names(&self) -> Vec<&str> {
        self.slot().names()
    }

    /// Lets others act. Switching back reproduces.
    ///
    /// # Errors
    ///
    /// A name that there is not.
    fn activate_virtual_tokens(self, name: &str) -> Result<Self, VirtualTokensError> {
        self.slot().known(name).map_err(refused)?;
        Ok(self.map_slot(|slot| slot.activate(name)))
    }

    /// Gives virtual tokens another name.
    ///
    /// # Errors
    ///
    /// A name that there is not, and a new one that is taken, is empty or has a dot.
    fn rename_virtual_tokens(self, from: &str, to: &str) -> Result<Self, VirtualTokensError> {
        self.slot().known(from).map_err(refused)?;
        self.slot().check_new(to).map_err(refused)?;
        Ok(self.map_slot(|slot| slot.rename(from, to)))
    }

    /// Takes virtual tokens away. Where they acted, none do.
    ///
    /// # Errors
    ///
    /// A name that there is not.
    fn delete_virtual_tokens(self, name: &str) -> Result<Self, VirtualTokensError> {
        self.slot().known(name).map_err(refused)?;
        Ok(self.map_slot(|slot| slot.delete(name)))
    }

    /// Takes all virtual tokens away.
    fn without_virtual_tokens(self) -> Self {
        self.map_slot(|slot| slot.emptied())
    }

    /// Leaves the virtual tokens out of what is computed, which is then what the model computes without them, or takes them back in.
    fn with_virtual_tokens_enabled(self, enabled: bool) -> Self {
        self.map_slot(|slot| slot.enabled(enabled))
    }

    /// The virtual tokens that act, or would if they were enabled, if there are any.
    fn virtual_tokens(&self) -> Option<&VirtualTokens> {
        self.slot().chosen().map(|tokens| &**tokens)
    }

    /// Writes the virtual tokens that act as a folder of PEFT, and returns the size of the weights in bytes. Beside them is the head of a model
    /// that classifies, which PEFT trains with them. `other` are fields of a configuration that was read, to be written back.
    ///
    /// # Errors
    ///
    /// Without virtual tokens, when a number is not finite, and those of the system.
    fn save_virtual_tokens(
        &self,
        dir: &Path,
        base_model: Option<&str>,
        other: &Map<String, Value>,
    ) -> Result<u64, VirtualTokensError> {
        let tokens = self.virtual_tokens();
        let tokens = tokens.ok_or_else(|| refused("the model has none to save".to_string()))?;
        super::files::save(self, tokens, dir, base_model, other)
    }

    /// As [`Self::save_virtual_tokens`], of those of a name, whichever act.
    ///
    /// # Errors
    ///
    /// A name that there is not, and those of [`Self::save_virtual_tokens`].
    fn save_named_virtual_tokens(
        &self,
        name: &str,
        dir: &Path,
        base_model: Option<&str>,
        other: &Map<String, Value>,
    ) -> Result<u64, VirtualTokensError> {
        let tokens = self.slot().known(name).map_err(refused)?;
        super::files::save(self, tokens, dir, base_model, other)
    }

    /// Reads virtual tokens from a folder of PEFT (`PROMPT_TUNING`, `P_TUNING`, `PREFIX_TUNING`), in the place of those of
    /// [`DEFAULT_NAME`], and returns the fields of its configuration. What made them in training is in no folder. The head that a folder of a
    /// model that classifies holds takes the place of the model's.
    ///
    /// # Errors
    ///
    /// Every fault of the configuration, or every one of the tensors.
    fn load_virtual_tokens(
        self,
        dir: &Path,
    ) -> Result<(Self, Map<String, Value>), VirtualTokensError> {
        super::files::load(self, DEFAULT_NAME, dir)
    }

    /// As [`Self::load_virtual_tokens`], under a name, in the place of those of that name.
    ///
    /// # Errors
    ///
    /// A name that is empty or has a dot, and those of [`Self::load_virtual_tokens`].
    fn load_named_virtual_tokens(
        self,
        name: &str,
        dir: &Path,
    ) -> Result<(Self, Map<String, Value>), VirtualTokensError> {
        check_word(name).map_err(refused)?;
        super::files::load(self, name, dir)
    }
}

impl<M: Host> WithVirtualTokens for M {}

fn refused(fault: String) -> VirtualTokensError {
    let faults = vec![fault];
    VirtualTokensError::Config { faults }
}

fn put<M: Host>(model: M, name: &str, tokens: VirtualTokens) -> M {
    model.map_slot(|slot| slot.with(NamedTokens::under(name, tokens)))
}

/// Refuses those that cannot stand in front of this model's tokens.
pub(super) fn put_these<M: Host>(
    model: M,
    name: &str,
    tokens: VirtualTokens,
) -> Result<M, VirtualTokensError> {
    let faults = tokens.faults(model.sizes());
    match faults.is_empty() {
        true => Ok(put(model, name, tokens)),
        false => Err(VirtualTokensError::Config { faults }),
    }
}

fn fresh<M: Host>(
    model: &M,
    config: &VirtualTokensConfig,
    seed: u64,
) -> Result<VirtualTokens, VirtualTokensError> {
    let sizes = model.sizes();
    let faults = config.faults(sizes.vocab_size, sizes.max_positions);
    if !faults.is_empty() {
        return Err(VirtualTokensError::Config { faults });
    }
    let (words, rng) = (model.words(), &mut ChaCha8Rng::seed_from_u64(seed));
    let device = words.device();
    Ok(match config {
        VirtualTokensConfig::Prompt { tokens, init } => {
            VirtualTokens::Prompt(PromptTuning::init(*tokens, init, words, rng))
        }
        VirtualTokensConfig::PTuning {
            tokens,
            encoder,
            d_hidden,
        } => {
            let shape = [*tokens, sizes.d_embedding, *d_hidden];
            VirtualTokens::PTuning(PTuning::init(shape, *encoder, &device, rng))
        }
        VirtualTokensConfig::Prefix { tokens, projection } => {
            let shape = [*tokens, sizes.prefix_layers, sizes.kv()];
            let prefix = PrefixTuning::init(shape, *projection, &device, rng);
            VirtualTokens::Prefix(prefix)
        }
    })
}
