mod parts;

use serde_json::{Map, Value, json};

use super::Family;
use crate::config::{Fields, labels};
use crate::encoder::spec::{HeadSpec, Spec, Task};

/// `config.json` of DeBERTa (arXiv:2006.03654), v2 and v3 (arXiv:2111.09543), its fields under the names they have there.
///
/// [`Default`] gives DeBERTa-v3 base with two labels. Dropout is not applied, as for BERT. The fields from
/// `position_buckets` to `conv_act` mean nothing in the first version.
#[derive(Debug, Clone, PartialEq)]
pub struct DebertaConfig {
    /// The `model_type`.
    pub version: DebertaVersion,
    /// Tokens in the embedding.
    pub vocab_size: usize,
    /// Width of the embedding.
    pub embedding_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of the inner layer.
    pub intermediate_size: usize,
    /// The longest sequence.
    pub max_position_embeddings: usize,
    /// Whether the embedding has learned positions.
    pub position_biased_input: bool,
    /// Learned kinds of segments, or 0.
    pub type_vocab_size: usize,
    /// The nonlinearity of the inner layer.
    pub hidden_act: String,
    /// The epsilon of the norms.
    pub layer_norm_eps: f64,
    /// Whether attention has scores for distances.
    pub relative_attention: bool,
    /// Distances from here on are one; `max_position_embeddings` where it is below 1.
    pub max_relative_positions: i64,
    /// Which scores: `c2p`, `p2c`.
    pub pos_att_type: Vec<String>,
    /// Buckets on a logarithmic scale; none where it is below 1.
    pub position_buckets: i64,
    /// Whether content and distances have the same projections.
    pub share_att_key: bool,
    /// Whether the embeddings of the distances are normalized: `layer_norm` or `none`.
    pub norm_rel_ebd: String,
    /// The width of the convolution beside the first block, or 0.
    pub conv_kernel_size: usize,
    /// Groups of the convolution.
    pub conv_groups: usize,
    /// The nonlinearity of the convolution.
    pub conv_act: String,
    /// The nonlinearity of the head that classifies sequences.
    pub pooler_hidden_act: String,
    /// Which head a masked language model has: the older one projects to the embedding's width.
    pub legacy: bool,
    /// Classes of the head: `num_labels` of the file, or the number of names under `id2label`, or 2.
    pub num_labels: usize,
    /// Whether the older head of a masked language model is the transposed embedding.
    pub tie_word_embeddings: bool,
    /// The token to pad rows with.
    pub pad_token_id: usize,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// The fields of the file that mean nothing here, kept for writing.
    pub extra: Map<String, Value>,
}

/// DeBERTa's generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebertaVersion {
    /// `deberta`: one projection for query, key and value, a row of embeddings for each distance.
    V1,
    /// `deberta-v2`, which v3 calls itself, too.
    V2,
}

impl Default for DebertaConfig {
    fn default() -> Self {
        Self {
            version: DebertaVersion::V2,
            vocab_size: 128_100,
            embedding_size: 768,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            max_position_embeddings: 512,
            position_biased_input: false,
            type_vocab_size: 0,
            hidden_act: "gelu".into(),
            layer_norm_eps: 1e-7,
            relative_attention: true,
            max_relative_positions: -1,
            pos_att_type: vec!["p2c".into(), "c2p".into()],
            position_buckets: 256,
            share_att_key: true,
            norm_rel_ebd: "layer_norm".into(),
            conv_kernel_size: 0,
            conv_groups: 1,
            conv_act: "tanh".into(),
            pooler_hidden_act: "gelu".into(),
            legacy: true,
            num_labels: 2,
            tie_word_embeddings: true,
            pad_token_id: 0,
            initializer_range: 0.02,
            extra: Map::new(),
        }
    }
}

impl DebertaConfig {
    pub(super) fn read_fields(version: DebertaVersion, fields: &mut Fields<'_>) -> Self {
        if fields.flag("talking_head", false) {
            fields.refuse("`talking_head` true is not built");
        }
        fields.one_of("norm_rel_ebd", "none", &["none", "layer_norm"]);
        let num_labels = labels::read(fields);
        let hidden_size = fields.required_size("hidden_size");
        let pooler = fields.size("pooler_hidden_size").unwrap_or(hidden_size);
        if pooler != hidden_size {
            fields.refuse(format!(
                "`pooler_hidden_size` {pooler} other than `hidden_size` {hidden_size} is not built"
            ));
        }
        let heads = fields.required_size("num_attention_heads");
        if let Some(width) = fields.size("attention_head_size")
            && width * heads != hidden_size
        {
            fields.refuse(format!(
                "`attention_head_size` {width} times {heads} heads is not `hidden_size` {hidden_size}"
            ));
        }
        Self {
            version,
            vocab_size: fields.required_size("vocab_size"),
            embedding_size: fields.size("embedding_size").unwrap_or(hidden_size),
            hidden_size,
            num_hidden_layers: fields.required_size("num_hidden_layers"),
            num_attention_heads: heads,
            intermediate_size: fields.required_size("intermediate_size"),
            max_position_embeddings: fields.size("max_position_embeddings").unwrap_or(512),
            position_biased_input: fields.flag("position_biased_input", true),
            type_vocab_size: fields.size("type_vocab_size").unwrap_or(0),
            hidden_act: fields.activation("hidden_act", "gelu"),
            layer_norm_eps: fields.number("layer_norm_eps", 1e-7),
            relative_attention: fields.flag("relative_attention", false),
            max_relative_positions: fields.number("max_relative_positions", -1.0) as i64,
            pos_att_type: position_terms(fields),
            position_buckets: fields.number("position_buckets", -1.0) as i64,
            share_att_key: fields.flag("share_att_key", false),
            norm_rel_ebd: fields.text("norm_rel_ebd", "none"),
            conv_kernel_size: fields.size("conv_kernel_size").unwrap_or(0),
            conv_groups: fields.size("conv_groups").unwrap_or(1),
            conv_act: fields.activation("conv_act", "tanh"),
            pooler_hidden_act: fields.activation("pooler_hidden_act", "gelu"),
            legacy: fields.flag("legacy", true),
            num_labels,
            tie_word_embeddings: fields.flag("tie_word_embeddings", true),
            pad_token_id: fields.size("pad_token_id").unwrap_or(0),
            initializer_range: fields.number("initializer_range", 0.02),
            extra: fields.rest(),
        }
    }
}

