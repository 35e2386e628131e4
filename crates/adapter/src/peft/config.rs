use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::LoraConfig;
use crate::init::LoraInit;
use crate::targets::Targets;

/// `adapter_config.json`, in PEFT's words.
///
/// Fields that are not listed here, those of newer versions among them, are kept in `other` and written back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeftConfig {
    /// The method; only `LORA` is read here.
    pub peft_type: String,
    /// What the model is for, `CAUSAL_LM`.
    #[serde(default)]
    pub task_type: Option<String>,
    /// Where the base came from.
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
    /// Whether the adapter was saved for inference.
    #[serde(default)]
    pub inference_mode: bool,
    /// The rank.
    #[serde(default = "eight")]
    pub r: usize,
    /// Numerator of the scale.
    #[serde(default = "eight_f64")]
    pub lora_alpha: f64,
    /// Dropout on the adapters' inputs.
    #[serde(default)]
    pub lora_dropout: f64,
    /// `alpha / sqrt(r)` instead of `alpha / r`.
    #[serde(default)]
    pub use_rslora: bool,
    /// Which layers.
    #[serde(default)]
    pub target_modules: Option<TargetModules>,
    /// Which targeted layers not.
    #[serde(default)]
    pub exclude_modules: Option<TargetModules>,
    /// Indices of the layers that are adapted.
    #[serde(default)]
    pub layers_to_transform: Option<Layers>,
    /// Ranks of single layers.
    #[serde(default)]
    pub rank_pattern: Map<String, Value>,
    /// Alphas of single layers.
    #[serde(default)]
    pub alpha_pattern: Map<String, Value>,
    /// How the factors started: a flag or a name.
    #[serde(default = "yes")]
    pub init_lora_weights: Value,
    /// Modules that are trained as a whole and lie in the folder beside the factors.
    #[serde(default)]
    pub modules_to_save: Option<Vec<String>>,
    /// Which biases are trained.
    #[serde(default = "none")]
    pub bias: String,
    /// Whether the weights of the adapted layers are stored `[in, out]`.
    #[serde(default)]
    pub fan_in_fan_out: bool,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// PEFT's two ways to name layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    /// A regular expression, or `all-linear`.
    Expression(String),
    /// Names or ends of paths.
    Names(Vec<String>),
}

/// One layer index, or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Layers {
    /// One.
    One(usize),
    /// Several.
    Many(Vec<usize>),
}

fn eight() -> usize {
    8
}

fn eight_f64() -> f64 {
    8.0
}

fn yes() -> Value {
    Value::Bool(true)
}

fn none() -> String {
    "none".to_string()
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

/// Fields of PEFT that change what an adapter computes and that are not supported, with the values that are harmless.
const UNSUPPORTED: [(&str, &[&str]); 11] = [
    ("use_dora", &["false", "null"]),
    ("lora_bias", &["false", "null"]),
    ("trainable_token_indices", &["null"]),
    ("target_parameters", &["null", "[]"]),
    ("layer_replication", &["null"]),
    ("megatron_config", &["null"]),
    ("alora_invocation_tokens", &["null"]),
    ("use_qalora", &["false", "null"]),
    ("use_bdlora", &["false", "null"]),
    ("arrow_config", &["null"]),
    ("layers_pattern", &["null", "[]"]),
];

/// Initializations that leave the base as it is, so that an adapter alone says what was trained.
const PLAIN_INITS: [&str; 5] = ["true", "false", "\"gaussian\"", "\"orthogonal\"", "\"eva\""];

impl PeftConfig {
    /// Every field whose value this crate cannot honor.
    pub(crate) fn unsupported(&self) -> Vec<String> {
        let mut features = Vec::new();
        if self.peft_type != "LORA" {
            features.push(format!(
                "peft_type \"{}\"; LORA is read here",
                self.peft_type
            ));
        }
        if self.bias != "none" {
            features.push(format!("bias \"{}\"", self.bias));
        }
        let init = self.init_lora_weights.to_string();
        if !PLAIN_INITS.contains(&init.as_str()) {
            features.push(format!(
                "init_lora_weights {init}, which also changes the base; convert the adapter to plain LoRA in PEFT"
            ));
        }
        for (field, harmless) in UNSUPPORTED {
            if let Some(value) = self.other.get(field) {
                let value = value.to_string();
                if !harmless.contains(&value.as_str()) {
                    features.push(format!("{field} {value}"));
                }
            }
        }
        features
    }

    /// The configuration in this crate's words. Faults are values of the wrong type.
    pub(crate) fn to_lora(&self) -> Result<LoraConfig, Vec<String>> {
        let mut faults = Vec::new();
        let rank_pattern = entries(&self.rank_pattern, "rank_pattern", &mut faults, |value| {
            value.as_u64().and_then(|rank| usize::try_from(rank).ok())
        });
        let alpha_pattern = entries(
            &self.alpha_pattern,
            "alpha_pattern",
            &mut faults,
            Value::as_f64,
        );
        let Some(targets) = &self.target_modules else {
            faults.push("target_modules is missing: it says which layers are adapted".to_string());
            return Err(faults);
        };
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(LoraConfig {
            rank: self.r,
            alpha: self.lora_alpha,
            dropout: self.lora_dropout,
            use_rslora: self.use_rslora,
            targets: targets.into(),
            exclude: self.exclude_modules.as_ref().map(Into::into),
            layers_to_transform: self
                .layers_to_transform
                .as_ref()
                .map(|layers| match layers {
                    Layers::One(layer) => vec![*layer],
                    Layers::Many(layers) => layers.clone(),
                }),
            rank_pattern,
            alpha_pattern,
            modules_to_save: self.modules_to_save.clone().unwrap_or_default(),
            init: LoraInit::default(),
            seed: 0,
        })
    }
}

fn entries<T>(
    map: &Map<String, Value>,
    field: &str,
    faults: &mut Vec<String>,
    read: impl Fn(&Value) -> Option<T>,
) -> Vec<(String, T)> {
    let mut found = Vec::new();
    for (key, value) in map {
        match read(value) {
            Some(value) => found.push((key.clone(), value)),
            None => faults.push(format!("{field} has the value {value} for \"{key}\"")),
        }
    }
    found
}
