//! The families of encoders: for each its configuration, the names of its parts, and its heads.

mod bert;
mod deberta;
mod distilbert;
mod modernbert;

use std::path::Path;

use burn::tensor::DType;
use serde_json::{Map, Value, json};

pub use bert::{BertConfig, BertVariant};
pub use deberta::{DebertaConfig, DebertaVersion};
pub use distilbert::DistilBertConfig;
pub use modernbert::ModernBertConfig;

use super::spec::{HeadSpec, Spec, Task};
use crate::config::{Fields, check, labels, note_dtype, parse, read_folder, to_text};
use crate::error::ConfigError;
use crate::nearest::nearest;
use crate::save::dtype_name;

/// What a family's file says.
pub(crate) trait Family {
    /// The `model_type` of the file.
    fn model_type(&self) -> &'static str;
    /// How Transformers begins the names of the family's classes.
    fn class(&self) -> &'static str;
    /// What heads put in front of the encoder's names, dot included.
    fn prefix_with_dot(&self) -> &'static str;
    /// Beginnings of the tensors of all heads.
    fn heads(&self) -> &'static [&'static str];
    /// The encoder.
    fn spec(&self) -> Spec;
    /// The head of a task, unless the family has none for it.
    fn head(&self, task: Task) -> Option<HeadSpec>;
    /// What the family calls a field of BERT's.
    fn field(&self, name: &'static str) -> &'static str {
        name
    }
    /// The token to pad rows with.
    fn pad_token_id(&self) -> usize;
    fn num_labels(&self) -> usize;
    fn set_num_labels(&mut self, num_labels: usize);

    /// Changes the number of tokens that the embedding holds.
    fn set_vocab_size(&mut self, tokens: usize);
    /// What is wrong with the family's own fields; [`problems`] knows what all share.
    fn problems(&self) -> Vec<String> {
        Vec::new()
    }
    /// The fields, under the names of the file.
    fn fields(&self) -> Vec<(&'static str, Value)>;
    fn extra(&self) -> &Map<String, Value>;
}

/// The configuration of an [`Encoder`](crate::Encoder).
#[derive(Debug, Clone, PartialEq)]
pub enum EncoderConfig {
    /// BERT and the models that differ from it in data only: RoBERTa, XLM-RoBERTa, CamemBERT.
    Bert(BertConfig),
    /// DistilBERT.
    DistilBert(DistilBertConfig),
    /// ModernBERT.
    ModernBert(ModernBertConfig),
    /// DeBERTa, DeBERTa-v2 and v3.
    Deberta(DebertaConfig),
}

/// Reads the fields of a family from a file of this `model_type`.
type Reader = fn(&mut Fields<'_>) -> EncoderConfig;

/// All model types.
const KNOWN: [(&str, Reader); 8] = [
    ("bert", |fields| {
        BertConfig::read_fields(BertVariant::Bert, fields).into()
    }),
    ("roberta", |fields| {
        BertConfig::read_fields(BertVariant::Roberta, fields).into()
    }),
    ("xlm-roberta", |fields| {
        BertConfig::read_fields(BertVariant::XlmRoberta, fields).into()
    }),
    ("camembert", |fields| {
        BertConfig::read_fields(BertVariant::Camembert, fields).into()
    }),
    ("distilbert", |fields| {
        DistilBertConfig::read_fields(fields).into()
    }),
    ("modernbert", |fields| {
        ModernBertConfig::read_fields(fields).into()
    }),
    ("deberta", |fields| {
        DebertaConfig::read_fields(DebertaVersion::V1, fields).into()
    }),
    ("deberta-v2", |fields| {
        DebertaConfig::read_fields(DebertaVersion::V2, fields).into()
    }),
];

macro_rules! from_family {
    ($($config:ident => $variant:ident,)+) => {
        $(
            impl From<$config> for EncoderConfig {
                fn from(config: $config) -> Self {
                    Self::$variant(config)
                }
            }
        )+

        impl EncoderConfig {
            pub(crate) fn family(&self) -> &dyn Family {
                match self {
                    $(Self::$variant(config) => config,)+
                }
            }

            fn family_mut(&mut self) -> &mut dyn Family {
                match self {
                    $(Self::$variant(config) => config,)+
                }
            }
        }
    };
}

from_family! {
    BertConfig => Bert,
    DistilBertConfig => DistilBert,
    ModernBertConfig => ModernBert,
    DebertaConfig => Deberta,
}

impl EncoderConfig {
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
        let names = Self::known();
        let Some((_, read)) = KNOWN.into_iter().find(|(name, _)| *name == model_type) else {
            return Err(ConfigError::UnknownModel {
                nearest: nearest(&model_type, names),
                found: model_type,
                known: names.map(String::from).to_vec(),
            });
        };
        let mut fields = Fields::new(&map);
        let _ = fields.value("model_type");
        refuse_what_is_no_encoder(&mut fields);
        let config = read(&mut fields);
        fields.finish(&model_type)?;
        config.check()?;
        Ok(config)
    }

    /// The text of a `config.json`: every field of this configuration, and those of the file it was read from that it
    /// does not know.
    pub fn to_json(&self) -> String {
        to_text(self.to_map(None))
    }

    pub(crate) fn to_json_for(&self, task: Option<Task>, dtype: DType) -> String {
        let mut map = self.to_map(task);
        note_dtype(&mut map, dtype_name(dtype));
        to_text(map)
    }

    fn to_map(&self, task: Option<Task>) -> Map<String, Value> {
        let family = self.family();
        let mut map = Map::new();
        let ending = task.map_or("Model", Task::class_ending);
        let class = format!("{}{ending}", family.class());
        map.insert("architectures".into(), json!([class]));
        map.insert("model_type".into(), json!(family.model_type()));
        let fields = family.fields();
        map.extend(
            fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value)),
        );
        for (name, value) in family.extra() {
            map.entry(name.clone()).or_insert_with(|| value.clone());
        }
        labels::write(&mut map, family.num_labels());
        map
    }

    /// Whether the sizes fit each other.
    pub fn check(&self) -> Result<(), ConfigError> {
        let family = self.family();
        let mut found = problems(family);
        found.extend(family.problems());
        check(family.model_type(), found)
    }

    /// Whether the family has a head for a task.
    pub(crate) fn check_task(&self, task: Task) -> Result<(), ConfigError> {
        let family = self.family();
        let missing = match family.head(task) {
            Some(_) => Vec::new(),
            None => {
                let class = format!("{}{}", family.class(), task.class_ending());
                vec![format!("there is no {class}")]
            }
        };
        check(family.model_type(), missing)
    }

    /// The `model_type` of the file.
    pub fn model_type(&self) -> &'static str {
        self.family().model_type()
    }

    /// The number of tokens that the embedding holds.
    pub fn vocab_size(&self) -> usize {
        self.spec().vocab_size
    }

    /// The width of the hidden states.
    pub fn hidden_size(&self) -> usize {
        self.spec().hidden_size
    }

    /// The number of blocks.
    pub fn n_layers(&self) -> usize {
        self.spec().n_layers
    }

    /// The longest sequence, in tokens.
    pub fn max_positions(&self) -> usize {
        self.spec().max_length
    }

    /// Kinds of segments (`token_type_ids`); 0 where the encoder knows none.
    pub fn segments(&self) -> usize {
        self.spec().segments
    }

    /// The fields that mean nothing here.
    pub(crate) fn kept(&self) -> &Map<String, Value> {
        self.family().extra()
    }

    /// The labels of a classifying head: `num_labels` of the file, or the number of names under `id2label`, or 2.
    pub fn num_labels(&self) -> usize {
        self.family().num_labels()
    }

    pub(crate) fn set_num_labels(&mut self, num_labels: usize) {
        self.family_mut().set_num_labels(num_labels);
    }

    pub(crate) fn set_vocab_size(&mut self, tokens: usize) {
        self.family_mut().set_vocab_size(tokens);
    }

    pub(crate) fn spec(&self) -> Spec {
        self.family().spec()
    }

    /// The head of a task that [`Self::check_task`] let pass.
    pub(crate) fn head(&self, task: Task) -> HeadSpec {
        let head = self.family().head(task);
        // Both ways to a model, `load` and `init`, check the task first.
        head.unwrap_or_else(|| unreachable!("{} has no head for {task:?}", self.model_type()))
    }
}

