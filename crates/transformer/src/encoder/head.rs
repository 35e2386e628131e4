use std::marker::PhantomData;
use std::path::Path;

use burn::nn::Linear;
use burn::tensor::{DType, Device, Tensor};
use burn_lora_adapter::{project, shared_table};
use burn_lora_kernels::projection;

use super::families::EncoderConfig;
use super::load::{FolderOptions, FromCheckpoint};
use super::scope::{Bias, Scope};
use super::spec::{HeadSpec, OutputSpec, Pooling, Task, TransformSpec};
use super::{Encoder, EncoderBatch};
use crate::activation::Activation;
use crate::error::{ConfigError, LoadError, SaveError};
use crate::load::LoadReport;
use crate::named::{Kind, Named, unnamed_module};
use crate::norm::LayerNorm;
use crate::weights::Weights;

/// An encoder with the head of a task.
///
/// [`SequenceClassifier`], [`TokenClassifier`], [`MultipleChoice`] and [`MaskedLm`] are this type, each with its own
/// `forward`; how they load, start and save is the same.
#[derive(Debug, Clone)]
pub struct EncoderWithHead<T> {
    /// The encoder.
    pub encoder: Named<Encoder>,
    /// The head.
    pub head: Head,
    fresh: Vec<String>,
    task: PhantomData<T>,
}

unnamed_module!(EncoderWithHead<T: Kind> { encoder, head } with { fresh, task });

/// Gives a sequence one of several labels, several of them, or numbers (regression).
pub type SequenceClassifier = EncoderWithHead<SequenceLabels>;
/// Gives each token one of several labels.
pub type TokenClassifier = EncoderWithHead<TokenLabels>;
/// Chooses one of several sequences.
pub type MultipleChoice = EncoderWithHead<Choices>;
/// Says what stood behind masks.
pub type MaskedLm = EncoderWithHead<MaskedTokens>;

/// What a head is for.
pub trait HeadTask: Kind {
    /// The task.
    const TASK: Task;
}

macro_rules! tasks {
    ($($(#[$doc:meta])* $kind:ident => $task:ident,)+) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy)]
            pub struct $kind;

            impl Kind for $kind {}

            impl HeadTask for $kind {
                const TASK: Task = Task::$task;
            }
        )+
    };
}

tasks! {
    /// Labels of sequences.
    SequenceLabels => SequenceClassification,
    /// Labels of tokens.
    TokenLabels => TokenClassification,
    /// A choice among sequences.
    Choices => MultipleChoice,
    /// Tokens behind masks.
    MaskedTokens => MaskedLm,
}

/// What makes logits of hidden states.
#[derive(Debug, Clone)]
pub struct Head {
    /// What comes first, if anything does.
    pub transform: Option<Transform>,
    /// The linear layer to the labels or to the vocabulary; none where the transposed embedding is it.
    pub output: Option<Named<Linear>>,
    /// Added behind the transposed embedding. `[vocab]`
    pub bias: Option<Named<Bias>>,
    pooling: Pooling,
}

unnamed_module!(Head { transform, output, bias } with { pooling });

/// `norm(activation(dense(x)))`, with or without the norm.
#[derive(Debug, Clone)]
pub struct Transform {
    /// `[hidden, hidden]`, to the embedding's width in front of it.
    pub dense: Named<Linear>,
    /// At the end.
    pub norm: Option<Named<LayerNorm>>,
    activation: Activation,
}

unnamed_module!(Transform { dense, norm } with { activation });

impl Transform {
    fn build(spec: &TransformSpec, [d_in, d_out]: [usize; 2], scope: &mut Scope<'_, '_>) -> Self {
        Self {
            dense: scope.linear(&*spec.dense, [d_in, d_out], spec.bias),
            norm: spec
                .norm
                .as_ref()
                .map(|(name, norm)| scope.norm(&**name, d_out, *norm)),
            activation: spec.activation,
        }
    }

    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let x = self.activation.apply(project(&self.dense, x));
        match &self.norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }
}

