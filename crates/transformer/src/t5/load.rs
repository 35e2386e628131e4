use std::path::Path;

use burn::tensor::{DType, Device};

use super::{T5, T5Config};
use crate::checkpoint::Checkpoint;
use crate::config::note_dtype;
use crate::error::{ConfigError, LoadError, SaveError};
use crate::load::{LoadOptions, LoadReport};
use crate::save::{dtype_name, write};
use crate::verify::{Leniency, verify};
use crate::weights::{Key, Weights};

const SHARED: &str = "shared.weight";
const HEAD: &str = "lm_head.weight";

impl T5 {
    /// Loads a Hugging Face folder as [`Decoder::load`](crate::Decoder::load) does.
    ///
    /// Copies of the embedding under the names of encoder, decoder and head are passed over. A head that is no copy is the
    /// model's, whatever `tie_word_embeddings` says: Transformers 5 always writes that it is tied.
    ///
    /// # Errors
    ///
    /// Everything that is missing, unexpected, mis-shaped or not a float, in one error, before any tensor is read.
    pub fn load(dir: &Path, options: &LoadOptions) -> Result<Self, LoadError> {
        Self::load_reported(dir, options).map(|(model, _)| model)
    }

    /// As [`Self::load`], and what was done beside.
    pub fn load_reported(
        dir: &Path,
        options: &LoadOptions,
    ) -> Result<(Self, LoadReport), LoadError> {
        let mut config = T5Config::read(dir)?;
        options.check()?;
        let checkpoint = Checkpoint::open(dir)?;
        let blocks = config.num_layers + config.num_decoder_layers;
        checkpoint.check_layers(dir, blocks)?;
        if has_own_head(&checkpoint)? {
            config.tie_word_embeddings = false;
        }
        let keys = Self::keys(&config, &options.device);
        let found =
            verify(&checkpoint, &keys, &leniency()).map_err(|mismatch| LoadError::Mismatch {
                dir: dir.into(),
                mismatch,
            })?;
        if let Some(tokens) = options.larger_vocabulary(dir, config.vocab_size)? {
            config.vocab_size = tokens;
        }
        let std = config.initializer_factor;
        let mut weights = Weights::read(&checkpoint, found.entries, options, std);
        let model = Self::build(&config, &mut weights);
        Ok((model, weights.finish()?))
    }

    /// A model with fresh f32 weights, spread as the authors did. The same seed gives the same weights on every device.
    pub fn init(config: T5Config, device: &Device, seed: u64) -> Result<Self, ConfigError> {
        config.check()?;
        let mut weights = Weights::draw(config.initializer_factor, seed, device);
        Ok(Self::build(&config, &mut weights))
    }

    pub(crate) fn keys(config: &T5Config, device: &Device) -> Vec<Key> {
        let mut weights = Weights::declare(device);
        Self::build(config, &mut weights);
        weights.into_keys()
    }

    /// Writes `config.json` and `model.safetensors` to a folder, as [`Decoder::save`](crate::Decoder::save) does.
    ///
    /// # Errors
    ///
    /// Among others, when adapters are attached: merge them, or save them as an adapter.
    pub fn save(&self, dir: &Path, dtype: DType) -> Result<(), SaveError> {
        let mut config = self.config().clone();
        note_dtype(&mut config.extra, dtype_name(dtype));
        let keys = Self::keys(&config, &self.device());
        write(self, keys, &config.to_json(), dir, dtype)
    }
}

pub(crate) fn leniency() -> Leniency {
    let copies = [
        "encoder.embed_tokens.weight",
        "decoder.embed_tokens.weight",
        HEAD,
    ];
    Leniency {
        // Of checkpoints made before the first release of the library.
        harmless: &["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"],
        copies: copies.map(|copy| (copy.into(), SHARED.into())).into(),
        ..Leniency::default()
    }
}

pub(crate) fn has_own_head(checkpoint: &Checkpoint) -> Result<bool, LoadError> {
    let entry = |name: &str| checkpoint.entries.get(name);
    let (Some(head), Some(shared)) = (entry(HEAD), entry(SHARED)) else {
        return Ok(false);
    };
    if head.shape != shared.shape || head.dtype != shared.dtype {
        return Ok(true);
    }
    Ok(checkpoint.read(head)? != checkpoint.read(shared)?)
}
