use std::path::Path;
use std::sync::Arc;

use burn::nn::{Embedding, Linear};
use burn::tensor::{DType, Device, Int, Tensor};
use burn_lora_adapter::{AdapterStack, project, shared_table};
use burn_lora_kernels::projection;

use crate::cache::KvCache;
use crate::checkpoint::Checkpoint;
use crate::config::DecoderConfig;
use crate::error::{ConfigError, LoadError, TooLong};
use crate::load::{LoadOptions, LoadReport};
use crate::positions::{Padding, Positions};
use crate::recompute::Recomputation;
use crate::verify::verify;
use crate::virtual_tokens::{Front, Host, RowTokens, TokenSlot, behind, padding_with, with_places};
use crate::weights::{Key, Weights};

use crate::named::{Named, unnamed_module};
pub use classifier::DecoderClassifier;
use plan::{LinearForm, Plan};
use scope::Scope;
use trunk::Trunk;

mod attention;
mod block;
mod classifier;
mod experts;
mod extras;
mod loss;
mod mlp;
pub(crate) mod names;
pub(crate) mod norm;
pub(crate) mod plan;
pub(crate) mod scope;
pub(crate) mod trunk;

/// A causal language model of any of the families of [`DecoderConfig`].
///
/// A [`burn::module::Module`] in which the paths of the parameters are the names in the family's checkpoints.
#[derive(Debug, Clone)]
pub struct Decoder {
    pub(crate) trunk: Named<Trunk>,
    /// The head, unless it is the transposed embedding.
    head: Option<Named<Linear>>,
    virtual_tokens: TokenSlot,
    config: DecoderConfig,
    plan: Arc<Plan>,
    /// How many blocks keep only their inputs for the backward.
    recompute: usize,
}

unnamed_module!(Decoder { trunk, head, virtual_tokens } with { config, plan, recompute });

impl Decoder {
    /// Loads a Hugging Face folder: `config.json`, and `model.safetensors` or the shards that
    /// `model.safetensors.index.json` names, or PyTorch's `pytorch_model.bin` or its shards.
    ///
    /// The files are compared with the configuration as a whole, and then read, converted and moved to the device one
    /// tensor at a time: neither the host nor the device ever holds the weights twice, nor in another dtype, but for the
    /// layers of one block that a GPU gets side by side
    /// ([`side_by_side`](burn_lora_kernels::side_by_side)).
    ///
    /// # Errors
    ///
    /// Everything that is missing, unexpected, mis-shaped or not a float, in one error, before any tensor is read; and
    /// then every tensor with a number that is not finite, unless the options allow it. A copy of the embedding stored
    /// as the head of a tied model, and masks and frequencies that older libraries stored, are passed over; so is a
    /// prefix (`model.`, `transformer.`) that is left out throughout.
    pub fn load(dir: &Path, options: &LoadOptions) -> Result<Self, LoadError> {
        Self::load_reported(dir, options).map(|(decoder, _)| decoder)
    }

    /// As [`Self::load`], and what was done beside.
    pub fn load_reported(
        dir: &Path,
        options: &LoadOptions,
    ) -> Result<(Self, LoadReport), LoadError> {
        let mut config = DecoderConfig::read(dir)?;
        options.check()?;
        let checkpoint = Checkpoint::open(dir)?;
        checkpoint.check_layers(dir, config.plan().n_inner_layers())?;
        let keys = Self::keys(&config, &options.device);
        let leniency = config.plan().leniency();
        let found =
            verify(&checkpoint, &keys, &leniency).map_err(|mismatch| LoadError::Mismatch {
                dir: dir.into(),
                mismatch,
            })?;
        if let Some(tokens) = options.larger_vocabulary(dir, config.vocab_size())? {
            config.set_vocab_size(tokens);
        }
        let std = config.plan().initializer_range;
        let mut weights = Weights::read(&checkpoint, found.entries, options, std);
        let decoder = Self::build(&config, &mut weights);
        Ok((decoder, weights.finish()?))
    }

    /// A decoder with fresh f32 weights: matrices normally distributed with the configuration's `initializer_range`,
    /// norms 1, biases 0. The same seed gives the same weights on every device.
    pub fn init(
        config: impl Into<DecoderConfig>,
        device: &Device,
        seed: u64,
    ) -> Result<Self, ConfigError> {
        let config = config.into();
        config.check()?;
        let mut weights = Weights::draw(config.plan().initializer_range, seed, device);
        Ok(Self::build(&config, &mut weights))
    }

