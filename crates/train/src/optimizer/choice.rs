use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// The optimizer and its own numbers; learning rate, weight decay and clipping are settings of the training.
///
/// In a configuration a name, `lion`, or a name with numbers: `{name: lion, beta_2: 0.98}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "name", rename_all = "lowercase")]
#[non_exhaustive]
pub enum OptimizerChoice {
    /// Decoupled Weight Decay Regularization, arXiv:1711.05101, in PyTorch's form.
    AdamW(AdamWOptions),
    /// Adafactor, arXiv:1804.04235, with the learning rate of the schedule: second moments of a matrix as those of its rows
    /// and columns, no first moment.
    Adafactor(AdafactorOptions),
    /// Symbolic Discovery of Optimization Algorithms, arXiv:2302.06675: the sign of the momentum. It wants a third to a tenth
    /// of AdamW's learning rate, and as much more weight decay.
    Lion(LionOptions),
    /// Stochastic gradient descent with momentum. Its weight decay is part of the gradient.
    Sgd(SgdOptions),
    /// Muon (Keller Jordan) for matrices, with the step size of Moonshot (arXiv:2502.16982), `0.2 sqrt(max(rows, columns))`, so
    /// that AdamW's learning rates fit; AdamW for everything else, embeddings and output heads among it.
    Muon(MuonOptions),
}

impl OptimizerChoice {
    /// Numbers that are kept for each parameter, at most: Adafactor keeps a row and a column of a matrix, and Muon's vectors have
    /// AdamW's two.
    pub fn moments(&self) -> usize {
        match self {
            Self::AdamW(_) => 2,
            Self::Adafactor(_) | Self::Lion(_) | Self::Muon(_) => 1,
            Self::Sgd(options) => usize::from(options.momentum > 0.0),
        }
    }
}

/// Numbers of AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWOptions {
    /// Share of the mean of gradients that is kept.
    pub beta_1: f64,
    /// Share of the mean of squared gradients that is kept.
    pub beta_2: f64,
    /// Against division by zero.
    pub epsilon: f64,
}

/// Numbers of Adafactor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdafactorOptions {
    /// Added to squared gradients.
    pub epsilon: f64,
    /// The largest root mean square of an update, before the learning rate.
    pub clip_threshold: f64,
    /// The exponent of `beta_2 = 1 - step^decay_rate`, below 0.
    pub decay_rate: f64,
    /// Multiply each step by the root mean square of its parameter, at least `min_scale`.
    pub scale_parameter: bool,
    /// See `scale_parameter`.
    pub min_scale: f64,
}

/// Numbers of Lion.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LionOptions {
    /// Share of the momentum in the step.
    pub beta_1: f64,
    /// Share of the momentum that is kept.
    pub beta_2: f64,
}

/// Numbers of SGD.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SgdOptions {
    /// Share of the velocity that is kept; 0 is plain descent.
    pub momentum: f64,
    /// Look ahead by the momentum.
    pub nesterov: bool,
}

/// Numbers of Muon.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MuonOptions {
    /// Share of the velocity that is kept.
    pub momentum: f64,
    /// Look ahead by the momentum.
    pub nesterov: bool,
    /// Newton-Schulz iterations.
    pub ns_steps: usize,
    /// AdamW's, for what is no matrix.
    pub beta_1: f64,
    /// AdamW's, for what is no matrix.
    pub beta_2: f64,
    /// AdamW's, for what is no matrix.
    pub epsilon: f64,
}

impl Default for OptimizerChoice {
    fn default() -> Self {
        Self::AdamW(AdamWOptions::default())
    }
}

impl Default for AdamWOptions {
    fn default() -> Self {
        Self {
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
        }
    }
}

impl Default for AdafactorOptions {
    fn default() -> Self {
        Self {
            epsilon: 1e-30,
            clip_threshold: 1.0,
            decay_rate: -0.8,
            scale_parameter: false,
            min_scale: 1e-3,
        }
    }
}

impl Default for LionOptions {
    fn default() -> Self {
        Self {
            beta_1: 0.9,
            beta_2: 0.99,
        }
    }
}

impl Default for SgdOptions {
    fn default() -> Self {
        Self {
            momentum: 0.9,
            nesterov: false,
        }
    }
}

impl Default for MuonOptions {
    fn default() -> Self {
        let AdamWOptions {
            beta_1,
            beta_2,
            epsilon,
        } = AdamWOptions::default();
        Self {
            momentum: 0.95,
            nesterov: true,
            ns_steps: 5,
            beta_1,
            beta_2,
            epsilon,
        }
    }
}

const NAMES: [&str; 5] = ["adamw", "adafactor", "lion", "sgd", "muon"];

