use std::path::Path;

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{DType, Device, Int, Tensor};
use burn_lora_adapter::project;

use super::Decoder;
use super::plan::{LinearForm, Plan};
use super::scope::Scope;
use crate::checkpoint::Checkpoint;
use crate::config::DecoderConfig;
use crate::encoder::FolderOptions;
use crate::error::{ConfigError, LoadError, SaveError, TooLong};
use crate::load::LoadReport;
use crate::named::{Named, unnamed_module};
use crate::save::{dtype_name, write};
use crate::verify::{Leniency, verify};
use crate::weights::{Key, Weights};

/// What checkpoints call the head.
const HEAD: &str = "score";

/// A decoder with a head that gives a sequence one of several labels, from the hidden state of its last token: what
/// Transformers calls `LlamaForSequenceClassification` and the like, for every family of [`DecoderConfig`].
#[derive(Debug, Clone)]
pub struct DecoderClassifier {
    /// Without its own head.
    pub(super) decoder: Decoder,
    /// `[hidden, num_labels]`
    score: Named<Linear>,
    num_labels: usize,
    fresh: Vec<String>,
}

unnamed_module!(DecoderClassifier { decoder, score } with { num_labels, fresh });

impl DecoderClassifier {
    /// Loads a Hugging Face folder in f32; see [`Self::load_with`].
    pub fn load(dir: &Path, device: &Device) -> Result<Self, LoadError> {
        Self::load_with(dir, &FolderOptions::new(device.clone()))
    }

    /// Loads a Hugging Face folder as [`Decoder::load`] does.
    ///
    /// A folder that lacks the head holds a language model: its own head is passed over, that of the labels starts fresh,
    /// and [`Self::fresh`] names it.
    ///
    /// # Errors
    ///
    /// As [`Decoder::load`]. A head for another number of labels is mis-shaped.
    pub fn load_with(dir: &Path, options: &FolderOptions) -> Result<Self, LoadError> {
        Self::load_reported(dir, options).map(|(model, _)| model)
    }

    /// As [`Self::load_with`], and what was done beside.
    pub fn load_reported(
        dir: &Path,
        options: &FolderOptions,
    ) -> Result<(Self, LoadReport), LoadError> {
        let mut config = DecoderConfig::read(dir)?;
        let num_labels = match options.num_labels {
            Some(asked) => asked,
            None => config.num_labels()?,
        };
        check(&config, num_labels)?;
        options.load.check()?;
        let checkpoint = Checkpoint::open(dir)?;
        checkpoint.check_layers(dir, config.plan().n_inner_layers())?;
        let keys = Self::keys(&config, num_labels, &options.load.device);
        let plan = config.plan();
        let leniency = Self::leniency(&plan);
        let found =
            verify(&checkpoint, &keys, &leniency).map_err(|mismatch| LoadError::Mismatch {
                dir: dir.into(),
                mismatch,
            })?;
        if let Some(tokens) = options.load.larger_vocabulary(dir, config.vocab_size())? {
            config.set_vocab_size(tokens);
        }
        let std = plan.initializer_range;
        let mut weights = Weights::read(&checkpoint, found.entries, &options.load, std)
            .with_fresh(std, options.seed);
        let mut model = Self::build(&config, num_labels, &mut weights);
        let report = weights.finish()?;
        model.fresh = found.fresh;
        Ok((model, report))
    }

    /// A classifier with fresh f32 weights, as [`Decoder::init`] makes them.
    pub fn init(
        config: impl Into<DecoderConfig>,
        num_labels: usize,
        device: &Device,
        seed: u64,
    ) -> Result<Self, ConfigError> {
        let config = config.into();
        config.check()?;
        check(&config, num_labels)?;
        let mut weights = Weights::draw(config.plan().initializer_range, seed, device);
        Ok(Self::build(&config, num_labels, &mut weights))
    }

    pub(crate) fn build(
        config: &DecoderConfig,
        num_labels: usize,
        weights: &mut Weights<'_>,
    ) -> Self {
        let decoder = Decoder::build_without_head(config, weights);
        let d = [decoder.plan.d_model, num_labels];
        let mut scope = Scope::root(weights, LinearForm::Linear);
        Self {
            decoder,
            score: scope.linear(HEAD, d, false),
            num_labels,
            fresh: Vec::new(),
        }
    }

