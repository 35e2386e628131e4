use serde_json::{Map, Value, json};

use super::Family;
use crate::activation::Activation;
use crate::config::{Fields, labels};
use crate::encoder::spec::{
    HeadSpec, Names, NormOrder, NormSpec, OutputSpec, Pooling, QkvLayout, Spec, Task,
    TransformSpec, ViewSpec,
};

/// `config.json` of ModernBERT (arXiv:2412.13663), its fields under the names they have there.
///
/// [`Default`] gives the base model with two labels. Both spellings of the layers' kinds and of the rotary bases are read:
/// those of Transformers 4 (`global_attn_every_n_layers`, `global_rope_theta`, `local_rope_theta`) and of 5 (`layer_types`,
/// `rope_parameters`). Dropout is not applied, as for BERT.
#[derive(Debug, Clone, PartialEq)]
pub struct ModernBertConfig {
    /// Tokens in the embedding.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of the gated layer.
    pub intermediate_size: usize,
    /// The longest sequence.
    pub max_position_embeddings: usize,
    /// The nonlinearity of the gated layer.
    pub hidden_activation: String,
    /// The epsilon of the norms.
    pub norm_eps: f64,
    /// Whether norms have a bias.
    pub norm_bias: bool,
    /// Whether the linear layers of attention have a bias.
    pub attention_bias: bool,
    /// Whether the gated layer has biases.
    pub mlp_bias: bool,
    /// For each layer `full_attention` or `sliding_attention`.
    pub layer_types: Vec<String>,
    /// How many tokens a local layer sees, half of them to each side.
    pub local_attention: usize,
    /// The base of the rotary positions in global layers.
    pub global_rope_theta: f64,
    /// The base of the rotary positions in local layers.
    pub local_rope_theta: f64,
    /// How a head that classifies sequences pools: `cls` or `mean`.
    pub classifier_pooling: String,
    /// The nonlinearity of heads.
    pub classifier_activation: String,
    /// Whether the linear layer in front of a head's norm has a bias.
    pub classifier_bias: bool,
    /// Whether the head of a masked language model has a bias.
    pub decoder_bias: bool,
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
    words: "embeddings.tok_embeddings",
    embedding_norm: "embeddings.norm",
    layers: "layers",
    qkv: &["attn.Wqkv"],
    attention_output: "attn.Wo",
    attention_norm: "attn_norm",
    inner: "mlp.Wi",
    outer: "mlp.Wo",
    mlp_norm: "mlp_norm",
    final_norm: Some("final_norm"),
    ..super::bert::NAMES
};

const GLOBAL: &str = "full_attention";
const LOCAL: &str = "sliding_attention";

impl Default for ModernBertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 50_368,
            hidden_size: 768,
            num_hidden_layers: 22,
            num_attention_heads: 12,
            intermediate_size: 1152,
            max_position_embeddings: 8192,
            hidden_activation: "gelu".into(),
            norm_eps: 1e-5,
            norm_bias: false,
            attention_bias: false,
            mlp_bias: false,
            layer_types: Self::every(3, 22),
            local_attention: 128,
            global_rope_theta: 160_000.0,
            local_rope_theta: 10_000.0,
            classifier_pooling: "cls".into(),
            classifier_activation: "gelu".into(),
            classifier_bias: false,
            decoder_bias: true,
            pad_token_id: 50_283,
            num_labels: 2,
            tie_word_embeddings: true,
            initializer_range: 0.02,
            extra: Map::new(),
        }
    }
}

impl ModernBertConfig {
    /// The kinds of `layers` layers of which the first and then each `n`th is global.
    pub fn every(n: usize, layers: usize) -> Vec<String> {
        let is_global = |index: usize| n > 0 && index.is_multiple_of(n);
        (0..layers)
            .map(|index| if is_global(index) { GLOBAL } else { LOCAL })
            .map(String::from)
            .collect()
    }