impl Head {
    fn build(config: &EncoderConfig, task: Task, scope: &mut Scope<'_, '_>) -> Self {
        let (spec, head) = (config.spec(), config.head(task));
        let d = spec.hidden_size;
        let labels = match task {
            Task::MultipleChoice => 1,
            _ => config.num_labels(),
        };
        // What the transform ends in, the layer behind it, and the bias behind the transposed embedding.
        let (width, output, bias) = match head.output {
            OutputSpec::Linear(name) => (d, Some((name, labels, true)), None),
            OutputSpec::Embedding { bias, .. } => (spec.embedding_size, None, bias),
            OutputSpec::Vocabulary { name, bias, .. } => {
                let layer = (name, spec.vocab_size, bias);
                (spec.embedding_size, Some(layer), None)
            }
        };
        Self {
            transform: head
                .transform
                .map(|transform| Transform::build(&transform, [d, width], scope)),
            output: output.map(|(name, count, bias)| scope.linear(name, [width, count], bias)),
            bias: bias.map(|name| scope.bias(name, spec.vocab_size)),
            pooling: head.pooling,
        }
    }

    /// Logits of hidden states, `[..., labels]`, or of the vocabulary.
    pub(crate) fn logits<const D: usize>(&self, x: Tensor<D>, encoder: &Encoder) -> Tensor<D> {
        let x = match &self.transform {
            Some(transform) => transform.forward(x),
            None => x,
        };
        match &self.output {
            Some(output) => project(output, x),
            None => {
                let embedding = shared_table(&encoder.embeddings.words).transpose();
                let bias = self.bias.as_ref().map(|bias| bias.bias.val());
                projection(x, embedding, bias, None)
            }
        }
    }
}

impl<T: HeadTask> FromCheckpoint for EncoderWithHead<T> {
    fn build(config: &EncoderConfig, weights: &mut Weights<'_>) -> Self {
        let mut scope = Scope::root(weights);
        let encoder = scope.enter(config.spec().prefix, |scope| Encoder::build(config, scope));
        Self {
            encoder,
            head: Head::build(config, T::TASK, &mut scope),
            fresh: Vec::new(),
            task: PhantomData,
        }
    }

    fn check(config: &EncoderConfig) -> Result<(), ConfigError> {
        config.check_task(T::TASK)
    }

    fn head(config: &EncoderConfig) -> Option<HeadSpec> {
        Some(config.head(T::TASK))
    }

    fn task() -> Option<Task> {
        Some(T::TASK)
    }

    fn encoder(&self) -> &Encoder {
        &self.encoder
    }
}

impl<T: HeadTask> EncoderWithHead<T> {
    /// As [`Encoder::with_recompute`].
    pub fn with_recompute(self, blocks: usize) -> Self {
        self.map_encoder(|encoder| encoder.with_recompute(blocks))
    }

    pub(super) fn map_encoder(mut self, change: impl FnOnce(Encoder) -> Encoder) -> Self {
        self.encoder = self.encoder.map_inner(change);
        self
    }

    /// Loads a Hugging Face folder in f32; see [`Self::load_with`].
    pub fn load(dir: &Path, device: &Device) -> Result<Self, LoadError> {
        Self::load_with(dir, &FolderOptions::new(device.clone()))
    }

    /// Loads a Hugging Face folder as [`Decoder::load`](crate::Decoder::load) does.
    ///
    /// A folder that lacks the head, or a part of it as a whole module, holds an encoder: those parts start as
    /// [`Self::init`] makes them, and [`Self::fresh`] names their parameters. What other libraries leave is understood:
    /// heads for other tasks, the numbers of the positions, `gamma` and `beta` for the weight and bias of the norms, a
    /// copy of the embedding stored as a tied head, and no prefix (`bert.`) throughout.
    ///
    /// # Errors
    ///
    /// Everything that is missing, unexpected, mis-shaped or not a float, in one error, before any tensor is read. Half
    /// a head is missing the other half; a head for another number of labels is mis-shaped.
    pub fn load_with(dir: &Path, options: &FolderOptions) -> Result<Self, LoadError> {
        Self::load_reported(dir, options).map(|(model, _)| model)
    }

