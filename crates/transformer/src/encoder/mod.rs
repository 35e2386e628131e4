//! Encoders: BERT and what grew out of it, one implementation for all.
//!
//! A family is a file in `families/`: its configuration under the names that `config.json` has, and what that means as
//! data, a [`spec::Spec`] with sizes, parts and [`spec::Names`]; and for each task a [`spec::HeadSpec`]. Code is written
//! for a new kind of part only, never for a family. What is special to encoders:
//!
//! - Every module carries its name beside it ([`Named`]), so the paths of all families are those of their checkpoints
//!   although one struct serves them.
//! - A bare [`Encoder`] has the names of Transformers' bare models (`encoder.layer.0...`), with a head the names that the
//!   head's class has (`bert.encoder.layer.0...`). Folders of either kind load as either.
//! - What a folder lacks of a head, as whole modules, starts fresh, and the model says which parameters those are.
//! - Layers of one kind share a [`view::View`]: mask and rotations are made once for a batch.

pub(crate) mod batch;
mod conv;
mod disentangled;
mod embeddings;
mod extras;
pub(crate) mod families;
mod head;
pub(crate) mod labels;
mod layer;
pub(crate) mod load;
pub(crate) mod loss;
mod qkv;
pub(crate) mod scope;
mod sentence;
pub(crate) mod spec;
pub(crate) mod view;

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor};

use crate::error::TooLong;
use crate::named::{Named, unnamed_module};
use crate::norm::LayerNorm;
use crate::recompute::Recomputation;
use crate::virtual_tokens::{Front, TokenSlot};
use crate::weights::Weights;

pub use batch::{BatchError, EncoderBatch};
pub use conv::{ConvLayer, Kernel};
pub use disentangled::{PositionLinears, RelativeEmbeddings};
pub use embeddings::Embeddings;
pub use families::EncoderConfig;
pub use head::{
    Choices, EncoderWithHead, Head, HeadTask, MaskedLm, MaskedTokens, MultipleChoice,
    SequenceClassifier, SequenceLabels, TokenClassifier, TokenLabels, Transform,
};
pub use labels::{ClassLabels, LabelError, Labels};
pub use layer::EncoderLayer;
pub use load::FolderOptions;
pub use qkv::Qkv;
pub use scope::Bias;
pub use sentence::{SentenceEncoder, SentenceError, SentenceFolder, SentencePooling};
pub use spec::{Pooling, Task};

use batch::Limits;
use scope::Scope;
use spec::Spec;
use view::View;

/// An encoder without a head: what each token means among the others, seen from both sides.
#[derive(Debug, Clone)]
pub struct Encoder {
    /// Tokens, positions and segments.
    pub embeddings: Embeddings,
    /// The blocks.
    pub layers: Named<Vec<EncoderLayer>>,
    /// Embeddings of distances, where attention has scores for them.
    pub relative: Option<RelativeEmbeddings>,
    /// A convolution beside the first block.
    pub conv: Option<Named<ConvLayer>>,
    /// After the last block.
    pub final_norm: Option<Named<LayerNorm>>,
    virtual_tokens: TokenSlot,
    config: EncoderConfig,
    spec: Arc<Spec>,
    /// How many blocks keep only their inputs for the backward.
    recompute: usize,
}

unnamed_module!(Encoder { embeddings, layers, relative, conv, final_norm, virtual_tokens }
    with { config, spec, recompute });

impl Encoder {
    pub(crate) fn build(config: &EncoderConfig, scope: &mut Scope<'_, '_>) -> Self {
        let spec = config.spec();
        let layers = scope.enter(spec.names.layers, |scope| {
            let layer = |index: usize| {
                let block = scope.enter(index.to_string(), |scope| {
                    EncoderLayer::build(&spec, index, scope)
                });
                block.into_inner()
            };
            (0..spec.n_layers).map(layer).collect()
        });
        Self {
            embeddings: Embeddings::build(&spec, scope),
            layers,
            relative: RelativeEmbeddings::build(&spec, scope),
            conv: ConvLayer::build(&spec, scope),
            final_norm: spec
                .names
                .final_norm
                .map(|name| scope.norm(name, spec.hidden_size, spec.norm)),
            virtual_tokens: TokenSlot::default(),
            config: config.clone(),
            spec: Arc::new(spec),
            recompute: 0,
        }
    }

    /// As [`Decoder::with_recompute`](crate::Decoder::with_recompute). With disentangled attention everything is kept: its
    /// blocks share the embeddings of distances.
    pub fn with_recompute(mut self, blocks: usize) -> Self {
        self.recompute = blocks;
        self
    }

