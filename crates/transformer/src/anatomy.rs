//! What a model's blocks are made of, as far as its cost depends on it.

use burn::tensor::Device;

use crate::config::{DecoderConfig, ModelConfig};
use crate::decoder::plan::{MlpForm, QkvForm, Residual};
use crate::decoder::{Decoder, DecoderClassifier};
use crate::encoder::families::EncoderConfig;
use crate::encoder::load::FromCheckpoint;
use crate::encoder::{Encoder, EncoderWithHead, HeadTask};
use crate::error::ConfigError;
use crate::t5::{T5, T5Config};
use crate::weights::Weights;

/// The sizes of a model that its memory and its work follow from.
#[derive(Debug, Clone, PartialEq)]
pub struct Anatomy {
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Heads of queries.
    pub n_heads: usize,
    /// Heads of keys and of values.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// A token sees those before it alone.
    pub causal: bool,
    /// The longest sequence, if there is one.
    pub max_positions: Option<usize>,
    /// Tensors of the width of the residual stream that the norms of a block read.
    pub norm_inputs: usize,
    /// Queries and keys are normalized, head by head.
    pub head_norms: bool,
    /// Attention keeps its scores and their softmax: those with a bias of their own (T5, DeBERTa).
    pub keeps_scores: bool,
    /// The blocks, in order; of an encoder-decoder those of the encoder first.
    pub blocks: Vec<BlockAnatomy>,
    /// The head is the transposed embedding.
    pub tied: bool,
    names: PlaceNames,
}

/// One block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockAnatomy {
    /// How many tokens a token sees, if not all.
    pub window: Option<usize>,
    /// Attentions of the block: 2 where it looks at an encoder, too.
    pub attentions: usize,
    /// Width of the inner layer, or of one expert.
    pub d_inner: usize,
    /// The activation of one half multiplies another half.
    pub gated: bool,
    /// Inner layers: 1, or the experts.
    pub experts: usize,
    /// How many of them a token goes to.
    pub top_k: usize,
}

/// Where in a model a linear layer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// It makes queries, keys or values.
    AttentionIn,
    /// It takes what was attended.
    AttentionOut,
    /// It takes the residual stream to the inner layer.
    MlpIn,
    /// It takes the inner layer back.
    MlpOut,
    /// Outside of every block: a head, or what stands before it.
    Outside,
}

/// The names of layers by their places; the last segments of paths, or several.
#[derive(Debug, Clone, PartialEq)]
struct PlaceNames {
    attention_in: Vec<String>,
    attention_out: Vec<String>,
    mlp_in: Vec<String>,
    mlp_out: Vec<String>,
}

impl Anatomy {
    /// The anatomy of a model of this configuration.
    pub fn of(config: &ModelConfig) -> Self {
        match config {
            ModelConfig::Decoder(config) => decoder(config),
            ModelConfig::Encoder(config) => encoder(config),
            ModelConfig::T5(config) => t5(config),
        }
    }

