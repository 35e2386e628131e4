use std::path::Path;

use serde_json::{Map, Value, json};

use crate::activation::Activation;
use crate::config::{Fields, check, parse, read_folder, to_text};
use crate::error::ConfigError;
use crate::nearest::nearest;

/// All model types.
const KNOWN: [(&str, T5Variant); 2] = [("t5", T5Variant::T5), ("mt5", T5Variant::Mt5)];

/// `config.json` of T5 (arXiv:1910.10683), T5 1.1, Flan-T5 and mT5 (arXiv:2010.11934), its fields under the names they have
/// there.
///
/// [`Default`] gives T5 small. Dropout is not applied.
#[derive(Debug, Clone, PartialEq)]
pub struct T5Config {
    /// Which of the family it is.
    pub variant: T5Variant,
    /// Tokens in the embedding.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Width of a head, which need not divide `d_model`.
    pub d_kv: usize,
    /// Width of the inner layer.
    pub d_ff: usize,
    /// Blocks of the encoder.
    pub num_layers: usize,
    /// Blocks of the decoder.
    pub num_decoder_layers: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Buckets of distances, of which each has a bias.
    pub relative_attention_num_buckets: usize,
    /// Distances from here on share a bucket.
    pub relative_attention_max_distance: usize,
    /// The epsilon of the norms.
    pub layer_norm_epsilon: f64,
    /// The inner layer: a nonlinearity, with `gated-` in front where a second layer multiplies it.
    pub feed_forward_proj: String,
    /// Whether the head is the transposed embedding.
    ///
    /// Transformers 5 writes `true` whatever the head is; a folder whose `lm_head.weight` is not its `shared.weight` has a
    /// head of its own, as there.
    pub tie_word_embeddings: bool,
    /// Whether the head's input is divided by the square root of `d_model`: in the original T5, not in 1.1.
    pub scale_decoder_outputs: bool,
    /// The token to pad rows with.
    pub pad_token_id: u32,
    /// The token that ends an answer.
    pub eos_token_id: u32,
    /// The token that the decoder starts from.
    pub decoder_start_token_id: u32,
    /// What the spread of fresh weights is multiplied by.
    pub initializer_factor: f64,
    /// The fields of the file that mean nothing here, kept for writing.
    pub extra: Map<String, Value>,
}

/// The models with T5's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum T5Variant {
    /// T5, T5 1.1 and Flan-T5.
    #[default]
    T5,
    /// mT5: T5 1.1 over a vocabulary of many languages. What the head looks at is never scaled.
    Mt5,
}

impl T5Variant {
    fn model_type(self) -> &'static str {
        match self {
            Self::T5 => "t5",
            Self::Mt5 => "mt5",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::T5 => "T5ForConditionalGeneration",
            Self::Mt5 => "MT5ForConditionalGeneration",
        }
    }
}

impl Default for T5Config {
    fn default() -> Self {
        Self {
            variant: T5Variant::T5,
            vocab_size: 32_128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_decoder_layers: 6,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: "relu".into(),
            tie_word_embeddings: true,
            scale_decoder_outputs: true,
            pad_token_id: 0,
            eos_token_id: 1,
            decoder_start_token_id: 0,
            initializer_factor: 1.0,
            extra: Map::new(),
        }
    }
}

impl T5Config {
    /// Every `model_type`.
    pub(crate) fn known() -> [&'static str; KNOWN.len()] {
        KNOWN.map(|(name, _)| name)
    }

