use std::fmt;

use burn_lora_adapter::{AdapterError, LoraInit, METHODS, MethodConfig, TrainedBiases};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::part::{PartSettings, nearest, plain};

/// The adapter.
///
/// Its settings are those of its method: in a configuration file a setting of another method is an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct AdapterSettings {
    /// What is trained: `lora`, `dora`, `ia3` and the other words of `docs/methods.md`, among them those of methods that stand beside
    /// the weights: `prompt`, `p-tuning`, `prefix`, `bottleneck`.
    pub method: String,
    /// Rank of the change.
    pub rank: usize,
    /// Its scale is `alpha / rank`.
    pub alpha: f64,
    /// Probability that an input is dropped in training.
    pub dropout: f64,
    /// Scale by `alpha / sqrt(rank)`.
    pub rslora: bool,
    /// `all-linear`, names such as `q_proj,v_proj`, or a regular expression on the whole path.
    pub targets: String,
    /// Biases of the base that are trained, too: `none`, `lora_only` (of the adapted layers) or `all`.
    pub bias: String,
    /// Where the factors start: `default`, `gaussian`, `orthogonal`, `pissa`, `pissa_niter_N`, `olora`, `loftq`, `eva`, `corda`,
    /// `lora_ga` (`docs/methods.md`).
    pub initialization: String,
    /// Its settings, by the keys of PEFT's `eva_config`, `corda_config`, `loftq_config` or `lora_ga_config`.
    pub initialization_options: Map<String, Value>,
    /// How many batches of the training an initialization that looks at data is shown.
    pub initialization_batches: usize,
    /// What only the method asks for, by the keys of PEFT's `adapter_config.json`: `rank_pattern`, `exclude_modules`,
    /// `decompose_factor` ([`with_options`](burn_lora_adapter::peft::with_options) says which there are).
    pub options: Map<String, Value>,
    /// The settings of a method beside the weights, in the place of those from `rank` on; `None`: its defaults.
    #[serde(skip)]
    pub part: Option<PartSettings>,
    /// Methods that stand beside the weights and are trained together with `method`: virtual tokens, bottlenecks, or both. In a file
    /// one section, or a list of such.
    #[serde(skip)]
    pub beside: Vec<PartSettings>,
}

impl Default for AdapterSettings {
    fn default() -> Self {
        Self {
            method: "lora".into(),
            rank: 8,
            alpha: 16.0,
            dropout: 0.0,
            rslora: false,
            targets: "all-linear".into(),
            bias: "none".into(),
            initialization: "default".into(),
            initialization_options: Map::new(),
            initialization_batches: 8,
            options: Map::new(),
            part: None,
            beside: Vec::new(),
        }
    }
}

impl AdapterSettings {
    /// The defaults of the method of a word.
    pub fn of(word: &str) -> Self {
        Self {
            part: PartSettings::of(word),
            method: word.into(),
            ..Self::default()
        }
    }

    /// Whether the method changes weights, as LoRA does, and does not stand beside them.
    pub fn is_on_weights(&self) -> bool {
        PartSettings::of(&self.method).is_none()
    }

    /// The methods beside the weights.
    pub fn parts(&self) -> Vec<PartSettings> {
        let own = PartSettings::of(&self.method);
        let own = own.map(|defaults| self.part.clone().unwrap_or(defaults));
        own.into_iter().chain(self.beside.clone()).collect()
    }

    /// The words of all methods: `lora and prefix`.
    pub fn words(&self) -> String {
        let mut words = vec![plain(&self.method)];
        words.extend(self.beside.iter().map(|part| part.word().to_string()));
        words.join(" and ")
    }

