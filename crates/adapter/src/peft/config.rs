use serde_json::{Map, Value};

use super::fields::{Fields, as_flags, as_texts};
use super::options::{read_exclude, read_layers, read_lora_options, read_options};
use crate::beside::TrainedBiases;
use crate::config::LoraConfig;
use crate::error::nearest;
use crate::initial::{INITIALIZATIONS, Initialization};
use crate::method::{AdaLoraConfig, Ia3Config, LoHaConfig, LoKrConfig, MethodConfig, VeraConfig};
use crate::targets::Targets;

/// `adapter_config.json`, in PEFT's words.
///
/// Fields that say nothing of the adapter, those of newer versions among them, are kept in `other` and written back.
#[derive(Clone, Debug)]
pub struct PeftConfig {
    /// The method, `LORA`.
    pub peft_type: String,
    /// What the model is for, `CAUSAL_LM`.
    pub task_type: Option<String>,
    /// Where the base came from.
    pub base_model_name_or_path: Option<String>,
    /// Whether the adapter was saved for inference.
    pub inference_mode: bool,
    /// Which layers.
    pub target_modules: Option<TargetModules>,
    /// Which targeted layers not.
    pub exclude_modules: Option<TargetModules>,
    /// Modules that are trained as a whole and lie in the folder beside the adapter.
    pub modules_to_save: Option<Vec<String>>,
    /// Whether the weights of the adapted layers are stored `[in, out]`.
    pub fan_in_fan_out: bool,
    /// The adapter, in this crate's words.
    pub(crate) adapter: LoraConfig,
    /// What the factors started from, where a reader has to take it from the base before the factors mean anything.
    pub(crate) start: Option<Initialization>,
    /// Fields whose value this crate cannot honor.
    pub(crate) unsupported: Vec<String>,
    /// Everything else.
    pub other: Map<String, Value>,
}

/// PEFT's two ways to name layers.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetModules {
    /// A regular expression, or `all-linear`.
    Expression(String),
    /// Names or ends of paths.
    Names(Vec<String>),
}

impl From<&Targets> for TargetModules {
    fn from(targets: &Targets) -> Self {
        match targets {
            Targets::Names(names) => Self::Names(names.clone()),
            Targets::Regex(text) => Self::Expression(text.clone()),
            Targets::AllLinear => Self::Expression("all-linear".to_string()),
        }
    }
}

impl From<&TargetModules> for Targets {
    fn from(modules: &TargetModules) -> Self {
        match modules {
            TargetModules::Names(names) => Self::Names(names.clone()),
            TargetModules::Expression(text) if text == "all-linear" => Self::AllLinear,
            TargetModules::Expression(text) => Self::Regex(text.clone()),
        }
    }
}

impl TargetModules {
    pub(super) fn read(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Expression(text.clone())),
            value => as_texts(value).map(Self::Names),
        }
    }

    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Expression(text) => text.clone().into(),
            Self::Names(names) => names.clone().into(),
        }
    }
}

/// The methods that are read, by PEFT's names and, after them, ours.
const PEFT_TYPES: [&str; 9] = [
    "LORA",
    "VERA",
    "LOHA",
    "LOKR",
    "ADALORA",
    "IA3",
    "TRAINABLE_TOKENS",
    "BITFIT",
    "FULL",
];

/// Fields of PEFT that change what an adapter computes and that are not supported, with the values that are harmless.
const UNSUPPORTED: [(&str, &[&str]); 9] = [
    ("target_parameters", &["null", "[]"]),
    ("layer_replication", &["null"]),
    ("megatron_config", &["null"]),
    ("alora_invocation_tokens", &["null"]),
    ("use_qalora", &["false", "null"]),
    ("use_bdlora", &["false", "null"]),
    ("arrow_config", &["null"]),
    ("monteclora_config", &["null"]),
    ("kappa_tune_config", &["null"]),
];

/// Initializations that leave the base as it is, so that an adapter alone says what was trained.
const PLAIN_INITS: [&str; 6] = [
    "true",
    "false",
    "\"gaussian\"",
    "\"orthogonal\"",
    "\"eva\"",
    "null",
];