    pub(super) fn read_fields(fields: &mut Fields<'_>) -> Self {
        fields.one_of("classifier_pooling", "cls", &["cls", "mean"]);
        if fields.value("rope_scaling").is_some() {
            fields.refuse("`rope_scaling`: no scaling of rotary positions is built for ModernBERT");
        }
        let num_labels = labels::read(fields);
        let layers = fields.required_size("num_hidden_layers");
        let every = fields.size("global_attn_every_n_layers").unwrap_or(3);
        let mut config = Self {
            vocab_size: fields.required_size("vocab_size"),
            hidden_size: fields.required_size("hidden_size"),
            num_hidden_layers: layers,
            num_attention_heads: fields.required_size("num_attention_heads"),
            intermediate_size: fields.required_size("intermediate_size"),
            max_position_embeddings: fields.size("max_position_embeddings").unwrap_or(8192),
            hidden_activation: fields.activation("hidden_activation", "gelu"),
            norm_eps: fields.number("norm_eps", 1e-5),
            norm_bias: fields.flag("norm_bias", false),
            attention_bias: fields.flag("attention_bias", false),
            mlp_bias: fields.flag("mlp_bias", false),
            layer_types: layer_types(fields).unwrap_or_else(|| Self::every(every, layers)),
            local_attention: fields.size("local_attention").unwrap_or(128),
            global_rope_theta: fields.number("global_rope_theta", 160_000.0),
            local_rope_theta: fields.number("local_rope_theta", 10_000.0),
            classifier_pooling: fields.text("classifier_pooling", "cls"),
            classifier_activation: fields.activation("classifier_activation", "gelu"),
            classifier_bias: fields.flag("classifier_bias", false),
            decoder_bias: fields.flag("decoder_bias", true),
            pad_token_id: fields.size("pad_token_id").unwrap_or(0),
            num_labels,
            tie_word_embeddings: fields.flag("tie_word_embeddings", true),
            initializer_range: fields.number("initializer_range", 0.02),
            extra: Map::new(),
        };
        read_bases(fields, &mut config);
        config.extra = fields.rest();
        config
    }

    fn norm(&self) -> NormSpec {
        NormSpec {
            eps: self.norm_eps,
            bias: self.norm_bias,
        }
    }
}

fn layer_types(fields: &mut Fields<'_>) -> Option<Vec<String>> {
    let value = fields.value("layer_types")?;
    let names = value.as_array().map(|types| {
        let names = types.iter().map(|name| name.as_str().map(String::from));
        names.collect::<Option<Vec<_>>>()
    });
    let names = names.flatten();
    if names.is_none() {
        fields.refuse(format!(
            "`layer_types` is {value}, expected a list of texts"
        ));
    }
    names
}

/// `rope_parameters` says the base for each kind of layer.
fn read_bases(fields: &mut Fields<'_>, config: &mut ModernBertConfig) {
    let Some(value) = fields.value("rope_parameters") else {
        return;
    };
    for (kind, theta) in [
        (GLOBAL, &mut config.global_rope_theta),
        (LOCAL, &mut config.local_rope_theta),
    ] {
        let Some(parameters) = value.get(kind).filter(|value| !value.is_null()) else {
            continue;
        };
        match parameters.get("rope_theta").map(Value::as_f64) {
            Some(Some(base)) => *theta = base,
            Some(None) => fields.refuse(format!(
                "`rope_parameters`: `rope_theta` of `{kind}` is no number"
            )),
            None => {}
        }
        let rope_type = parameters.get("rope_type").and_then(Value::as_str);
        if let Some(other) = rope_type.filter(|name| *name != "default") {
            fields.refuse(format!(
                "`rope_parameters`: rope type `{other}` of `{kind}` is not built; default is"
            ));
        }
    }
}