    pub(crate) fn leniency(plan: &Plan) -> Leniency {
        Leniency {
            other_heads: &["lm_head.", "embed_out."],
            optional: vec![HEAD.into()],
            ..plan.leniency()
        }
    }

    pub(crate) fn keys(config: &DecoderConfig, num_labels: usize, device: &Device) -> Vec<Key> {
        let mut weights = Weights::declare(device);
        Self::build(config, num_labels, &mut weights);
        weights.into_keys()
    }

    /// Writes `config.json` and `model.safetensors` to a folder, as [`Decoder::save`] does.
    ///
    /// # Errors
    ///
    /// Among others, when adapters are attached: merge them, or save them as an adapter.
    pub fn save(&self, dir: &Path, dtype: DType) -> Result<(), SaveError> {
        let mut config = self.decoder.config();
        let keys = Self::keys(&config, self.num_labels, &self.device());
        config.set_dtype(dtype_name(dtype));
        let text = config.to_json_with_labels(self.num_labels);
        write(self, keys, &text, dir, dtype)
    }

    /// Opens the head for training. An adapter that is attached afterwards closes it again with the rest of the base.
    pub fn train_head(mut self) -> Self {
        self.score = self.score.map_inner(|score| score.set_require_grad(true));
        self
    }

    /// As [`Decoder::with_recompute`].
    pub fn with_recompute(self, blocks: usize) -> Self {
        self.map_decoder(|decoder| decoder.with_recompute(blocks))
    }

    pub(super) fn map_decoder(mut self, change: impl FnOnce(Decoder) -> Decoder) -> Self {
        self.decoder = change(self.decoder);
        self
    }

    /// The parameters that the folder did not hold and that therefore know nothing yet; none after [`Self::init`].
    pub fn fresh(&self) -> &[String] {
        &self.fresh
    }

    /// The configuration.
    pub fn config(&self) -> DecoderConfig {
        self.decoder.config()
    }

    /// The number of labels.
    pub fn num_labels(&self) -> usize {
        self.num_labels
    }

    /// The dtype of the weights and of the activations.
    pub fn dtype(&self) -> DType {
        self.decoder.dtype()
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.decoder.device()
    }

    /// Whether the model has a position for each token of a sequence this long. To be asked before any work.
    pub fn check_length(&self, length: usize) -> Result<(), TooLong> {
        self.decoder.check_length(length)
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
    /// If `seq` exceeds the model's positions (see [`Self::check_length`]), or the lengths are not one of `1..=seq` for
    /// each row.
    pub fn forward(&self, ids: Tensor<2, Int>, lengths: &[usize]) -> Tensor<2> {
        let [batch, seq] = ids.dims();
        assert!(
            lengths.len() == batch && lengths.iter().all(|length| (1..=seq).contains(length)),
            "the lengths {lengths:?} are not those of {batch} rows of up to {seq} tokens"
        );
        let rows = lengths.iter().enumerate();
        let last: Vec<i32> = rows
            .map(|(row, length)| (row * seq + length - 1) as i32)
            .collect();
        let device = ids.device().without_autodiff();
        let last = Tensor::<1, Int>::from_ints(last.as_slice(), &device);
        let hidden = self.decoder.hidden(ids, None); // [batch, seq, hidden]
        // The head sees the tokens that it is asked about, not the others.
        let hidden = hidden.flatten::<2>(0, 1).select(0, last); // [batch, hidden]
        project(&self.score, hidden)
    }
}

#[cfg(test)]
impl DecoderClassifier {
    pub(crate) fn score_weight(&self) -> Tensor<2> {
        self.score.weight.val()
    }
}

fn check(config: &DecoderConfig, num_labels: usize) -> Result<(), ConfigError> {
    match num_labels {
        0 => Err(ConfigError::Invalid {
            model_type: config.model_type().into(),
            problems: vec!["a head without labels".into()],
        }),
        _ => Ok(()),
    }
}