    /// As [`Self::load_with`], and what was done beside.
    pub fn load_reported(
        dir: &Path,
        options: &FolderOptions,
    ) -> Result<(Self, LoadReport), LoadError> {
        let (mut model, fresh, report): (Self, _, _) = FromCheckpoint::load(dir, options)?;
        model.fresh = fresh;
        Ok((model, report))
    }

    /// A model with fresh f32 weights: matrices normally distributed with the configuration's `initializer_range`,
    /// norms 1, biases 0. The same seed gives the same weights on every device.
    ///
    /// # Errors
    ///
    /// When the configuration contradicts itself, or the family has no head for the task.
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

    /// The parameters that the folder did not hold and that therefore know nothing yet; none after [`Self::init`].
    ///
    /// Attaching an adapter freezes them with the rest. To train them beside it, open them afterwards:
    /// `model.head = model.head.set_require_grad(true)`.
    pub fn fresh(&self) -> &[String] {
        &self.fresh
    }

    /// The configuration.
    pub fn config(&self) -> &EncoderConfig {
        self.encoder.config()
    }

    /// The dtype of the weights and of the activations.
    pub fn dtype(&self) -> DType {
        self.encoder.dtype()
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.encoder.device()
    }

    fn of_sequences(&self, batch: &EncoderBatch) -> Tensor<2> {
        let pooled = self.encoder.pooled(batch, self.head.pooling, self.dtype());
        self.head.logits(pooled, &self.encoder)
    }

    fn of_tokens(&self, batch: &EncoderBatch) -> Tensor<3> {
        self.head.logits(self.encoder.hidden(batch), &self.encoder)
    }
}

impl SequenceClassifier {
    /// The logits of the labels, in the dtype of the model.
    ///
    /// # Shapes
    ///
    /// - output: `[batch, num_labels]`
    ///
    /// # Panics
    ///
    /// As [`Encoder::hidden`].
    pub fn forward(&self, batch: &EncoderBatch) -> Tensor<2> {
        self.of_sequences(batch)
    }
}

impl TokenClassifier {
    /// The logits of the labels of each token, in the dtype of the model. What stands at padding has no meaning.
    ///
    /// # Shapes
    ///
    /// - output: `[batch, seq, num_labels]`
    ///
    /// # Panics
    ///
    /// As [`Encoder::hidden`].
    pub fn forward(&self, batch: &EncoderBatch) -> Tensor<3> {
        self.of_tokens(batch)
    }
}

impl MultipleChoice {
    /// The logits of the choices, in the dtype of the model. The rows of the batch are the choices of the first question,
    /// then those of the next.
    ///
    /// # Shapes
    ///
    /// - output: `[questions, choices]`
    ///
    /// # Panics
    ///
    /// As [`Encoder::hidden`], and if the rows do not divide into `choices`.
    pub fn forward(&self, batch: &EncoderBatch, choices: usize) -> Tensor<2> {
        let rows = batch.lengths.len();
        assert!(
            choices > 0 && rows.is_multiple_of(choices),
            "{rows} rows do not divide into questions of {choices} choices"
        );
        let logits = self.of_sequences(batch); // [questions * choices, 1]
        logits.reshape([rows / choices, choices])
    }
}

impl MaskedLm {
    /// The logits of the vocabulary at each token, in the dtype of the model. What stands at padding has no meaning.
    ///
    /// # Shapes
    ///
    /// - output: `[batch, seq, vocab]`
    ///
    /// # Panics
    ///
    /// As [`Encoder::hidden`].
    pub fn forward(&self, batch: &EncoderBatch) -> Tensor<3> {
        self.of_tokens(batch)
    }

    /// The logits of the vocabulary for hidden states, of which only the masked ones are needed.
    ///
    /// # Shapes
    ///
    /// - hidden: `[..., hidden]`
    /// - output: `[..., vocab]`
    pub fn logits_of<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        self.head.logits(hidden, &self.encoder)
    }
}