    /// Reads `config.json` in a folder.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        read_folder(dir, Self::from_json)
    }

    /// Reads the text of a `config.json`.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let (model_type, map) = parse(text)?;
        let mut known = KNOWN.into_iter();
        let Some((_, variant)) = known.find(|(name, _)| *name == model_type) else {
            let names = Self::known();
            return Err(ConfigError::UnknownModel {
                nearest: nearest(&model_type, names),
                found: model_type,
                known: names.map(String::from).to_vec(),
            });
        };
        let mut fields = Fields::new(&map);
        let config = Self::read_fields(variant, &mut fields);
        fields.finish(&model_type)?;
        config.check()?;
        Ok(config)
    }

    /// The `model_type` of the file.
    pub fn model_type(&self) -> &'static str {
        self.variant.model_type()
    }

    /// What Transformers calls the class.
    pub(crate) fn architecture(&self) -> &'static str {
        self.variant.class()
    }

    fn read_fields(variant: T5Variant, fields: &mut Fields<'_>) -> Self {
        // Made of `feed_forward_proj` by Transformers, which writes them beside it.
        for name in ["model_type", "dense_act_fn", "is_gated_act"] {
            let _ = fields.value(name);
        }
        if fields.flag("is_decoder", false) {
            fields.refuse("`is_decoder` true is not built");
        }
        if fields.value("quantization_config").is_some() {
            fields.refuse("`quantization_config`: quantized checkpoints are not read");
        }
        let layers = fields.required_size("num_layers");
        let pad = token(fields, "pad_token_id", 0);
        let tied = fields.flag("tie_word_embeddings", true);
        let (inner, scaled) = match variant {
            T5Variant::T5 => ("relu", fields.flag("scale_decoder_outputs", tied)),
            T5Variant::Mt5 => ("gated-gelu", false),
        };
        Self {
            variant,
            vocab_size: fields.required_size("vocab_size"),
            d_model: fields.required_size("d_model"),
            d_kv: fields.required_size("d_kv"),
            d_ff: fields.required_size("d_ff"),
            num_layers: layers,
            num_decoder_layers: fields.size("num_decoder_layers").unwrap_or(layers),
            num_heads: fields.required_size("num_heads"),
            relative_attention_num_buckets: fields
                .size("relative_attention_num_buckets")
                .unwrap_or(32),
            relative_attention_max_distance: fields
                .size("relative_attention_max_distance")
                .unwrap_or(128),
            layer_norm_epsilon: fields.number("layer_norm_epsilon", 1e-6),
            feed_forward_proj: fields.text("feed_forward_proj", inner),
            tie_word_embeddings: tied,
            scale_decoder_outputs: scaled,
            pad_token_id: pad,
            eos_token_id: token(fields, "eos_token_id", 1),
            decoder_start_token_id: token(fields, "decoder_start_token_id", pad),
            initializer_factor: fields.number("initializer_factor", 1.0),
            extra: fields.rest(),
        }
    }

    /// The text of a `config.json`: every field of this configuration, and those of the file it was read from that it
    /// does not know.
    pub fn to_json(&self) -> String {
        to_text(self.to_map())
    }

    /// Whether the sizes fit each other.
    pub fn check(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("d_model", self.d_model),
            ("d_kv", self.d_kv),
            ("d_ff", self.d_ff),
            ("num_layers", self.num_layers),
            ("num_decoder_layers", self.num_decoder_layers),
            ("num_heads", self.num_heads),
        ];
        let zero = sizes.iter().filter(|(_, size)| *size == 0);
        let mut problems: Vec<String> = zero.map(|(name, _)| format!("`{name}` is 0")).collect();
        let (buckets, far) = (
            self.relative_attention_num_buckets,
            self.relative_attention_max_distance,
        );
        if buckets < 4 || !buckets.is_multiple_of(4) {
            problems.push(format!(
                "`relative_attention_num_buckets` is {buckets}, not a multiple of 4"
            ));
        } else if far <= buckets / 2 {
            problems.push(format!(
                "`relative_attention_max_distance` {far} is not above half of `relative_attention_num_buckets` {buckets}"
            ));
        }
        let (name, _) = self.inner();
        if Activation::from_name(name).is_none() {
            let (found, known) = (&self.feed_forward_proj, Activation::known());
            problems.push(format!(
                "`feed_forward_proj` is `{found}`; built are {known}, each with or without `gated-`"
            ));
        }
        for (name, id) in [
            ("pad_token_id", self.pad_token_id),
            ("decoder_start_token_id", self.decoder_start_token_id),
        ] {
            if self.vocab_size > 0 && id as usize >= self.vocab_size {
                let known = self.vocab_size;
                problems.push(format!("`{name}` {id} is not below `vocab_size` {known}"));
            }
        }
        if self.variant == T5Variant::Mt5 && self.scale_decoder_outputs {
            problems.push("`scale_decoder_outputs` is of T5, no mT5 has it".into());
        }
        check(self.model_type(), problems)
    }

    /// The name of the inner layer's nonlinearity, and whether it is gated.
    fn inner(&self) -> (&str, bool) {
        match self.feed_forward_proj.as_str() {
            // What the word has meant from the first published folder on.
            "gated-gelu" => ("gelu_new", true),
            name => match name.strip_prefix("gated-") {
                Some(name) => (name, true),
                None => (name, false),
            },
        }
    }

    pub(crate) fn is_gated(&self) -> bool {
        self.inner().1
    }

    pub(crate) fn activation(&self) -> Activation {
        Activation::from_name(self.inner().0).unwrap_or(Activation::Relu)
    }

    fn to_map(&self) -> Map<String, Value> {
        let fields = [
            ("architectures", json!([self.architecture()])),
            ("model_type", json!(self.model_type())),
            ("is_encoder_decoder", json!(true)),
            ("vocab_size", json!(self.vocab_size)),
            ("d_model", json!(self.d_model)),
            ("d_kv", json!(self.d_kv)),
            ("d_ff", json!(self.d_ff)),
            ("num_layers", json!(self.num_layers)),
            ("num_decoder_layers", json!(self.num_decoder_layers)),
            ("num_heads", json!(self.num_heads)),
            (
                "relative_attention_num_buckets",
                json!(self.relative_attention_num_buckets),
            ),
            (
                "relative_attention_max_distance",
                json!(self.relative_attention_max_distance),
            ),
            ("layer_norm_epsilon", json!(self.layer_norm_epsilon)),
            ("feed_forward_proj", json!(self.feed_forward_proj)),
            ("tie_word_embeddings", json!(self.tie_word_embeddings)),
            ("pad_token_id", json!(self.pad_token_id)),
            ("eos_token_id", json!(self.eos_token_id)),
            ("decoder_start_token_id", json!(self.decoder_start_token_id)),
            ("initializer_factor", json!(self.initializer_factor)),
        ];
        let fields = fields.map(|(name, value)| (name.to_owned(), value));
        let mut map: Map<String, Value> = fields.into_iter().collect();
        if self.variant == T5Variant::T5 {
            let scaled = self.scale_decoder_outputs.into();
            map.insert("scale_decoder_outputs".into(), scaled);
        }
        for (name, value) in &self.extra {
            map.entry(name.clone()).or_insert_with(|| value.clone());
        }
        map
    }
}

fn token(fields: &mut Fields<'_>, name: &'static str, default: u32) -> u32 {
    let id = fields.size(name).map(u32::try_from);
    match id {
        Some(Ok(id)) => id,
        Some(Err(_)) => {
            fields.refuse(format!("`{name}` is no token"));
            default
        }
        None => default,
    }
}