impl Family for ModernBertConfig {
    fn model_type(&self) -> &'static str {
        "modernbert"
    }

    fn class(&self) -> &'static str {
        "ModernBert"
    }

    fn prefix_with_dot(&self) -> &'static str {
        "model."
    }

    fn heads(&self) -> &'static [&'static str] {
        &["head.", "decoder.", "classifier."]
    }

    fn spec(&self) -> Spec {
        let is_local = |name: &String| usize::from(name == LOCAL);
        Spec {
            prefix: "model",
            names: NAMES,
            vocab_size: self.vocab_size,
            embedding_size: self.hidden_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            n_layers: self.num_hidden_layers,
            n_heads: self.num_attention_heads,
            norm: self.norm(),
            order: NormOrder::Pre,
            activation: Activation::from_name(&self.hidden_activation).unwrap_or(Activation::Gelu),
            gated: true,
            attention_bias: self.attention_bias,
            mlp_bias: self.mlp_bias,
            qkv: QkvLayout::Fused,
            learned: None,
            max_length: self.max_position_embeddings,
            segments: 0,
            views: vec![
                ViewSpec {
                    reach: None,
                    theta: Some(self.global_rope_theta),
                },
                ViewSpec {
                    reach: Some(self.local_attention / 2),
                    theta: Some(self.local_rope_theta),
                },
            ],
            view_of_layer: self.layer_types.iter().map(is_local).collect(),
            disentangled: None,
            conv: None,
            std: self.initializer_range,
        }
    }

    fn head(&self, task: Task) -> Option<HeadSpec> {
        let activation = Activation::from_name(&self.classifier_activation);
        let embedding = "model.embeddings.tok_embeddings.weight";
        let (output, last) = match task {
            Task::MaskedLm => {
                let (tied, bias) = (
                    self.tie_word_embeddings,
                    self.decoder_bias.then_some("decoder"),
                );
                let output = OutputSpec::of_words(tied, "decoder", bias, embedding);
                (output, "decoder")
            }
            _ => (OutputSpec::Linear("classifier".into()), "classifier"),
        };
        Some(HeadSpec {
            pooling: match self.classifier_pooling.as_str() {
                "mean" => Pooling::Mean,
                _ => Pooling::First,
            },
            transform: Some(TransformSpec {
                dense: "head.dense".into(),
                bias: self.classifier_bias,
                activation: activation.unwrap_or(Activation::Gelu),
                norm: Some(("head.norm".into(), self.norm())),
            }),
            output,
            modules: vec!["head".into(), last.into()],
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
        let mut problems = Vec::new();
        let (types, layers) = (&self.layer_types, self.num_hidden_layers);
        if types.len() != layers {
            problems.push(format!(
                "`layer_types` names {} layers, `num_hidden_layers` is {layers}",
                types.len()
            ));
        }
        let known = |name: &&String| ![GLOBAL, LOCAL].contains(&name.as_str());
        if let Some(name) = types.iter().find(known) {
            problems.push(format!(
                "`layer_types` has `{name}`; only {GLOBAL} and {LOCAL} are built"
            ));
        }
        let (d, heads) = (self.hidden_size, self.num_attention_heads);
        if heads > 0 && d.is_multiple_of(heads) && !(d / heads).is_multiple_of(2) {
            problems.push(format!(
                "heads of {} have no halves to rotate; the width must be even",
                d / heads
            ));
        }
        for (name, theta) in [
            ("global", self.global_rope_theta),
            ("local", self.local_rope_theta),
        ] {
            if theta.is_nan() || theta <= 0.0 {
                problems.push(format!("`{name}_rope_theta` is {theta}, not above 0"));
            }
        }
        problems
    }

    fn fields(&self) -> Vec<(&'static str, Value)> {
        let rope = |theta: f64| json!({"rope_type": "default", "rope_theta": theta});
        let period = (1..=self.num_hidden_layers.max(1))
            .find(|n| Self::every(*n, self.num_hidden_layers) == self.layer_types);
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
            ("hidden_activation", json!(self.hidden_activation)),
            ("norm_eps", json!(self.norm_eps)),
            ("norm_bias", json!(self.norm_bias)),
            ("attention_bias", json!(self.attention_bias)),
            ("mlp_bias", json!(self.mlp_bias)),
            ("layer_types", json!(self.layer_types)),
            ("local_attention", json!(self.local_attention)),
            ("global_rope_theta", json!(self.global_rope_theta)),
            ("local_rope_theta", json!(self.local_rope_theta)),
            (
                "rope_parameters",
                json!({GLOBAL: rope(self.global_rope_theta), LOCAL: rope(self.local_rope_theta)}),
            ),
            ("classifier_pooling", json!(self.classifier_pooling)),
            ("classifier_activation", json!(self.classifier_activation)),
            ("classifier_bias", json!(self.classifier_bias)),
            ("decoder_bias", json!(self.decoder_bias)),
            ("pad_token_id", json!(self.pad_token_id)),
            ("tie_word_embeddings", json!(self.tie_word_embeddings)),
            ("initializer_range", json!(self.initializer_range)),
        ];
        // Transformers 4 can say no other order.
        fields.extend(period.map(|n| ("global_attn_every_n_layers", json!(n))));
        fields
    }

    fn extra(&self) -> &Map<String, Value> {
        &self.extra
    }
}