impl PeftConfig {
    /// Reads the fields, and beside them what is wrong with any: a wrong type, or a value that none has. Such fields are read as
    /// if they were not there.
    pub(super) fn read(map: Map<String, Value>) -> (Self, Vec<String>) {
        let mut fields = Fields::new(map);
        let mut unsupported = Vec::new();
        let peft_type = fields.text("peft_type").unwrap_or_default();
        if !PEFT_TYPES.contains(&peft_type.as_str()) {
            let hint = nearest(&peft_type, PEFT_TYPES);
            let hint = hint.map_or(String::new(), |hint| format!(" (did you mean {hint}?)"));
            unsupported.push(format!(
                "peft_type \"{peft_type}\"{hint}; read are {}",
                PEFT_TYPES.join(", ")
            ));
        }
        let target_modules = fields.optional(
            "target_modules",
            "names or an expression",
            TargetModules::read,
        );
        let modules_to_save = fields.texts("modules_to_save");
        let mut adapter = LoraConfig {
            modules_to_save: modules_to_save.clone().unwrap_or_default(),
            ..LoraConfig::new(8, 8.0)
        };
        read_exclude(&mut fields, &mut adapter);
        read_layers(&mut fields, &mut adapter);
        match &target_modules {
            Some(targets) => adapter.targets = targets.into(),
            // The tokens of PEFT's own method are those of the input's embedding, unless another is named.
            None if peft_type == "TRAINABLE_TOKENS" => {}
            // What stands beside the weights has none; that it is read elsewhere is told below.
            None if !PEFT_TYPES.contains(&peft_type.as_str()) => {}
            None => fields
                .faults
                .push("target_modules is missing: it says which layers are adapted".to_string()),
        }
        let start = read_method(&peft_type, &mut fields, &mut adapter, &mut unsupported);
        for (field, harmless) in UNSUPPORTED {
            fields.refuse_unless(field, harmless, &mut unsupported);
        }
        let biases = "none, all or lora_only";
        let read_biases = |value: &Value| TrainedBiases::parse(value.as_str()?);
        adapter.trained_biases = fields
            .optional("bias", biases, read_biases)
            .unwrap_or_default();
        let task_type = fields.text("task_type");
        let base_model_name_or_path = fields.text("base_model_name_or_path");
        let inference_mode = fields.flag("inference_mode", false);
        let fan_in_fan_out = fields.flag("fan_in_fan_out", false);
        let (other, faults) = fields.rest();
        let config = Self {
            peft_type,
            task_type,
            base_model_name_or_path,
            inference_mode,
            target_modules,
            exclude_modules: adapter.exclude.as_ref().map(Into::into),
            modules_to_save,
            fan_in_fan_out,
            adapter,
            start,
            unsupported,
            other,
        };
        (config, faults)
    }

    /// Whether its method is one that is read.
    pub(super) fn has_known_method(&self) -> bool {
        PEFT_TYPES.contains(&self.peft_type.as_str())
    }
}

