use serde_json::{Map, Value, json};

use super::Family;
use crate::activation::Activation;
use crate::config::{Fields, labels};
use crate::encoder::spec::{
    HeadSpec, LearnedPositions, Names, NormOrder, NormSpec, OutputSpec, Pooling, QkvLayout, Spec,
    Task, TransformSpec, ViewSpec,
};

/// `config.json` of BERT and what is built like it (MiniLM, sentence encoders; RoBERTa), its fields under the names they
/// have there.
///
/// [`Default`] gives the base BERT with two labels, to be changed by struct update. The dropout of pretraining
/// (`hidden_dropout_prob`, `attention_probs_dropout_prob`, `classifier_dropout`) is not applied: a frozen base needs no
/// regularization of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct BertConfig {
    /// Which of the family it is.
    pub variant: BertVariant,
    /// Tokens in the embedding.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of the inner layer.
    pub intermediate_size: usize,
    /// Learned positions. RoBERTa and its kin leave those up to the padding's id unused.
    pub max_position_embeddings: usize,
    /// Learned kinds of segments.
    pub type_vocab_size: usize,
    /// The nonlinearity of the inner layer.
    pub hidden_act: String,
    /// The epsilon of the norms.
    pub layer_norm_eps: f64,
    /// The token to pad rows with.
    pub pad_token_id: usize,
    /// Classes of the head: `num_labels` of the file, or the number of names under `id2label`, or 2.
    pub num_labels: usize,
    /// Whether the head of a masked language model is the transposed embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// The fields of the file that mean nothing here, kept for writing; the names of the labels are among them.
    pub extra: Map<String, Value>,
}

/// The models with BERT's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BertVariant {
    /// BERT (arXiv:1810.04805).
    Bert,
    /// RoBERTa (arXiv:1907.11692): positions start behind the padding's id, heads of its own.
    ///
    /// Every token within a row's length has a position, a padding token in its midst as well.
    Roberta,
    /// XLM-RoBERTa (arXiv:1911.02116).
    XlmRoberta,
    /// CamemBERT (arXiv:1911.03894).
    Camembert,
}

pub(super) const NAMES: Names = Names {
    words: "embeddings.word_embeddings",
    positions: "embeddings.position_embeddings",
    segments: "embeddings.token_type_embeddings",
    projection: "embeddings.embed_proj",
    embedding_norm: "embeddings.LayerNorm",
    layers: "encoder.layer",
    qkv: &[
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
    ],
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    inner: "intermediate.dense",
    outer: "output.dense",
    mlp_norm: "output.LayerNorm",
    final_norm: None,
};

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            variant: BertVariant::Bert,
            vocab_size: 30_522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            hidden_act: "gelu".into(),
            layer_norm_eps: 1e-12,
            pad_token_id: 0,
            num_labels: 2,
            tie_word_embeddings: true,
            initializer_range: 0.02,
            extra: Map::new(),
        }
    }
}

impl BertConfig {
    pub(super) fn read_fields(variant: BertVariant, fields: &mut Fields<'_>) -> Self {
        fields.one_of("position_embedding_type", "absolute", &["absolute"]);
        let num_labels = labels::read(fields);
        let pad = if variant.is_roberta() { 1 } else { 0 };
        Self {
            variant,
            vocab_size: fields.required_size("vocab_size"),
            hidden_size: fields.required_size("hidden_size"),
            num_hidden_layers: fields.required_size("num_hidden_layers"),
            num_attention_heads: fields.required_size("num_attention_heads"),
            intermediate_size: fields.required_size("intermediate_size"),
            max_position_embeddings: fields.size("max_position_embeddings").unwrap_or(512),
            type_vocab_size: fields.size("type_vocab_size").unwrap_or(2),
            hidden_act: fields.activation("hidden_act", "gelu"),
            layer_norm_eps: fields.number("layer_norm_eps", 1e-12),
            pad_token_id: fields.size("pad_token_id").unwrap_or(pad),
            num_labels,
            tie_word_embeddings: fields.flag("tie_word_embeddings", true),
            initializer_range: fields.number("initializer_range", 0.02),
            extra: fields.rest(),
        }
    }

    fn norm(&self) -> NormSpec {
        NormSpec {
            eps: self.layer_norm_eps,
            bias: true,
        }
    }

    fn activation(&self) -> Activation {
        Activation::from_name(&self.hidden_act).unwrap_or(Activation::Gelu)
    }

    /// The first token of a sequence has this position.
    fn first_position(&self) -> usize {
        match self.variant.is_roberta() {
            true => self.pad_token_id + 1,
            false => 0,
        }
    }
}

impl BertVariant {
    /// Whether it has RoBERTa's positions and heads.
    fn is_roberta(self) -> bool {
        self != Self::Bert
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::Roberta | Self::XlmRoberta | Self::Camembert => "roberta",
        }
    }
}

