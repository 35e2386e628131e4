mod settings;

use std::fmt;

use burn_lora_transformer::{
    Activation, BottleneckConfig, BottleneckPlacement, PART_METHODS, PartConfig, PromptEncoderKind,
    PromptInit, VirtualTokensConfig, WithParts,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

pub use settings::{
    BottleneckSettings, EncoderType, PTuningSettings, Placement, PrefixSettings, PromptSettings,
    PromptStart,
};

/// Settings of a method that stands beside the weights, by the names that PEFT's configurations have for them, or a folder of ours.
///
/// In a configuration file they are a section with the `method` among them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "method")]
pub enum PartSettings {
    /// Prompt tuning: embeddings in front of every sequence.
    #[serde(rename = "prompt")]
    Prompt(PromptSettings),
    /// P-tuning: embeddings that a small network makes.
    #[serde(rename = "p-tuning")]
    PTuning(PTuningSettings),
    /// Prefix tuning: keys and values in front of those of every layer.
    #[serde(rename = "prefix")]
    Prefix(PrefixSettings),
    /// Bottleneck adapters: small networks inside every block.
    #[serde(rename = "bottleneck")]
    Bottleneck(BottleneckSettings),
}

/// The most tokens and the widest network that anything is planned for.
const MOST: usize = 1 << 20;
/// The most LSTMs.
const MOST_LAYERS: usize = 100;

impl PartSettings {
    /// The defaults of the method of a word, if it is one of these.
    pub fn of(word: &str) -> Option<Self> {
        Some(match plain(word).as_str() {
            "prompt" => Self::Prompt(PromptSettings::default()),
            "p-tuning" => Self::PTuning(PTuningSettings::default()),
            "prefix" => Self::Prefix(PrefixSettings::default()),
            "bottleneck" => Self::Bottleneck(BottleneckSettings::default()),
            _ => return None,
        })
    }

    /// The word for the method.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Prompt(_) => "prompt",
            Self::PTuning(_) => "p-tuning",
            Self::Prefix(_) => "prefix",
            Self::Bottleneck(_) => "bottleneck",
        }
    }

    /// The words of all these methods.
    pub(crate) fn words() -> [&'static str; 4] {
        PART_METHODS.map(|method| method.word)
    }

    /// Whether it puts tokens in front of sequences.
    pub(crate) fn has_virtual_tokens(&self) -> bool {
        !matches!(self, Self::Bottleneck(_))
    }

    /// The text that it starts from.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Prompt(prompt) => prompt.prompt_tuning_init_text.as_deref(),
            _ => None,
        }
    }

    /// The settings as they are written, the method among them.
    pub(crate) fn to_map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            // Structs of plain values are nothing else.
            _ => Map::new(),
        }
    }

    /// From a section with a method; every fault of it.
    pub(crate) fn read(mut map: Map<String, Value>) -> Result<Self, Vec<String>> {
        let words = Self::words().join(", ");
        let word = match map.shift_remove("method") {
            Some(Value::String(word)) => word,
            _ => return Err(vec![format!("the method is missing: {words}")]),
        };
        let Some(defaults) = Self::of(&word) else {
            let near = nearest(&word, Self::words());
            let near = near.map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
            return Err(vec![format!(
                "\"{word}\" is no method that stands beside another{near}; there are {words}"
            )]);
        };
        Self::read_settings(&defaults, map)
    }

    /// The settings of a method, over these.
    pub(crate) fn read_settings(&self, map: Map<String, Value>) -> Result<Self, Vec<String>> {
        let word = self.word();
        let mut all = self.to_map();
        let known: Vec<String> = all.keys().filter(|key| *key != "method").cloned().collect();
        let mut faults = Vec::new();
        for (key, value) in map {
            if !known.contains(&key) {
                let near = nearest(&key, known.iter().map(String::as_str));
                let near = near.map_or_else(
                    || format!("; there are {}", known.join(", ")),
                    |near| format!(": did you mean {near}?"),
                );
                faults.push(format!("{word} has no setting {key}{near}"));
                continue;
            }
            let mut alone = all.clone();
            alone.insert(key.clone(), value.clone());
            match self.parse(alone) {
                Ok(_) => {
                    all.insert(key, value);
                }
                Err(error) => faults.push(format!("{key}: {error}")),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        self.parse(all).map_err(|error| vec![error.to_string()])
    }

    /// Settings of the same method.
    fn parse(&self, mut map: Map<String, Value>) -> Result<Self, serde_json::Error> {
        map.shift_remove("method");
        let map = Value::Object(map);
        Ok(match self {
            Self::Prompt(_) => Self::Prompt(serde_json::from_value(map)?),
            Self::PTuning(_) => Self::PTuning(serde_json::from_value(map)?),
            Self::Prefix(_) => Self::Prefix(serde_json::from_value(map)?),
            Self::Bottleneck(_) => Self::Bottleneck(serde_json::from_value(map)?),
        })
    }

    /// What is wrong with the values, in words.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, fault: &str| {
            if !holds {
                faults.push(fault.to_string());
            }
        };
        let numbers = match self {
            Self::Prompt(prompt) => [Some(prompt.num_virtual_tokens), None, None],
            Self::PTuning(p_tuning) => [
                Some(p_tuning.num_virtual_tokens),
                p_tuning.encoder_hidden_size,
                p_tuning.encoder_num_layers,
            ],
            Self::Prefix(prefix) => [
                Some(prefix.num_virtual_tokens),
                prefix.encoder_hidden_size,
                None,
            ],
            Self::Bottleneck(_) => [None; 3],
        };
        let names = [
            ("num_virtual_tokens", MOST),
            ("encoder_hidden_size", MOST),
            ("encoder_num_layers", MOST_LAYERS),
        ];
        for ((name, most), number) in names.into_iter().zip(numbers) {
            check(number != Some(0), &format!("{name} is 0"));
            check(
                number.is_none_or(|number| number <= most),
                &format!("{name} is above {most}"),
            );
        }
        match self {
            Self::Prompt(prompt) => {
                let text = prompt.prompt_tuning_init_text.as_deref();
                match prompt.prompt_tuning_init {
                    Some(PromptStart::Text) => check(
                        text.is_some(),
                        "prompt_tuning_init_text is missing: the text that prompt_tuning_init: TEXT starts from",
                    ),
                    Some(_) => check(
                        text.is_none(),
                        "prompt_tuning_init_text is for prompt_tuning_init: TEXT",
                    ),
                    None => {}
                }
                check(
                    text.is_none_or(|text| !text.trim().is_empty()),
                    "prompt_tuning_init_text is empty",
                );
            }
            Self::PTuning(p_tuning) => check(
                p_tuning.encoder_reparameterization_type == EncoderType::Lstm
                    || p_tuning.encoder_num_layers.is_none(),
                "encoder_num_layers is for encoder_reparameterization_type: LSTM; an MLP always has three layers",
            ),
            Self::Prefix(prefix) => check(
                prefix.prefix_projection || prefix.encoder_hidden_size.is_none(),
                "encoder_hidden_size is for prefix_projection: true",
            ),
            Self::Bottleneck(bottleneck) => {
                check(bottleneck.bottleneck_size > 0, "bottleneck_size is 0");
                let scaling = bottleneck.scaling;
                check(
                    scaling.is_finite() && scaling != 0.0,
                    "scaling must be a number other than 0",
                );
                let name = bottleneck.non_linearity.as_str();
                if Activation::from_name(name).is_none() {
                    let near = nearest(name, Activation::names());
                    let near = near.map_or_else(
                        || format!("; there are {}", Activation::names().join(", ")),
                        |near| format!(": did you mean {near}?"),
                    );
                    check(
                        false,
                        &format!("non_linearity \"{name}\" is no activation{near}"),
                    );
                }
            }
        }
        faults
    }

    /// What is attached to a model; `text` are the tokens of the text that it starts from.
    pub(crate) fn config<M: WithParts>(&self, model: &M, text: Option<&[u32]>) -> PartConfig {
        PartConfig::VirtualTokens(match self {
            Self::Prompt(prompt) => VirtualTokensConfig::Prompt {
                tokens: prompt.num_virtual_tokens,
                init: match (text, prompt.prompt_tuning_init) {
                    (Some(text), _) => PromptInit::Tokens(text.to_vec()),
                    (None, Some(PromptStart::SampleVocab)) => PromptInit::SampleVocab,
                    (None, _) => PromptInit::Random,
                },
            },
            Self::PTuning(p_tuning) => VirtualTokensConfig::PTuning {
                tokens: p_tuning.num_virtual_tokens,
                encoder: match p_tuning.encoder_reparameterization_type {
                    EncoderType::Mlp => PromptEncoderKind::Mlp,
                    EncoderType::Lstm => PromptEncoderKind::Lstm {
                        layers: p_tuning.encoder_num_layers.unwrap_or(2),
                    },
                },
                d_hidden: p_tuning
                    .encoder_hidden_size
                    .unwrap_or_else(|| model.token_width(false)),
            },
            Self::Prefix(prefix) => {
                let width = prefix.encoder_hidden_size;
                let width = width.unwrap_or_else(|| model.token_width(true));
                VirtualTokensConfig::Prefix {
                    tokens: prefix.num_virtual_tokens,
                    projection: prefix.prefix_projection.then_some(width),
                }
            }
            Self::Bottleneck(bottleneck) => {
                let activation = Activation::from_name(&bottleneck.non_linearity);
                return PartConfig::Bottleneck(BottleneckConfig {
                    width: bottleneck.bottleneck_size,
                    placement: match bottleneck.placement {
                        Placement::Houlsby => BottleneckPlacement::Houlsby,
                        Placement::Pfeiffer => BottleneckPlacement::Pfeiffer,
                        Placement::Parallel => BottleneckPlacement::Parallel,
                    },
                    // `faults` has seen the name.
                    activation: activation.unwrap_or(Activation::Relu),
                    scale: bottleneck.scaling,
                });
            }
        })
    }
}

impl fmt::Display for PartSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word();
        match self {
            Self::Prompt(PromptSettings {
                num_virtual_tokens, ..
            })
            | Self::PTuning(PTuningSettings {
                num_virtual_tokens, ..
            })
            | Self::Prefix(PrefixSettings {
                num_virtual_tokens, ..
            }) => write!(f, "{word} of {num_virtual_tokens} virtual tokens"),
            Self::Bottleneck(bottleneck) => {
                let placement = match bottleneck.placement {
                    Placement::Houlsby => "houlsby",
                    Placement::Pfeiffer => "pfeiffer",
                    Placement::Parallel => "parallel",
                };
                write!(
                    f,
                    "{word} ({placement}) of width {}",
                    bottleneck.bottleneck_size
                )
            }
        }
    }
}

impl<'de> Deserialize<'de> for PartSettings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let map = Map::deserialize(from)?;
        Self::read(map).map_err(|faults| D::Error::custom(faults.join("; ")))
    }
}

/// A word as it is compared.
pub(crate) fn plain(word: &str) -> String {
    word.trim().to_ascii_lowercase().replace('_', "-")
}

/// The name that a word may have been meant for.
pub(crate) fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(word, name), name));
    let near = near
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min();
    near.map(|(_, name)| name)
}
