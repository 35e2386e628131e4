use std::path::Path;

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{DType, Device, Int, Tensor};
use burn_lora_adapter::project;
use burn_lora_kernels::AttentionMask;

use crate::bert::{Bert, LENIENCY};
use crate::checkpoint::Checkpoint;
use crate::config::{BertConfig, note_dtype};
use crate::error::{ConfigError, LoadError, SaveError, TooLong};
use crate::load::LoadOptions;
use crate::save::{dtype_name, write};
use crate::verify::verify;
use crate::weights::{Key, Weights};

/// BERT with a head that gives a sequence one of several labels.
#[derive(Module, Debug)]
pub struct BertClassifier {
    /// The encoder.
    pub bert: Bert,
    /// The head, `[hidden, num_labels]`.
    pub classifier: Linear,
    #[module(skip)]
    config: BertConfig,
    #[module(skip)]
    fresh: Vec<String>,
}

/// How a [`BertClassifier`] is made from a folder.
#[derive(Debug, Clone)]
pub struct ClassifierOptions {
    /// Where the weights go, and their dtype.
    pub load: LoadOptions,
    /// The labels, where the folder holds an encoder without a head or its configuration does not say.
    pub num_labels: Option<usize>,
    /// Seeds what the folder does not hold.
    pub seed: u64,
}

impl ClassifierOptions {
    /// Weights in f32, the labels of the configuration, and seed 0.
    pub fn new(device: Device) -> Self {
        Self {
            load: LoadOptions::new(DType::F32, device),
            num_labels: None,
            seed: 0,
        }
    }
}

impl BertClassifier {
    /// Loads a Hugging Face folder in f32; see [`Self::load_with`].
    pub fn load(dir: &Path, device: &Device) -> Result<Self, LoadError> {
        Self::load_with(dir, &ClassifierOptions::new(device.clone()))
    }

    /// Loads a Hugging Face folder as [`Decoder::load`](crate::Decoder::load) does.
    ///
    /// A folder that lacks the head, or the pooler in front of it, holds an encoder: those parts start as
    /// [`Self::init`] makes them, and [`Self::fresh`] names their parameters. What other libraries leave is understood:
    /// the head of pretraining (`cls.`), the numbers of the positions, `gamma` and `beta` for the weight and bias of the
    /// norms, and no prefix `bert.` throughout.
    ///
    /// # Errors
    ///
    /// Everything that is missing, unexpected, mis-shaped or not a float, in one error, before any tensor is read. Half
    /// a head is missing the other half; a head for another number of labels is mis-shaped.
    pub fn load_with(dir: &Path, options: &ClassifierOptions) -> Result<Self, LoadError> {
        let mut config = BertConfig::read(dir)?;
        if let Some(num_labels) = options.num_labels {
            config.num_labels = num_labels;
            config.check()?;
        }
        options.load.check()?;
        let checkpoint = Checkpoint::open(dir)?;
        checkpoint.check_layers(dir, config.num_hidden_layers)?;
        let keys = Self::keys(&config, &options.load.device);
        let found =
            verify(&checkpoint, &keys, &LENIENCY).map_err(|mismatch| LoadError::Mismatch {
                dir: dir.into(),
                mismatch,
            })?;
        if let Some(tokens) = options.load.larger_vocabulary(dir, config.vocab_size)? {
            config.vocab_size = tokens;
        }
        let std = config.initializer_range;
        let mut weights = Weights::read(&checkpoint, found.entries, &options.load, std)
            .with_fresh(std, options.seed);
        let mut model = Self::build(&config, &mut weights);
        weights.finish()?;
        model.fresh = found.fresh;
        Ok(model)
    }

    /// A classifier with fresh f32 weights: matrices normally distributed with the configuration's `initializer_range`,
    /// norms 1, biases 0. The same seed gives the same weights on every device.
    pub fn init(config: &BertConfig, device: &Device, seed: u64) -> Result<Self, ConfigError> {
        config.check()?;
        let mut weights = Weights::draw(config.initializer_range, seed, device);
        Ok(Self::build(config, &mut weights))
    }

    fn build(config: &BertConfig, weights: &mut Weights<'_>) -> Self {
        let (d, labels) = (config.hidden_size, config.num_labels);
        Self {
            bert: Bert::build(config, weights),
            classifier: weights.linear("classifier", d, labels, true),
            config: config.clone(),
            fresh: Vec::new(),
        }
    }

    /// The parameters that a model of this configuration has, in the order of the model.
    pub(crate) fn keys(config: &BertConfig, device: &Device) -> Vec<Key> {
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
        let mut config = self.config.clone();
        note_dtype(&mut config.extra, dtype_name(dtype));
        let keys = Self::keys(&config, &self.device());
        write(self, keys, &config.to_json(), dir, dtype)
    }

    /// The parameters that the folder did not hold and that therefore know nothing yet; none after [`Self::init`].
    ///
    /// Attaching an adapter freezes them with the rest. To train them beside it, open them afterwards:
    /// `model.classifier = model.classifier.set_require_grad(true)`.
    pub fn fresh(&self) -> &[String] {
        &self.fresh
    }

    /// The configuration.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// The dtype of the weights and of the activations.
    pub fn dtype(&self) -> DType {
        self.bert.embeddings.word_embeddings.weight.base().dtype()
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.bert.embeddings.word_embeddings.weight.base().device()
    }

    /// Whether the model has a position for each token of a sequence this long. To be asked before any work.
    pub fn check_length(&self, length: usize) -> Result<(), TooLong> {
        let limit = self.config.max_position_embeddings;
        match length <= limit {
            true => Ok(()),
            false => Err(TooLong { length, limit }),
        }
    }

    /// The logits of the labels, in the dtype of the model.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`, rows padded behind with any token
    /// - lengths: the tokens of each row that are no padding
    /// - output: `[batch, num_labels]`
    ///
    /// # Panics
    ///
    /// As [`Self::hidden`].
    pub fn forward(&self, ids: Tensor<2, Int>, lengths: &[usize]) -> Tensor<2> {
        let pooled = self.bert.pooled(self.hidden(ids, lengths)); // [batch, hidden]
        project(&self.classifier, pooled)
    }

    /// The hidden states after the last block. What stands at padding has no meaning.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`, rows padded behind with any token
    /// - lengths: the tokens of each row that are no padding
    /// - output: `[batch, seq, hidden]`
    ///
    /// # Panics
    ///
    /// If `seq` exceeds the model's positions (see [`Self::check_length`]), or the lengths are not one of `1..=seq` for
    /// each row.
    pub fn hidden(&self, ids: Tensor<2, Int>, lengths: &[usize]) -> Tensor<3> {
        let [batch, seq] = ids.dims();
        let limit = self.config.max_position_embeddings;
        assert!(seq <= limit, "{seq} tokens do not fit {limit} positions");
        assert!(
            lengths.len() == batch && lengths.iter().all(|length| (1..=seq).contains(length)),
            "the lengths {lengths:?} are not those of {batch} rows of up to {seq} tokens"
        );
        let mask = AttentionMask::right_padded(seq, lengths, &ids.device());
        self.bert.hidden(ids, &mask)
    }
}