/// The fields of one method: those that every run sets, then its options.
fn read_method(
    peft_type: &str,
    fields: &mut Fields,
    adapter: &mut LoraConfig,
    unsupported: &mut Vec<String>,
) -> Option<Initialization> {
    let mut init = |fields: &mut Fields, name: &str| {
        fields.refuse_unless(name, &PLAIN_INITS, unsupported);
        let _ = fields.optional(name, "", |_| Some(()));
    };
    let mut start = None;
    match peft_type {
        "LORA" => {
            read_lora(fields, adapter);
            adapter.rank = fields.count("r", 8);
            if fields.flag("use_dora", false) {
                adapter.method = MethodConfig::Dora;
            }
            start = read_start(fields, unsupported);
        }
        "ADALORA" => {
            read_lora(fields, adapter);
            // Those of LoRA, which it does not have: who sets them is told.
            read_lora_options(fields, adapter);
            adapter.rank = fields.count("init_r", 12);
            let default = AdaLoraConfig::default();
            let kept = fields.entries("rank_pattern", "a list of true and false", as_flags);
            let kept = kept.unwrap_or_default().into_iter().map(|(name, kept)| {
                let layer = name.strip_suffix(".default").unwrap_or(&name);
                (
                    layer.strip_suffix(".lora_E").unwrap_or(layer).to_string(),
                    kept,
                )
            });
            adapter.method = MethodConfig::AdaLora(AdaLoraConfig {
                total_steps: fields.count("total_step", default.total_steps),
                kept: kept.collect(),
                ..default
            });
            init(fields, "init_lora_weights");
        }
        "VERA" => {
            adapter.rank = fields.count("r", 256);
            adapter.dropout = fields.number("vera_dropout", 0.0);
            adapter.method = MethodConfig::Vera(VeraConfig::default());
            init(fields, "init_weights");
        }
        "LOHA" | "LOKR" => {
            adapter.rank = fields.count("r", 8);
            adapter.alpha = fields.number("alpha", 8.0);
            adapter.method = match peft_type {
                "LOHA" => MethodConfig::LoHa(LoHaConfig::default()),
                _ => MethodConfig::LoKr(LoKrConfig::default()),
            };
            let _ = fields.optional("init_weights", "", |_| Some(()));
        }
        "IA3" => {
            adapter.method = MethodConfig::Ia3(Ia3Config::default());
            let _ = fields.optional("init_ia3_weights", "", |_| Some(()));
        }
        "TRAINABLE_TOKENS" => {
            adapter.method = MethodConfig::Tokens(Vec::new());
            let _ = fields.optional("init_weights", "", |_| Some(()));
        }
        "BITFIT" => adapter.method = MethodConfig::BitFit,
        "FULL" => adapter.method = MethodConfig::Full,
        _ => return None,
    }
    read_options(fields, adapter);
    start
}

/// What the factors of LoRA started from, as far as the base that they are over depends on it.
///
/// When PEFT loads an adapter, it initializes it anew, and with it changes the base as it did before the training. `pissa` and
/// `olora` do so in a way that follows from the weights alone.
fn read_start(fields: &mut Fields, unsupported: &mut Vec<String>) -> Option<Initialization> {
    let turns = matches!(fields.peek("fan_in_fan_out"), Some(Value::Bool(true)));
    let word = fields.optional(
        "init_lora_weights",
        "true, false or a word",
        |value| match value {
            Value::Bool(_) => Some("true".to_string()),
            value => value.as_str().map(str::to_lowercase),
        },
    )?;
    let initialization = Initialization::parse(&word);
    let mut refuse = |why: &str| {
        unsupported.push(format!("init_lora_weights \"{word}\": {why} ({RESIDUAL})"));
    };
    match (initialization, word.as_str()) {
        (_, "true" | "gaussian" | "mica") => None,
        (Some(Initialization::Orthogonal | Initialization::Eva(_)), _) => None,
        (Some(Initialization::Olora), _) if turns => {
            refuse("PEFT decomposes weights that lie [in, out] the wrong way around");
            None
        }
        (Some(plain @ (Initialization::Pissa { iterations: None } | Initialization::Olora)), _) => {
            Some(plain)
        }
        (Some(Initialization::Pissa { .. }), _) => {
            refuse("the random sketch that its base was made by is not to be had again");
            None
        }
        (Some(Initialization::LoftQ(_)), _) => {
            refuse("its base was quantized by bitsandbytes");
            None
        }
        (Some(Initialization::Corda(_) | Initialization::LoraGa(_)), _) => {
            refuse("its base was made by data that the folder does not hold");
            None
        }
        (None, _) => {
            let words = INITIALIZATIONS.iter().map(|info| info.word);
            let hint = nearest(&word, words);
            let hint = hint.map_or(String::new(), |word| format!(" (did you mean \"{word}\"?)"));
            unsupported.push(format!("init_lora_weights \"{word}\"{hint}"));
            None
        }
    }
}

/// What helps against a base that cannot be made again.
const RESIDUAL: &str = "have PEFT save it as plain LoRA: save_pretrained with path_initial_model_for_weight_conversion, the \
                        folder of the adapter before the training; or, to use it over the base that it was trained over, set \
                        the field to true";

/// What LoRA and AdaLoRA have in common.
fn read_lora(fields: &mut Fields, adapter: &mut LoraConfig) {
    adapter.alpha = fields.number("lora_alpha", 8.0);
    adapter.dropout = fields.number("lora_dropout", 0.0);
    adapter.use_rslora = fields.flag("use_rslora", false);
}