/// What encoders of all families cannot be.
fn refuse_what_is_no_encoder(fields: &mut Fields<'_>) {
    for name in ["is_decoder", "add_cross_attention"] {
        if fields.flag(name, false) {
            fields.refuse(format!("`{name}` true is not built"));
        }
    }
    if fields.value("quantization_config").is_some() {
        fields.refuse("`quantization_config`: quantized checkpoints are not read");
    }
}

/// What no encoder can be.
fn problems(family: &dyn Family) -> Vec<String> {
    let (spec, name) = (family.spec(), |field| family.field(field));
    let sizes = [
        ("vocab_size", spec.vocab_size),
        ("hidden_size", spec.hidden_size),
        ("embedding_size", spec.embedding_size),
        ("num_hidden_layers", spec.n_layers),
        ("num_attention_heads", spec.n_heads),
        ("intermediate_size", spec.intermediate_size),
        ("max_position_embeddings", spec.max_length),
        ("num_labels", family.num_labels()),
    ];
    let zero = sizes.iter().filter(|(_, size)| *size == 0);
    let mut problems: Vec<String> = zero
        .map(|(field, _)| format!("`{}` is 0", name(field)))
        .collect();
    let (d, heads) = (spec.hidden_size, spec.n_heads);
    if heads > 0 && !d.is_multiple_of(heads) {
        problems.push(format!(
            "`{}` {d} is not a multiple of `{}` {heads}",
            name("hidden_size"),
            name("num_attention_heads"),
        ));
    }
    let (pad, vocab) = (family.pad_token_id(), spec.vocab_size);
    if vocab > 0 && pad >= vocab {
        problems.push(format!(
            "`pad_token_id` {pad} is not below `vocab_size` {vocab}"
        ));
    }
    problems
}
