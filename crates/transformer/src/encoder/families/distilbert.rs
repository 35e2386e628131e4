use serde_json::{Map, Value, json};

use super::Family;
use crate::activation::Activation;
use crate::config::{Fields, labels};
use crate::encoder::spec::{
    HeadSpec, LearnedPositions, Names, NormOrder, NormSpec, OutputSpec, Pooling, QkvLayout, Spec,
    Task, TransformSpec, ViewSpec,
};

/// `config.json` of DistilBERT (arXiv:1910.01108), its fields under the names they have there.
///
/// [`Default`] gives the base model with two labels. Dropout is not applied, as for BERT. `sinusoidal_pos_embds` says how
/// the positions started; they are in the checkpoint either way.
#[derive(Debug, Clone, PartialEq)]
pub struct DistilBertConfig {
    /// Tokens in the embedding.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub dim: usize,
    /// Number of blocks.
    pub n_layers: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Width of the inner layer.
    pub hidden_dim: usize,
    /// Learned positions.
    pub max_position_embeddings: usize,
    /// The nonlinearity of the inner layer.
    pub activation: String,
    /// The token to pad rows with.
    pub pad_token_id: usize,
    /// Classes of the head: `num_labels` of the file, or the number of names under `id2label`, or 2.
    pub num_labels: usize,
    /// Whether the head of a masked language model is the transposed embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// The fields of the file that mean nothing here, kept for writing.
    pub extra: Map<String, Value>,
}

const NAMES: Names = Names {
    layers: "transformer.layer",
    qkv: &["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    attention_output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    inner: "ffn.lin1",
    outer: "ffn.lin2",
    mlp_norm: "output_layer_norm",
    ..super::bert::NAMES
};

/// Not a field of the file: the same in every DistilBERT.
const NORM: NormSpec = NormSpec {
    eps: 1e-12,
    bias: true,
};

impl Default for DistilBertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30_522,
            dim: 768,
            n_layers: 6,
            n_heads: 12,
            hidden_dim: 3072,
            max_position_embeddings: 512,
            activation: "gelu".into(),
            pad_token_id: 0,
            num_labels: 2,
            tie_word_embeddings: true,
            initializer_range: 0.02,
            extra: Map::new(),
        }
    }
}

impl DistilBertConfig {
    pub(super) fn read_fields(fields: &mut Fields<'_>) -> Self {
        let num_labels = labels::read(fields);
        Self {
            vocab_size: fields.required_size("vocab_size"),
            dim: fields.required_size("dim"),
            n_layers: fields.required_size("n_layers"),
            n_heads: fields.required_size("n_heads"),
            hidden_dim: fields.required_size("hidden_dim"),
            max_position_embeddings: fields.size("max_position_embeddings").unwrap_or(512),
            activation: fields.activation("activation", "gelu"),
            pad_token_id: fields.size("pad_token_id").unwrap_or(0),
            num_labels,
            tie_word_embeddings: fields.flag("tie_word_embeddings", true),
            initializer_range: fields.number("initializer_range", 0.02),
            extra: fields.rest(),
        }
    }

    fn activation(&self) -> Activation {
        Activation::from_name(&self.activation).unwrap_or(Activation::Gelu)
    }
}

impl Family for DistilBertConfig {
    fn model_type(&self) -> &'static str {
        "distilbert"
    }

    fn class(&self) -> &'static str {
        "DistilBert"
    }

    fn prefix_with_dot(&self) -> &'static str {
        "distilbert."
    }

    fn heads(&self) -> &'static [&'static str] {
        &[
            "vocab_transform.",
            "vocab_layer_norm.",
            "vocab_projector.",
            "pre_classifier.",
            "classifier.",
        ]
    }

    fn field(&self, name: &'static str) -> &'static str {
        match name {
            "hidden_size" | "embedding_size" => "dim",
            "num_hidden_layers" => "n_layers",
            "num_attention_heads" => "n_heads",
            "intermediate_size" => "hidden_dim",
            name => name,
        }
    }

    fn spec(&self) -> Spec {
        Spec {
            prefix: "distilbert",
            names: NAMES,
            vocab_size: self.vocab_size,
            embedding_size: self.dim,
            hidden_size: self.dim,
            intermediate_size: self.hidden_dim,
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            norm: NORM,
            order: NormOrder::Post,
            activation: self.activation(),
            gated: false,
            attention_bias: true,
            mlp_bias: true,
            qkv: QkvLayout::Separate,
            learned: Some(LearnedPositions {
                count: self.max_position_embeddings,
                first: 0,
            }),
            max_length: self.max_position_embeddings,
            segments: 0,
            views: vec![ViewSpec::default()],
            view_of_layer: Vec::new(),
            disentangled: None,
            conv: None,
            std: self.initializer_range,
        }
    }

    fn head(&self, task: Task) -> Option<HeadSpec> {
        let dense = |dense: &str, activation, norm: Option<&str>| TransformSpec {
            dense: dense.into(),
            bias: true,
            activation,
            norm: norm.map(|name| (name.into(), NORM)),
        };
        Some(match task {
            Task::SequenceClassification | Task::MultipleChoice => HeadSpec {
                pooling: Pooling::First,
                transform: Some(dense("pre_classifier", Activation::Relu, None)),
                output: OutputSpec::Linear("classifier".into()),
                modules: vec!["pre_classifier".into(), "classifier".into()],
            },
            Task::TokenClassification => HeadSpec {
                pooling: Pooling::First,
                transform: None,
                output: OutputSpec::Linear("classifier".into()),
                modules: vec!["classifier".into()],
            },
            Task::MaskedLm => HeadSpec {
                pooling: Pooling::First,
                transform: Some(dense(
                    "vocab_transform",
                    self.activation(),
                    Some("vocab_layer_norm"),
                )),
                output: OutputSpec::of_words(
                    self.tie_word_embeddings,
                    "vocab_projector",
                    Some("vocab_projector"),
                    "distilbert.embeddings.word_embeddings.weight",
                ),
                modules: ["vocab_transform", "vocab_layer_norm", "vocab_projector"]
                    .map(String::from)
                    .into(),
            },
        })
    }

    fn pad_token_id(&self) -> usize {
        self.pad_token_id
    }

    fn num_labels(&self) -> usize {
        self.num_labels
    }

    fn set_num_labels(&mut self, num_labels: usize) {
        self.num_labels = num_labels;
    }

    fn set_vocab_size(&mut self, tokens: usize) {
        self.vocab_size = tokens;
    }

    fn fields(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("vocab_size", json!(self.vocab_size)),
            ("dim", json!(self.dim)),
            ("n_layers", json!(self.n_layers)),
            ("n_heads", json!(self.n_heads)),
            ("hidden_dim", json!(self.hidden_dim)),
            (
                "max_position_embeddings",
                json!(self.max_position_embeddings),
            ),
            ("activation", json!(self.activation)),
            ("pad_token_id", json!(self.pad_token_id)),
            ("tie_word_embeddings", json!(self.tie_word_embeddings)),
            ("initializer_range", json!(self.initializer_range)),
        ]
    }

    fn extra(&self) -> &Map<String, Value> {
        &self.extra
    }
}
