//! In what encoders differ, as data.

use crate::activation::Activation;

/// An encoder: sizes, parts that it has or lacks, and the names of the parts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spec {
    /// What heads put in front of the encoder's names: `bert`.
    pub(crate) prefix: &'static str,
    pub(crate) names: Names,
    pub(crate) vocab_size: usize,
    /// The width of the embedding, `hidden_size` but where a projection follows.
    pub(crate) embedding_size: usize,
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) n_layers: usize,
    pub(crate) n_heads: usize,
    pub(crate) norm: NormSpec,
    pub(crate) order: NormOrder,
    pub(crate) activation: Activation,
    /// The inner layer is twice as wide, and its second half multiplies the activated first.
    pub(crate) gated: bool,
    pub(crate) attention_bias: bool,
    pub(crate) mlp_bias: bool,
    pub(crate) qkv: QkvLayout,
    pub(crate) learned: Option<LearnedPositions>,
    /// The longest sequence.
    pub(crate) max_length: usize,
    /// Kinds of segments; 0 where the encoder knows none.
    pub(crate) segments: usize,
    /// In which ways layers look at a sequence, and which way each layer takes.
    pub(crate) views: Vec<ViewSpec>,
    pub(crate) view_of_layer: Vec<usize>,
    pub(crate) disentangled: Option<Disentangled>,
    pub(crate) conv: Option<ConvSpec>,
    /// The standard deviation of fresh weights.
    pub(crate) std: f64,
}

/// What the parts are called. A part that a family lacks is never asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Names {
    pub(crate) words: &'static str,
    pub(crate) positions: &'static str,
    pub(crate) segments: &'static str,
    /// Between an embedding and wider hidden states.
    pub(crate) projection: &'static str,
    pub(crate) embedding_norm: &'static str,
    /// The blocks, to be followed by an index. The names from here on are relative to a block.
    pub(crate) layers: &'static str,
    /// Query, key and value, or the one that holds all three.
    pub(crate) qkv: &'static [&'static str],
    pub(crate) attention_output: &'static str,
    pub(crate) attention_norm: &'static str,
    pub(crate) inner: &'static str,
    pub(crate) outer: &'static str,
    pub(crate) mlp_norm: &'static str,
    /// After the last block, relative to the encoder.
    pub(crate) final_norm: Option<&'static str>,
}

/// A layer norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NormSpec {
    pub(crate) eps: f64,
    pub(crate) bias: bool,
}

/// Where a block normalizes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum NormOrder {
    /// `norm(f(x) + x)`.
    Post,
    /// `f(norm(x)) + x`; the first block's attention takes the embeddings, which are normalized, as they are.
    Pre,
}

/// How query, key and value lie in the projections.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum QkvLayout {
    /// Three linear layers.
    Separate,
    /// One: all queries, all keys, all values.
    Fused,
    /// One: query, key and value of the first head, then those of the next. Biases of query and value stand apart.
    ByHead,
}

/// Learned positions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LearnedPositions {
    pub(crate) count: usize,
    /// That of the first token.
    pub(crate) first: usize,
}

/// How a layer looks at a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct ViewSpec {
    /// How far a token sees to each side; all the way where nothing stands.
    pub(crate) reach: Option<usize>,
    /// The base of rotary positions.
    pub(crate) theta: Option<f64>,
}

/// Attention from content to position and back (DeBERTa).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Disentangled {
    pub(crate) content_to_position: bool,
    pub(crate) position_to_content: bool,
    /// Distances from here on are one; there are two rows of embeddings for each below.
    pub(crate) span: usize,
    pub(crate) buckets: Buckets,
    /// The relative embeddings, and their norm if they have one.
    pub(crate) embeddings: &'static str,
    pub(crate) norm: Option<&'static str>,
    pub(crate) projections: PositionProjections,
}

/// Which distances share an embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Buckets {
    /// Each has its own.
    Each,
    /// Near ones have their own, far ones share on a logarithmic scale up to this distance.
    Logarithmic { max_distance: usize },
}