    /// The place of a layer, by its path.
    pub fn place(&self, layer: &str) -> Place {
        let ends = |name: &String| {
            let before = layer.strip_suffix(name.as_str());
            before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        let is = |names: &[String]| names.iter().any(ends);
        let names = &self.names;
        if self.block(layer).is_none() {
            return Place::Outside;
        }
        // What is longer is more particular: BERT's `attention.output.dense` ends like its `output.dense`.
        if is(&names.attention_out) {
            Place::AttentionOut
        } else if is(&names.attention_in) {
            Place::AttentionIn
        } else if is(&names.mlp_out) {
            Place::MlpOut
        } else if is(&names.mlp_in) {
            Place::MlpIn
        } else {
            Place::Outside
        }
    }

    /// The block that a path leads into.
    pub fn block(&self, path: &str) -> Option<usize> {
        let mut segments = path.split('.');
        let index = segments.find_map(|segment| segment.parse::<usize>().ok())?;
        // An encoder-decoder counts both of its stacks from 0.
        let first = match path.starts_with("decoder.") {
            true => self
                .blocks
                .iter()
                .filter(|block| block.attentions == 1)
                .count(),
            false => 0,
        };
        Some(first + index).filter(|index| *index < self.blocks.len())
    }
}

fn decoder(config: &DecoderConfig) -> Anatomy {
    let plan = config.plan();
    let names = &plan.names.block;
    let attention = &plan.attention;
    let blocks = plan.layers.iter().map(|layer| {
        let experts = plan.experts.filter(|_| layer.routed);
        BlockAnatomy {
            window: layer.window,
            attentions: 1,
            d_inner: experts.map_or(plan.mlp.d_inner, |experts| experts.d_inner),
            gated: experts.is_some() || plan.mlp.form != MlpForm::Plain,
            experts: experts.map_or(1, |experts| experts.n),
            top_k: experts.map_or(1, |experts| experts.top_k),
        }
    });
    let in_attention = |name: &str| format!("{}.{name}", names.attention);
    let in_mlp = |name: &str| format!("{}.{name}", names.mlp);
    let up = match plan.mlp.form {
        MlpForm::GatedFused => names.gate_up,
        MlpForm::Plain | MlpForm::Gated => names.up,
    };
    let mut mlp_in = [names.gate, up].map(in_mlp).to_vec();
    let mut mlp_out = vec![in_mlp(names.down)];
    if plan.experts.is_some() {
        // Each stands behind the number of its expert.
        mlp_in.extend([names.expert_gate, names.expert_up].map(String::from));
        mlp_in.push(in_mlp(names.router));
        mlp_out.push(names.expert_down.into());
    }
    Anatomy {
        vocab_size: plan.vocab_size,
        d_model: plan.d_model,
        n_heads: attention.n_heads,
        n_kv_heads: attention.n_kv_heads,
        d_head: attention.d_head,
        causal: true,
        max_positions: Some(plan.max_positions),
        norm_inputs: match plan.residual {
            Residual::Sequential => 2,
            Residual::Sandwich => 4,
            Residual::Parallel => 1,
        },
        head_norms: attention.head_norms,
        keeps_scores: false,
        blocks: blocks.collect(),
        tied: plan.tied,
        names: PlaceNames {
            attention_in: match attention.qkv {
                QkvForm::Separate => [names.q, names.k, names.v].map(in_attention).to_vec(),
                QkvForm::Concatenated | QkvForm::PerHead => vec![in_attention(names.qkv)],
            },
            attention_out: vec![in_attention(names.attention_out)],
            mlp_in,
            mlp_out,
        },
    }
}

fn encoder(config: &EncoderConfig) -> Anatomy {
    let spec = config.spec();
    let names = &spec.names;
    let reach = |layer: usize| {
        let view = spec.view_of_layer.get(layer).copied().unwrap_or(0);
        spec.views.get(view)?.reach
    };
    let blocks = (0..spec.n_layers).map(|layer| BlockAnatomy {
        window: reach(layer).map(|reach| 2 * reach + 1),
        attentions: 1,
        d_inner: spec.intermediate_size,
        gated: spec.gated,
        experts: 1,
        top_k: 1,
    });
    Anatomy {
        vocab_size: spec.vocab_size,
        d_model: spec.hidden_size,
        n_heads: spec.n_heads,
        n_kv_heads: spec.n_heads,
        d_head: spec.hidden_size / spec.n_heads.max(1),
        causal: false,
        max_positions: Some(spec.max_length),
        norm_inputs: 2,
        head_norms: false,
        keeps_scores: spec.disentangled.is_some(),
        blocks: blocks.collect(),
        tied: true,
        names: PlaceNames {
            attention_in: names.qkv.iter().map(|name| name.to_string()).collect(),
            attention_out: vec![names.attention_output.into()],
            mlp_in: vec![names.inner.into()],
            mlp_out: vec![names.outer.into()],
        },
    }
}

fn t5(config: &T5Config) -> Anatomy {
    let gated = config.feed_forward_proj.starts_with("gated");
    let block = |attentions| BlockAnatomy {
        window: None,
        attentions,
        d_inner: config.d_ff,
        gated,
        experts: 1,
        top_k: 1,
    };
    let mut blocks = vec![block(1); config.num_layers];
    blocks.extend(vec![block(2); config.num_decoder_layers]);
    Anatomy {
        vocab_size: config.vocab_size,
        d_model: config.d_model,
        n_heads: config.num_heads,
        n_kv_heads: config.num_heads,
        d_head: config.d_kv,
        causal: false,
        max_positions: None,
        norm_inputs: 2,
        head_norms: false,
        keeps_scores: true,
        blocks,
        tied: config.tie_word_embeddings,
        names: PlaceNames {
            attention_in: ["q", "k", "v"].map(String::from).to_vec(),
            attention_out: vec!["o".into()],
            mlp_in: ["wi", "wi_0", "wi_1"].map(String::from).to_vec(),
            mlp_out: vec!["wo".into()],
        },
    }
}

// What has shapes and no values: for counting, and for seeing what an adapter would go onto.

impl Decoder {
    /// A decoder of this configuration whose parameters have shapes and no values, which takes next to no memory.
    ///
    /// # Errors
    ///
    /// When the sizes do not fit each other.
    pub fn outline(config: impl Into<DecoderConfig>) -> Result<Self, ConfigError> {
        let config = config.into();
        config.check()?;
        let mut weights = Weights::declare(&Device::default());
        Ok(Self::build(&config, &mut weights))
    }
}

impl DecoderClassifier {
    /// As [`Decoder::outline`], with as many labels as the configuration speaks of.
    ///
    /// # Errors
    ///
    /// When the sizes do not fit each other.
    pub fn outline(config: impl Into<DecoderConfig>) -> Result<Self, ConfigError> {
        let mut config = config.into();
        config.check()?;
        let num_labels = config.num_labels()?;
        let mut weights = Weights::declare(&Device::default());
        Ok(Self::build(&config, num_labels, &mut weights))
    }
}

fn outline<M: FromCheckpoint>(config: EncoderConfig) -> Result<M, ConfigError> {
    config.check()?;
    M::check(&config)?;
    Ok(M::build(&config, &mut Weights::declare(&Device::default())))
}

impl Encoder {
    /// As [`Decoder::outline`].
    ///
    /// # Errors
    ///
    /// When the sizes do not fit each other.
    pub fn outline(config: impl Into<EncoderConfig>) -> Result<Self, ConfigError> {
        outline(config.into())
    }
}

impl<T: HeadTask> EncoderWithHead<T> {
    /// As [`Decoder::outline`].
    ///
    /// # Errors
    ///
    /// When the sizes do not fit each other, or the family has no head for the task.
    pub fn outline(config: impl Into<EncoderConfig>) -> Result<Self, ConfigError> {
        outline(config.into())
    }
}

impl T5 {
    /// As [`Decoder::outline`].
    ///
    /// # Errors
    ///
    /// When the sizes do not fit each other.
    pub fn outline(config: T5Config) -> Result<Self, ConfigError> {
        config.check()?;
        let mut weights = Weights::declare(&Device::default());
        Ok(Self::build(&config, &mut weights))
    }
}