    /// Everything that is wrong with the values, in words.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = match self.is_on_weights() {
            true => self.faults_on_weights(),
            false => self.faults_beside(),
        };
        for part in &self.beside {
            let own = part.faults().into_iter();
            faults.extend(own.map(|fault| format!("adapter.beside: {fault}")));
        }
        let parts = self.parts();
        for (kind, has_tokens) in [("virtual tokens", true), ("bottlenecks", false)] {
            let words = parts.iter().map(|part| (part.word(), part));
            let words = words.filter(|(_, part)| part.has_virtual_tokens() == has_tokens);
            let words: Vec<&str> = words.map(|(word, _)| word).collect();
            if words.len() > 1 {
                faults.push(format!(
                    "adapter.beside: {} are all {kind}, of which a model has one kind",
                    words.join(", ")
                ));
            }
        }
        faults
    }

    fn faults_on_weights(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, fault: &str| {
            if !holds {
                faults.push(fault.to_string());
            }
        };
        check(self.rank > 0, "adapter.rank is 0");
        check(
            self.alpha.is_finite() && self.alpha > 0.0,
            "adapter.alpha must be above 0",
        );
        check(
            (0.0..1.0).contains(&self.dropout),
            "adapter.dropout must be at least 0 and below 1",
        );
        check(
            TrainedBiases::parse(&self.bias).is_some(),
            "adapter.bias must be none, lora_only or all",
        );
        check(
            self.initialization_batches > 0,
            "adapter.initialization_batches is 0",
        );
        check(
            self.part.is_none(),
            &format!(
                "adapter.part has settings of a method beside the weights, which {} is not",
                self.method
            ),
        );
        if let Err(AdapterError::Config { faults: method }) = self.method.parse::<MethodConfig>() {
            faults.extend(match self.near_word() {
                Some(near) => named("method", vec![unknown_method(&self.method, near)]),
                None => named("method", method),
            });
        }
        faults.extend(self.init().err().unwrap_or_default());
        faults
    }

    /// The method beside the weights that the word may have been meant for, if none on weights is as near.
    fn near_word(&self) -> Option<&'static str> {
        let word = plain(&self.method);
        let words = METHODS.iter().map(|method| method.word);
        let near = nearest(&word, words.chain(PartSettings::words()))?;
        PartSettings::words().into_iter().find(|word| *word == near)
    }

    fn faults_beside(&self) -> Vec<String> {
        let word = plain(&self.method);
        // Whoever reads a file knows which settings it has; a value made in code can only differ from the defaults.
        let [own, defaults] = [self, &Self::default()].map(|settings| settings.on_weights());
        let set = own.iter().filter(|(key, value)| {
            key.as_str() != "method" && defaults.get(key.as_str()) != Some(*value)
        });
        let mut faults: Vec<String> = set
            .map(|(key, _)| format!("adapter.{key} is no setting of {word}"))
            .collect();
        match &self.part {
            Some(part) if part.word() != word => faults.push(format!(
                "adapter.part has the settings of {}, the method is {word}",
                part.word()
            )),
            Some(part) => {
                let own = part.faults().into_iter();
                faults.extend(own.map(|fault| format!("adapter.{fault}")));
            }
            None => {}
        }
        faults
    }

    /// Where the factors start; what is wrong with it, with the setting's name in front.
    pub(super) fn init(&self) -> Result<LoraInit, Vec<String>> {
        let init = self.initialization.parse().map_err(|error| match error {
            AdapterError::Config { faults } => named("initialization", faults),
            other => named("initialization", vec![other.to_string()]),
        })?;
        match init {
            LoraInit::Informed(initialization) => initialization
                .with_options(&self.initialization_options)
                .map(LoraInit::Informed)
                .map_err(|faults| named("initialization_options", faults)),
            drawn if self.initialization_options.is_empty() => Ok(drawn),
            _ => Err(named(
                "initialization_options",
                vec![format!("\"{}\" has none", self.initialization)],
            )),
        }
    }

    /// The method and the settings of methods on weights.
    fn on_weights(&self) -> Map<String, Value> {
        // The derived form, which leaves out what follows them.
        match Self::serialize(self, serde_json::value::Serializer) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        }
    }

    /// From a section of a file; every fault of it.
    fn read(mut map: Map<String, Value>) -> Result<Self, String> {
        let beside = match map.shift_remove("beside") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => list,
            Some(section) => vec![section],
        };
        let beside: Result<Vec<PartSettings>, _> =
            beside.into_iter().map(serde_json::from_value).collect();
        let beside = beside.map_err(|error| error.to_string())?;
        let word = map.get("method").and_then(Value::as_str);
        let settings = match word.and_then(PartSettings::of) {
            Some(defaults) => {
                map.shift_remove("method");
                let part = defaults.read_settings(map);
                let part = part.map_err(|faults| faults.join("; "))?;
                Self {
                    method: part.word().into(),
                    part: Some(part),
                    ..Self::default()
                }
            }
            None => Self::deserialize(Value::Object(map)).map_err(|error| error.to_string())?,
        };
        Ok(Self { beside, ..settings })
    }
}

impl fmt::Display for AdapterSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.is_on_weights().then(|| plain(&self.method));
        let parts = self.parts().into_iter().map(|part| part.to_string());
        let methods: Vec<String> = own.into_iter().chain(parts).collect();
        f.write_str(&methods.join(" and "))
    }
}

impl Serialize for AdapterSettings {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let own = PartSettings::of(&self.method);
        let mut map = match own {
            Some(defaults) => self.part.as_ref().unwrap_or(&defaults).to_map(),
            None => self.on_weights(),
        };
        let beside = self.beside.iter().map(|part| Value::Object(part.to_map()));
        map.insert("beside".into(), beside.collect());
        map.serialize(to)
    }
}

impl<'de> Deserialize<'de> for AdapterSettings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::read(Map::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// Faults of a setting of the adapter.
fn named(setting: &str, faults: Vec<String>) -> Vec<String> {
    let faults = faults.into_iter();
    faults
        .map(|fault| format!("adapter.{setting}: {fault}"))
        .collect()
}

fn unknown_method(word: &str, near: &str) -> String {
    let words = METHODS.iter().map(|method| method.word);
    let words: Vec<&str> = words.chain(PartSettings::words()).collect();
    format!(
        "there is no method \"{word}\" (did you mean \"{near}\"?); the methods are: {}",
        words.join(", ")
    )
}