    pub(crate) fn build(config: &DecoderConfig, weights: &mut Weights<'_>) -> Self {
        let mut decoder = Self::build_without_head(config, weights);
        let (names, d) = (decoder.plan.names, decoder.plan.d_model);
        let d = [d, decoder.plan.vocab_size];
        let mut scope = Scope::root(weights, LinearForm::Linear);
        let is_untied = !decoder.plan.tied;
        decoder.head = is_untied.then(|| scope.linear(names.head, d, false));
        decoder
    }

    /// What has a head of another kind, or none.
    fn build_without_head(config: &DecoderConfig, weights: &mut Weights<'_>) -> Self {
        let plan = Arc::new(config.plan());
        let mut scope = Scope::root(weights, plan.linear);
        let trunk = scope.part(plan.names.trunk(), |mut scope| {
            Trunk::build(&plan, &mut scope)
        });
        Self {
            trunk,
            head: None,
            virtual_tokens: TokenSlot::default(),
            config: config.clone(),
            plan,
            recompute: 0,
        }
    }

    /// Of the first blocks, this many, the forward keeps only what goes into them, and the backward computes them again:
    /// PyTorch's and PEFT's "gradient checkpointing". None at first; `usize::MAX` stands for all.
    ///
    /// Losses and gradients are the same to the last bit, but for the order of sums in the gradient of what a block uses twice. With all blocks training needs the least memory and takes some
    /// 40% longer, with a part of them the same part of both. Devices that
    /// [`can_recompute`](burn_lora_kernels::can_recompute) does not know keep everything.
    pub fn with_recompute(mut self, blocks: usize) -> Self {
        self.recompute = blocks;
        self
    }

    /// The parameters that a model of this configuration has, in the order of the model.
    pub(crate) fn keys(config: &DecoderConfig, device: &Device) -> Vec<Key> {
        let mut weights = Weights::declare(device);
        Self::build(config, &mut weights);
        weights.into_keys()
    }

    /// The configuration.
    pub fn config(&self) -> DecoderConfig {
        self.config.clone()
    }

    /// The number of tokens that the embedding holds.
    pub fn vocab_size(&self) -> usize {
        self.plan.vocab_size
    }

    /// The longest sequence, in tokens: what virtual ones leave of the positions.
    pub fn max_positions(&self) -> usize {
        self.plan.max_positions - self.virtual_tokens.count()
    }

    /// The dtype of the weights and of the activations.
    pub fn dtype(&self) -> DType {
        self.embedding().dtype()
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.embedding().device()
    }

    fn embedding(&self) -> Tensor<2> {
        self.trunk.tokens.weight.base()
    }

    /// Whether rows may hold several documents ([`Self::hidden_packed`]): not behind virtual tokens, which have no place in front of each.
    pub fn can_pack(&self) -> bool {
        self.virtual_tokens.acting().is_empty()
    }

    /// Whether the model has a position for each token of a sequence this long. To be asked before any work.
    pub fn check_length(&self, length: usize) -> Result<(), TooLong> {
        let limit = self.max_positions();
        match length <= limit {
            true => Ok(()),
            false => Err(TooLong { length, limit }),
        }
    }

    /// The hidden states after the last norm.
    ///
    /// Rows that are shorter than the batch may be padded behind with any token, without `padding`; see [`Padding`].
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`
    /// - output: `[batch, seq, hidden]`
    ///
    /// # Panics
    ///
    /// If `seq` exceeds [`Self::max_positions`]; see [`Self::check_length`].
    pub fn hidden(&self, ids: Tensor<2, Int>, padding: Option<&Padding>) -> Tensor<3> {
        self.forward(ids, padding, None)
    }

    /// The hidden states of rows that hold several documents, one after the other: each is as it would be in a row of its
    /// own. `documents` are the lengths of each row's; what is behind the last is padding.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`
    /// - output: `[batch, seq, hidden]`
    ///
    /// # Panics
    ///
    /// If the documents of a row are longer than `seq`, or `seq` exceeds [`Self::max_positions`], or virtual tokens act, which
    /// have no place in front of each document.
    pub fn hidden_packed(&self, ids: Tensor<2, Int>, documents: &[Vec<usize>]) -> Tensor<3> {
        let [_, seq] = ids.dims();
        assert!(
            self.can_pack(),
            "virtual tokens have no place in front of each document of a row"
        );
        assert!(
            documents.iter().all(|row| row.iter().sum::<usize>() <= seq),
            "the documents of a row are longer than the row"
        );
        let none = RowTokens::of(&self.virtual_tokens, ids.dims()[0]);
        self.forward_at(ids, &Positions::packed(seq, documents), None, (&none, 0))
    }

    /// Adds uniform noise of at most `alpha / sqrt(seq d_model)` to the embeddings of tokens, in training only (NEFTune,
    /// arXiv:2310.05914); `None` adds none.
    pub fn with_embedding_noise(self, alpha: Option<f64>) -> Self {
        Self {
            trunk: self.trunk.map_inner(|trunk| trunk.with_noise(alpha)),
            ..self
        }
    }