impl OptimizerChoice {
    /// What is wrong with its numbers.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, fault: &str| {
            if !holds {
                faults.push(format!("optimizer.{fault}"));
            }
        };
        let share = |value: f64| (0.0..1.0).contains(&value);
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let shares = match *self {
            Self::AdamW(AdamWOptions { beta_1, beta_2, .. })
            | Self::Lion(LionOptions { beta_1, beta_2 }) => {
                vec![("beta_1", beta_1), ("beta_2", beta_2)]
            }
            Self::Sgd(SgdOptions { momentum, .. }) => vec![("momentum", momentum)],
            Self::Muon(muon) => vec![
                ("momentum", muon.momentum),
                ("beta_1", muon.beta_1),
                ("beta_2", muon.beta_2),
            ],
            Self::Adafactor(_) => Vec::new(),
        };
        for (name, value) in shares {
            check(share(value), &format!("{name} must lie in [0, 1)"));
        }
        match *self {
            Self::AdamW(AdamWOptions { epsilon, .. }) => {
                check(positive(epsilon), "epsilon must be above 0");
            }
            Self::Adafactor(adafactor) => {
                check(positive(adafactor.epsilon), "epsilon must be above 0");
                check(positive(adafactor.min_scale), "min_scale must be above 0");
                let threshold = adafactor.clip_threshold;
                check(positive(threshold), "clip_threshold must be above 0");
                check(
                    positive(-adafactor.decay_rate),
                    "decay_rate must be below 0",
                );
            }
            Self::Muon(muon) => {
                check(positive(muon.epsilon), "epsilon must be above 0");
                check(
                    (1..100).contains(&muon.ns_steps),
                    "ns_steps must lie in [1, 100)",
                );
            }
            Self::Sgd(sgd) => check(
                !sgd.nesterov || sgd.momentum > 0.0,
                "nesterov needs a momentum",
            ),
            Self::Lion(_) => {}
        }
        faults
    }

    /// From a name or an object with a name.
    fn read(value: Value) -> Result<Self, String> {
        let (name, options) = match value {
            Value::String(name) => (name, Map::new()),
            Value::Object(mut map) => match map.shift_remove("name") {
                Some(Value::String(name)) => (name, map),
                _ => return Err(format!("the name is missing: {}", NAMES.join(", "))),
            },
            _ => {
                return Err(format!(
                    "neither a name ({}) nor a section",
                    NAMES.join(", ")
                ));
            }
        };
        let read = Options {
            name: &name,
            options,
        };
        Ok(match name.as_str() {
            "adamw" => Self::AdamW(read.read()?),
            "adafactor" => Self::Adafactor(read.read()?),
            "lion" => Self::Lion(read.read()?),
            "sgd" => Self::Sgd(read.read()?),
            "muon" => Self::Muon(read.read()?),
            _ => {
                let near = nearest(&name, NAMES).map(|near| format!(" (did you mean {near}?)"));
                let names = NAMES.join(", ");
                let near = near.unwrap_or_else(|| format!("; there are {names}"));
                return Err(format!("there is no optimizer \"{name}\"{near}"));
            }
        })
    }
}

struct Options<'a> {
    name: &'a str,
    options: Map<String, Value>,
}

impl Options<'_> {
    fn read<T: Default + Serialize + DeserializeOwned>(self) -> Result<T, String> {
        let known = serde_json::to_value(T::default()).unwrap_or_default();
        let known: Vec<String> = known
            .as_object()
            .map(|map| map.keys().cloned().collect())
            .unwrap_or_default();
        let unknown = self.options.keys().filter(|key| !known.contains(*key));
        let faults: Vec<String> = unknown
            .map(|key| {
                let near = nearest(key, known.iter().map(String::as_str));
                let near = near.map_or_else(
                    || format!("; there are {}", known.join(", ")),
                    |near| format!(": did you mean {near}?"),
                );
                format!("{} has no setting {key}{near}", self.name)
            })
            .collect();
        if !faults.is_empty() {
            return Err(faults.join("; "));
        }
        serde_json::from_value(Value::Object(self.options)).map_err(|error| error.to_string())
    }
}

fn nearest<'a>(key: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(key, name), name));
    let near = near
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min();
    near.map(|(_, name)| name)
}

impl<'de> Deserialize<'de> for OptimizerChoice {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::read(Value::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<OptimizerChoice, String> {
        serde_json::from_str(text).map_err(|error: serde_json::Error| error.to_string())
    }

    #[test]
    fn a_name_or_a_name_with_numbers() {
        assert_eq!(read("\"adamw\""), Ok(OptimizerChoice::default()));
        let lion = LionOptions {
            beta_2: 0.98,
            ..LionOptions::default()
        };
        let found = read(r#"{"name": "lion", "beta_2": 0.98}"#);
        assert_eq!(found, Ok(OptimizerChoice::Lion(lion)));
        for name in NAMES {
            let choice = read(&format!("\"{name}\"")).expect("it is known");
            let text = serde_json::to_string(&choice).expect("text");
            let again = read(&text).expect("what was written");
            // serde_json alone does not read every number as it was written.
            assert_eq!(format!("{again:.9?}"), format!("{choice:.9?}"));
            assert_eq!(choice.faults(), [""; 0], "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_the_nearest() {
        for (text, fault) in [
            (
                "\"adamv\"",
                "there is no optimizer \"adamv\" (did you mean adamw?)",
            ),
            (
                r#"{"name": "lion", "beta2": 1}"#,
                "lion has no setting beta2: did you mean beta_2?",
            ),
            (
                r#"{"name": "sgd", "epsilon": 1}"#,
                "sgd has no setting epsilon; there are momentum, nesterov",
            ),
            (r#"{"momentum": 1}"#, "the name is missing"),
            ("3", "neither a name"),
            (
                r#"{"name": "muon", "ns_steps": "five"}"#,
                "invalid type: string",
            ),
        ] {
            let found = read(text).expect_err(text);
            assert!(found.starts_with(fault), "{text}: {found}");
        }
        let sgd = SgdOptions {
            momentum: 1.0,
            nesterov: true,
        };
        let faults = OptimizerChoice::Sgd(sgd).faults();
        assert_eq!(faults, ["optimizer.momentum must lie in [0, 1)"]);
    }
}