/// A list, or a text with bars between.
fn position_terms(fields: &mut Fields<'_>) -> Vec<String> {
    let Some(value) = fields.value("pos_att_type") else {
        return Vec::new();
    };
    let terms: Option<Vec<String>> = match value {
        Value::String(text) => Some(text.split('|').map(str::to_owned).collect()),
        Value::Array(terms) => terms
            .iter()
            .map(|term| term.as_str().map(str::to_owned))
            .collect(),
        _ => None,
    };
    let Some(terms) = terms else {
        fields.refuse(format!(
            "`pos_att_type` is {value}, expected a list of texts"
        ));
        return Vec::new();
    };
    let terms = terms.iter().map(|term| term.trim().to_lowercase());
    let terms: Vec<String> = terms.filter(|term| !term.is_empty()).collect();
    for term in &terms {
        if !["c2p", "p2c"].contains(&term.as_str()) {
            fields.refuse(format!(
                "`pos_att_type` has `{term}`; only c2p and p2c are built"
            ));
        }
    }
    terms
}

impl Family for DebertaConfig {
    fn model_type(&self) -> &'static str {
        match self.version {
            DebertaVersion::V1 => "deberta",
            DebertaVersion::V2 => "deberta-v2",
        }
    }

    fn class(&self) -> &'static str {
        match self.version {
            DebertaVersion::V1 => "Deberta",
            DebertaVersion::V2 => "DebertaV2",
        }
    }

    fn prefix_with_dot(&self) -> &'static str {
        "deberta."
    }

    fn heads(&self) -> &'static [&'static str] {
        &[
            "cls.",
            "lm_predictions.",
            "mask_predictions.",
            "pooler.",
            "classifier.",
        ]
    }

    fn spec(&self) -> Spec {
        self.parts()
    }

    fn head(&self, task: Task) -> Option<HeadSpec> {
        self.head_of(task)
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
        let mut problems = Vec::new();
        if !self.relative_attention && !self.pos_att_type.is_empty() {
            problems.push("`pos_att_type` names scores without `relative_attention`".into());
        }
        if self.conv_kernel_size > 0 && self.conv_kernel_size.is_multiple_of(2) {
            problems.push(format!(
                "`conv_kernel_size` is {}; only odd widths keep the length",
                self.conv_kernel_size
            ));
        }
        let (d, groups) = (self.hidden_size, self.conv_groups);
        if self.conv_kernel_size > 0 && (groups == 0 || !d.is_multiple_of(groups)) {
            problems.push(format!(
                "`hidden_size` {d} does not divide into `conv_groups` {groups}"
            ));
        }
        if !self.legacy && self.embedding_size != d {
            problems.push(format!(
                "`legacy` false needs an `embedding_size` of `hidden_size`, {} is not {d}",
                self.embedding_size
            ));
        }
        problems
    }

    fn fields(&self) -> Vec<(&'static str, Value)> {
        let mut fields = vec![
            ("vocab_size", json!(self.vocab_size)),
            ("hidden_size", json!(self.hidden_size)),
            ("num_hidden_layers", json!(self.num_hidden_layers)),
            ("num_attention_heads", json!(self.num_attention_heads)),
            ("intermediate_size", json!(self.intermediate_size)),
            (
                "max_position_embeddings",
                json!(self.max_position_embeddings),
            ),
            ("position_biased_input", json!(self.position_biased_input)),
            ("type_vocab_size", json!(self.type_vocab_size)),
            ("hidden_act", json!(self.hidden_act)),
            ("layer_norm_eps", json!(self.layer_norm_eps)),
            ("relative_attention", json!(self.relative_attention)),
            ("max_relative_positions", json!(self.max_relative_positions)),
            ("pos_att_type", json!(self.pos_att_type)),
            ("pooler_hidden_act", json!(self.pooler_hidden_act)),
            ("legacy", json!(self.legacy)),
            ("tie_word_embeddings", json!(self.tie_word_embeddings)),
            ("pad_token_id", json!(self.pad_token_id)),
            ("initializer_range", json!(self.initializer_range)),
        ];
        if self.embedding_size != self.hidden_size {
            fields.push(("embedding_size", json!(self.embedding_size)));
        }
        if self.version == DebertaVersion::V2 {
            fields.extend([
                ("position_buckets", json!(self.position_buckets)),
                ("share_att_key", json!(self.share_att_key)),
                ("norm_rel_ebd", json!(self.norm_rel_ebd)),
                ("conv_kernel_size", json!(self.conv_kernel_size)),
                ("conv_groups", json!(self.conv_groups)),
                ("conv_act", json!(self.conv_act)),
            ]);
        }
        fields
    }

    fn extra(&self) -> &Map<String, Value> {
        &self.extra
    }
}