    /// The hidden states of tokens that follow those in the cache, which then holds both.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`
    /// - output: `[batch, seq, hidden]`
    ///
    /// # Panics
    ///
    /// If cache and `seq` together exceed [`Self::max_positions`] or the capacity of the cache.
    pub fn hidden_cached(
        &self,
        ids: Tensor<2, Int>,
        padding: Option<&Padding>,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        self.forward(ids, padding, Some(cache))
    }

    /// An empty cache for sequences of up to `capacity` tokens.
    ///
    /// Where the rotary frequencies depend on the length of a sequence (`dynamic`, `longrope`), they are those of one
    /// of `capacity` tokens from the first token on: keys that are in the cache already could not follow a change.
    pub fn new_cache(&self, capacity: usize) -> KvCache {
        KvCache::new(
            self.plan.layers.len(),
            capacity + self.virtual_tokens.count(),
        )
    }

    fn forward(
        &self,
        ids: Tensor<2, Int>,
        padding: Option<&Padding>,
        mut cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let [batch, seq] = ids.dims();
        let start = cache.as_deref().map_or(0, KvCache::len);
        let tokens = RowTokens::of(&self.virtual_tokens, batch);
        let free = match cache.as_deref_mut() {
            Some(cache) => cache.free(tokens.free()),
            None => tokens.free(),
        };
        let padding = padding_with(free, padding);
        // Those of a cache that has begun are in it.
        let places = if start == 0 { tokens.longest() } else { 0 };
        let positions = Positions::new(start, places + seq, padding.as_ref());
        self.forward_at(ids, &positions, cache, (&tokens, places))
    }

    /// `positions` are those of the virtual tokens, too, for which every row has so many places in front.
    fn forward_at(
        &self,
        ids: Tensor<2, Int>,
        positions: &Positions<'_>,
        mut cache: Option<&mut KvCache>,
        (tokens, places): (&RowTokens<'_>, usize),
    ) -> Tensor<3> {
        let [batch, written] = ids.dims();
        let ids = with_places(ids, &[places]);
        let seq = places + written;
        let capacity = cache.as_deref().map_or(usize::MAX, KvCache::capacity);
        let limit = self.plan.max_positions.min(capacity);
        assert!(
            positions.end() <= limit,
            "{} tokens do not fit {limit} positions",
            positions.end()
        );
        assert!(
            matches!(positions.rows(), rows if rows == 1 || rows == batch),
            "padding for {} rows, but the batch has {batch}",
            positions.rows()
        );
        // A cache is for generation, which has no backward.
        let mut recompute = if cache.is_none() { self.recompute } else { 0 };
        let front = match places {
            0 => None,
            _ => Front::new(tokens, self.sizes(), positions.left(), self.dtype()),
        };
        if front.as_ref().is_some_and(Front::has_prefix) {
            // A block that is computed again tells of its input and its parameters only; a prefix is neither.
            recompute = 0;
        }
        let blocks = Recomputation::new(recompute, &self.trunk, &ids.device());
        let hidden = self.trunk.hidden(
            ids,
            positions,
            front.as_ref(),
            &blocks,
            cache.as_deref_mut(),
        );
        if let Some(cache) = cache {
            cache.advance(seq);
        }
        behind(hidden, &[places], written)
    }

    /// The logits of hidden states, in the dtype of the model.
    ///
    /// Of a batch, only the positions that are needed should come here: logits are `vocab / hidden` times as large as
    /// the states they are made of.
    ///
    /// # Shapes
    ///
    /// - hidden: `[..., hidden]`
    /// - output: `[..., vocab]`
    pub fn logits_of<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        let logits = match &self.head {
            Some(head) => project(head, hidden),
            None => tied_head(&self.trunk.tokens, hidden),
        };
        match self.plan.logit_softcap {
            Some(cap) => (logits / cap).tanh() * cap,
            None => logits,
        }
    }

    /// The logits of every token of a batch without padding in front.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`
    /// - output: `[batch, seq, vocab]`
    pub fn logits(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.logits_of(self.hidden(ids, None))
    }
}

/// The head that is the transposed embedding: a view, never a copy. It sees what was made of the embedding's own rows, and no
/// adapter that stands beside the embedding.
pub(crate) fn tied_head<const D: usize>(embedding: &Embedding, hidden: Tensor<D>) -> Tensor<D> {
    projection(hidden, shared_table(embedding).transpose(), None, None)
}

fn is_plain(head: &Linear) -> bool {
    head.bias.is_none() && head.weight.reparameterization::<AdapterStack>().is_none()
}