impl Family for BertConfig {
    fn model_type(&self) -> &'static str {
        match self.variant {
            BertVariant::Bert => "bert",
            BertVariant::Roberta => "roberta",
            BertVariant::XlmRoberta => "xlm-roberta",
            BertVariant::Camembert => "camembert",
        }
    }

    fn class(&self) -> &'static str {
        match self.variant {
            BertVariant::Bert => "Bert",
            BertVariant::Roberta => "Roberta",
            BertVariant::XlmRoberta => "XLMRoberta",
            BertVariant::Camembert => "Camembert",
        }
    }

    fn prefix_with_dot(&self) -> &'static str {
        match self.variant.is_roberta() {
            true => "roberta.",
            false => "bert.",
        }
    }

    fn heads(&self) -> &'static [&'static str] {
        match self.variant.is_roberta() {
            true => &["lm_head.", "classifier.", "roberta.pooler.", "pooler."],
            false => &[
                "cls.predictions.",
                "cls.seq_relationship.",
                "classifier.",
                "bert.pooler.",
                "pooler.",
            ],
        }
    }

    fn spec(&self) -> Spec {
        let first = self.first_position();
        Spec {
            prefix: self.variant.prefix(),
            names: NAMES,
            vocab_size: self.vocab_size,
            embedding_size: self.hidden_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            n_layers: self.num_hidden_layers,
            n_heads: self.num_attention_heads,
            norm: self.norm(),
            order: NormOrder::Post,
            activation: self.activation(),
            gated: false,
            attention_bias: true,
            mlp_bias: true,
            qkv: QkvLayout::Separate,
            learned: Some(LearnedPositions {
                count: self.max_position_embeddings,
                first,
            }),
            max_length: self.max_position_embeddings.saturating_sub(first),
            segments: self.type_vocab_size,
            views: vec![ViewSpec::default()],
            view_of_layer: Vec::new(),
            disentangled: None,
            conv: None,
            std: self.initializer_range,
        }
    }

    fn head(&self, task: Task) -> Option<HeadSpec> {
        let (roberta, prefix) = (self.variant.is_roberta(), self.variant.prefix());
        let dense = |dense: &str, activation, norm: Option<&str>| TransformSpec {
            dense: dense.into(),
            bias: true,
            activation,
            norm: norm.map(|name| (name.into(), self.norm())),
        };
        let pooler = format!("{prefix}.pooler");
        let pooled = |output: &str| HeadSpec {
            pooling: Pooling::First,
            transform: Some(dense(&format!("{pooler}.dense"), Activation::Tanh, None)),
            output: OutputSpec::Linear(output.into()),
            modules: vec![pooler.clone(), output.into()],
        };
        let embedding = format!("{prefix}.embeddings.word_embeddings.weight");
        let tied = self.tie_word_embeddings;
        let masked = |root: &str, transform, decoder: &str| HeadSpec {
            pooling: Pooling::First,
            transform: Some(transform),
            output: OutputSpec::of_words(tied, decoder, Some(root), &embedding),
            modules: vec![root.into()],
        };
        Some(match (task, roberta) {
            (Task::SequenceClassification, true) => HeadSpec {
                pooling: Pooling::First,
                transform: Some(dense("classifier.dense", Activation::Tanh, None)),
                output: OutputSpec::Linear("classifier.out_proj".into()),
                modules: vec!["classifier".into()],
            },
            (Task::SequenceClassification, false) | (Task::MultipleChoice, _) => {
                pooled("classifier")
            }
            (Task::TokenClassification, _) => HeadSpec {
                pooling: Pooling::First,
                transform: None,
                output: OutputSpec::Linear("classifier".into()),
                modules: vec!["classifier".into()],
            },
            (Task::MaskedLm, true) => {
                let norm = Some("lm_head.layer_norm");
                let transform = dense("lm_head.dense", Activation::Gelu, norm);
                masked("lm_head", transform, "lm_head.decoder")
            }
            (Task::MaskedLm, false) => {
                let (root, activation) = ("cls.predictions", self.activation());
                let norm = Some("cls.predictions.transform.LayerNorm");
                let transform = dense("cls.predictions.transform.dense", activation, norm);
                masked(root, transform, "cls.predictions.decoder")
            }
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

    fn problems(&self) -> Vec<String> {
        match self.type_vocab_size {
            0 => vec!["`type_vocab_size` is 0".into()],
            _ => Vec::new(),
        }
    }

    fn fields(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("vocab_size", json!(self.vocab_size)),
            ("hidden_size", json!(self.hidden_size)),
            ("num_hidden_layers", json!(self.num_hidden_layers)),
            ("num_attention_heads", json!(self.num_attention_heads)),
            ("intermediate_size", json!(self.intermediate_size)),
            (
                "max_position_embeddings",
                json!(self.max_position_embeddings),
            ),
            ("type_vocab_size", json!(self.type_vocab_size)),
            ("hidden_act", json!(self.hidden_act)),
            ("layer_norm_eps", json!(self.layer_norm_eps)),
            ("pad_token_id", json!(self.pad_token_id)),
            ("tie_word_embeddings", json!(self.tie_word_embeddings)),
            ("initializer_range", json!(self.initializer_range)),
        ]
    }

    fn extra(&self) -> &Map<String, Value> {
        &self.extra
    }
}
