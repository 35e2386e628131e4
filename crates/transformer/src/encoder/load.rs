//! From folders to encoders and back.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, Device};

use super::Encoder;
use super::families::EncoderConfig;
use super::spec::{HeadSpec, Task};
use crate::checkpoint::Checkpoint;
use crate::error::{ConfigError, LoadError, SaveError};
use crate::load::{LoadOptions, LoadReport};
use crate::save::write;
use crate::verify::{Leniency, verify};
use crate::weights::{Key, Weights};

/// How a model that may want a head is made from a folder.
#[derive(Debug, Clone)]
pub struct FolderOptions {
    /// Where the weights go, and their dtype.
    pub load: LoadOptions,
    /// The labels of a head, where the folder holds an encoder without one or its configuration does not say.
    pub num_labels: Option<usize>,
    /// Seeds what the folder does not hold.
    pub seed: u64,
}

impl FolderOptions {
    /// Weights in f32, the labels of the configuration, and seed 0.
    pub fn new(device: Device) -> Self {
        Self {
            load: LoadOptions::new(DType::F32, device),
            num_labels: None,
            seed: 0,
        }
    }
}

/// Something with an encoder in it: what it is built of, and what a checkpoint may do differently.
pub(crate) trait FromCheckpoint: Module {
    fn build(config: &EncoderConfig, weights: &mut Weights<'_>) -> Self;

    /// What the configuration must allow beside making sense.
    fn check(config: &EncoderConfig) -> Result<(), ConfigError>;

    /// The head, if there is one.
    fn head(config: &EncoderConfig) -> Option<HeadSpec>;

    /// What it is for, if it has a head.
    fn task() -> Option<Task>;

    /// The encoder inside.
    fn encoder(&self) -> &Encoder;

    fn keys(config: &EncoderConfig, device: &Device) -> Vec<Key> {
        let mut weights = Weights::declare(device);
        Self::build(config, &mut weights);
        weights.into_keys()
    }

    /// The model, the parameters that start fresh, and what was done beside.
    fn load(
        dir: &Path,
        options: &FolderOptions,
    ) -> Result<(Self, Vec<String>, LoadReport), LoadError> {
        let mut config = EncoderConfig::read(dir)?;
        if let Some(num_labels) = options.num_labels {
            config.set_num_labels(num_labels);
            config.check()?;
        }
        Self::check(&config)?;
        options.load.check()?;
        let checkpoint = Checkpoint::open(dir)?;
        checkpoint.check_layers(dir, config.n_layers())?;
        let keys = Self::keys(&config, &options.load.device);
        let leniency = leniency(&config, Self::head(&config));
        let found =
            verify(&checkpoint, &keys, &leniency).map_err(|mismatch| LoadError::Mismatch {
                dir: dir.into(),
                mismatch,
            })?;
        if let Some(tokens) = options.load.larger_vocabulary(dir, config.vocab_size())? {
            config.set_vocab_size(tokens);
        }
        let std = config.spec().std;
        let mut weights = Weights::read(&checkpoint, found.entries, &options.load, std)
            .with_fresh(std, options.seed);
        let model = Self::build(&config, &mut weights);
        let report = weights.finish()?;
        Ok((model, found.fresh, report))
    }

    fn init(config: EncoderConfig, device: &Device, seed: u64) -> Result<Self, ConfigError> {
        config.check()?;
        Self::check(&config)?;
        let mut weights = Weights::draw(config.spec().std, seed, device);
        Ok(Self::build(&config, &mut weights))
    }

    fn save(&self, dir: &Path, dtype: DType) -> Result<(), SaveError> {
        let encoder = self.encoder();
        let config = encoder.config();
        let keys = Self::keys(config, &encoder.device());
        write(
            self,
            keys,
            &config.to_json_for(Self::task(), dtype),
            dir,
            dtype,
        )
    }
}

pub(crate) fn leniency(config: &EncoderConfig, head: Option<HeadSpec>) -> Leniency {
    let head = head.map(|head| (head.modules, head.output.into_copies()));
    let (optional, copies) = head.unwrap_or_default();
    Leniency {
        prefix: config.family().prefix_with_dot(),
        // The numbers from 0 on, which older libraries stored beside the weights.
        harmless: &[
            "embeddings.position_ids",
            // Of a DeBERTa whose input has none.
            "embeddings.position_embeddings.weight",
        ],
        other_heads: config.family().heads(),
        renamed: &[
            (".LayerNorm.weight", ".LayerNorm.gamma"),
            (".LayerNorm.bias", ".LayerNorm.beta"),
        ],
        optional,
        copies,
        ..Leniency::default()
    }
}

impl FromCheckpoint for Encoder {
    fn build(config: &EncoderConfig, weights: &mut Weights<'_>) -> Self {
        Self::from_weights(config, weights)
    }

    fn check(_config: &EncoderConfig) -> Result<(), ConfigError> {
        Ok(())
    }

    fn head(_config: &EncoderConfig) -> Option<HeadSpec> {
        None
    }

    fn task() -> Option<Task> {
        None
    }

    fn encoder(&self) -> &Encoder {
        self
    }
}

impl Encoder {
    /// Loads the encoder of a Hugging Face folder in f32; see [`Self::load_with`].
    pub fn load(dir: &Path, device: &Device) -> Result<Self, LoadError> {
        Self::load_with(dir, &LoadOptions::new(DType::F32, device.clone()))
    }

    /// Loads the encoder of a Hugging Face folder, and passes over whatever head stands in it.
    ///
    /// # Errors
    ///
    /// Everything that is missing, unexpected, mis-shaped or not a float, in one error, before any tensor is read.
    pub fn load_with(dir: &Path, options: &LoadOptions) -> Result<Self, LoadError> {
        Self::load_reported(dir, options).map(|(encoder, _)| encoder)
    }

    /// As [`Self::load_with`], and what was done beside.
    pub fn load_reported(
        dir: &Path,
        options: &LoadOptions,
    ) -> Result<(Self, LoadReport), LoadError> {
        let options = FolderOptions {
            load: options.clone(),
            ..FolderOptions::new(options.device.clone())
        };
        FromCheckpoint::load(dir, &options).map(|(encoder, _, report)| (encoder, report))
    }

    /// An encoder with fresh f32 weights: matrices normally distributed with the configuration's spread, norms 1, biases
    /// 0. The same seed gives the same weights on every device.
    pub fn init(
        config: impl Into<EncoderConfig>,
        device: &Device,
        seed: u64,
    ) -> Result<Self, ConfigError> {
        FromCheckpoint::init(config.into(), device, seed)
    }

    /// Writes `config.json` and `model.safetensors` to a folder, as [`Decoder::save`](crate::Decoder::save) does.
    ///
    /// # Errors
    ///
    /// Among others, when adapters are attached: merge them, or save them as an adapter.
    pub fn save(&self, dir: &Path, dtype: DType) -> Result<(), SaveError> {
        FromCheckpoint::save(self, dir, dtype)
    }
}