    pub(crate) fn from_weights(config: &EncoderConfig, weights: &mut Weights<'_>) -> Self {
        Self::build(config, &mut Scope::root(weights))
    }

    /// The hidden states of a batch after the last block; with something in front, of one with places for it.
    fn states(&self, batch: &EncoderBatch, front: Option<&Front>) -> Tensor<3> {
        batch.assert_fits(&self.spec);
        let x = self.embeddings.forward(batch, front);
        let views = Arc::new(View::all(&self.spec, batch, x.dtype()));
        // A block that is computed again tells of its input and its parameters only; a prefix is neither.
        let has_prefix = front.is_some_and(Front::has_prefix);
        let recompute = if has_prefix { 0 } else { self.recompute };
        let blocks = Recomputation::new(recompute, &self.layers, &x.device());
        let relative = self.relative.as_ref().map(|rows| rows.of(batch));
        let embedded = self.conv.as_ref().map(|_| match front {
            Some(front) => front.cleared(x.clone()),
            None => x.clone(),
        });
        let mut x = x;
        for (index, layer) in self.layers.iter().enumerate() {
            let prefix = front.and_then(|front| front.prefix(index));
            x = match &relative {
                Some(relative) => layer.forward(x, &views, Some(relative), prefix.as_ref()),
                None => {
                    let views = views.clone();
                    let forward = move |layer: &EncoderLayer, x| {
                        layer.forward(x, &views, None, prefix.as_ref())
                    };
                    blocks.run(index, layer, x, forward)
                }
            };
            if let (0, Some(conv), Some(embedded)) = (index, &self.conv, &embedded) {
                x = conv.forward(embedded.clone(), x);
            }
        }
        match &self.final_norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }

    /// Pads rows to the longest, as a batch on the encoder's device.
    ///
    /// `segments` says the segment of each token; without it all are of the first.
    ///
    /// # Errors
    ///
    /// Every row that is empty or too long, holds tokens or segments that the encoder does not know, or has not one
    /// segment for each token.
    pub fn batch(
        &self,
        rows: &[Vec<u32>],
        segments: Option<&[Vec<u32>]>,
    ) -> Result<EncoderBatch, BatchError> {
        let limits = Limits {
            vocab_size: self.spec.vocab_size,
            max_length: self.max_length(),
            segments: self.spec.segments,
        };
        EncoderBatch::from_rows(rows, segments, limits, &self.device())
    }

    /// The longest sequence, in tokens: what virtual ones leave of the positions.
    pub fn max_length(&self) -> usize {
        self.spec.max_length - self.virtual_tokens.count()
    }

    /// Whether the model has a position for each token of a sequence this long. To be asked before any work.
    pub fn check_length(&self, length: usize) -> Result<(), TooLong> {
        let limit = self.max_length();
        match length <= limit {
            true => Ok(()),
            false => Err(TooLong { length, limit }),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The dtype of the weights and of the activations.
    pub fn dtype(&self) -> DType {
        self.embeddings.words.weight.base().dtype()
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.embeddings.words.weight.base().device()
    }
}

/// Makes one vector of each sequence.
///
/// # Shapes
///
/// - hidden: `[batch, seq, hidden]`
/// - output: `[batch, hidden]`
pub(crate) fn pool(hidden: Tensor<3>, batch: &EncoderBatch, pooling: Pooling) -> Tensor<2> {
    /// Above every hidden state, and within f16.
    const HIGHEST: f64 = 6e4;
    let dtype = hidden.dtype();
    let mask = batch.mask().map(|mask| -> Tensor<3> {
        let mask = mask.cast(dtype);
        mask.unsqueeze_dim(2) // [batch, seq, 1]
    });
    let masked = |x: Tensor<3>| match mask.clone() {
        Some(mask) => x * mask,
        None => x,
    };
    let divided = |x: Tensor<3>, by: fn(f32) -> f32| {
        let lengths: Vec<f32> = batch.lengths.iter().map(|n| 1.0 / by(*n as f32)).collect();
        let device = x.device().without_autodiff();
        let inverse = Tensor::<1>::from_floats(lengths.as_slice(), &device).cast(dtype);
        x * inverse.reshape([batch.lengths.len(), 1, 1])
    };
    let pooled: Tensor<3> = match pooling {
        Pooling::First => hidden.narrow(1, 0, 1),
        Pooling::Mean => divided(masked(hidden).sum_dim(1), |n| n),
        Pooling::MeanSqrtLength => divided(masked(hidden).sum_dim(1), f32::sqrt),
        Pooling::Max => match mask.clone() {
            Some(mask) => (hidden + (mask - 1.0) * HIGHEST).max_dim(1),
            None => hidden.max_dim(1),
        },
    };
    pooled.squeeze_dim(1)
}