/// What projects the relative embeddings in a block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum PositionProjections {
    /// The projections of the content.
    Shared,
    /// Their own; that of the keys with or without a bias.
    Own {
        key: &'static str,
        key_bias: bool,
        query: &'static str,
    },
}

/// A convolution beside the first block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ConvSpec {
    pub(crate) name: &'static str,
    pub(crate) width: usize,
    pub(crate) groups: usize,
    pub(crate) activation: Activation,
}

/// A head: what changes the hidden states, and what makes logits of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HeadSpec {
    pub(crate) pooling: Pooling,
    pub(crate) transform: Option<TransformSpec>,
    pub(crate) output: OutputSpec,
    /// The modules of which a checkpoint may lack each as a whole.
    pub(crate) modules: Vec<String>,
}

/// `norm(activation(dense(x)))`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TransformSpec {
    pub(crate) dense: String,
    pub(crate) bias: bool,
    pub(crate) activation: Activation,
    pub(crate) norm: Option<(String, NormSpec)>,
}

/// What makes logits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum OutputSpec {
    /// A linear layer to the labels.
    Linear(String),
    /// The transposed embedding and a bias of this module; copies of both that checkpoints may hold.
    Embedding {
        bias: Option<String>,
        copies: Vec<(String, String)>,
    },
    /// A linear layer to the vocabulary, not tied to the embedding, with or without a bias; copies of what it holds.
    Vocabulary {
        name: String,
        bias: bool,
        copies: Vec<(String, String)>,
    },
}

impl OutputSpec {
    /// The last layer of a masked language model: the transposed `embedding`, where it is `tied` to that, or a layer of its
    /// own. Either way Transformers calls it `decoder`, and its bias, if it has one, stands in the module `bias`.
    pub(crate) fn of_words(tied: bool, decoder: &str, bias: Option<&str>, embedding: &str) -> Self {
        let own = |name: &str| format!("{decoder}.{name}");
        let apart = bias.filter(|bias| *bias != decoder);
        let apart = apart.map(|bias| format!("{bias}.bias"));
        match tied {
            true => {
                let weight = (own("weight"), embedding.to_owned());
                let bias_copy = apart.map(|bias| (own("bias"), bias));
                Self::Embedding {
                    bias: bias.map(String::from),
                    copies: std::iter::once(weight).chain(bias_copy).collect(),
                }
            }
            // A bias beside that of the layer is stored, too, and nothing reads it.
            false => Self::Vocabulary {
                name: decoder.to_owned(),
                bias: bias.is_some(),
                copies: apart.map(|bias| (bias, own("bias"))).into_iter().collect(),
            },
        }
    }

    /// The tensors that repeat others, each with that.
    pub(crate) fn into_copies(self) -> Vec<(String, String)> {
        match self {
            Self::Linear(_) => Vec::new(),
            Self::Embedding { copies, .. } | Self::Vocabulary { copies, .. } => copies,
        }
    }
}

/// How one vector is made of the hidden states of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// That of the first token.
    First,
    /// Their mean.
    Mean,
    /// The largest of each coordinate.
    Max,
    /// Their sum over the square root of their number.
    MeanSqrtLength,
}

/// What an encoder is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// One label of a sequence, several, or numbers.
    SequenceClassification,
    /// One label of each token.
    TokenClassification,
    /// One of several sequences.
    MultipleChoice,
    /// The words behind masks.
    MaskedLm,
}

impl Task {
    /// PEFT's word for it, if it has one.
    pub(crate) fn peft(self) -> Option<&'static str> {
        match self {
            Self::SequenceClassification => Some("SEQ_CLS"),
            Self::TokenClassification => Some("TOKEN_CLS"),
            Self::MultipleChoice | Self::MaskedLm => None,
        }
    }

    /// How Transformers ends the name of a class.
    pub(crate) fn class_ending(self) -> &'static str {
        match self {
            Self::SequenceClassification => "ForSequenceClassification",
            Self::TokenClassification => "ForTokenClassification",
            Self::MultipleChoice => "ForMultipleChoice",
            Self::MaskedLm => "ForMaskedLM",
        }
    }
}
