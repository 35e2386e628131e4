//! Initializations by PEFT's words, and their settings by PEFT's keys.

use serde_json::{Map, Value, json};

use super::{CordaMethod, Direction, Eva, GradientScale, Initialization, LoftQ, LoraGa, Quantizer};
use crate::error::nearest;

impl Initialization {
    /// PEFT's value of `init_lora_weights`.
    pub fn word(&self) -> Value {
        match self {
            Self::Orthogonal => json!("orthogonal"),
            Self::Pissa { iterations: None } => json!("pissa"),
            Self::Pissa {
                iterations: Some(iterations),
            } => json!(format!("pissa_niter_{iterations}")),
            Self::Olora => json!("olora"),
            Self::LoftQ(_) => json!("loftq"),
            Self::Eva(_) => json!("eva"),
            Self::Corda(_) => json!("corda"),
            Self::LoraGa(_) => json!("lora_ga"),
        }
    }

    /// The initialization of PEFT's value, with default settings; `None` for those of [`LoraInit`](crate::LoraInit)
    /// (`true`, `false`, `gaussian`) and for words that nobody knows.
    pub fn parse(word: &str) -> Option<Self> {
        if let Some(iterations) = word.strip_prefix("pissa_niter_") {
            let iterations = Some(iterations.parse().ok()?);
            return Some(Self::Pissa { iterations });
        }
        Some(match word {
            "orthogonal" => Self::Orthogonal,
            "pissa" => Self::Pissa { iterations: None },
            "olora" => Self::Olora,
            "loftq" => Self::LoftQ(LoftQ::default()),
            "eva" => Self::Eva(Eva::default()),
            "corda" => Self::Corda(CordaMethod::default()),
            "lora_ga" => Self::LoraGa(LoraGa::default()),
            _ => return None,
        })
    }

    /// With settings by the keys of PEFT's `eva_config` (`rho`, `whiten`, `adjust_scaling_factors`), `corda_config`
    /// (`corda_method`), `loftq_config` (`loftq_bits`, `loftq_iter`) or `lora_ga_config` (`direction`, `scale`, `stable_gamma`).
    ///
    /// # Errors
    /// Every key that the initialization does not know, with the nearest that it does, and every value that no key takes.
    pub fn with_options(mut self, options: &Map<String, Value>) -> Result<Self, Vec<String>> {
        let mut options = Options {
            given: options.clone(),
            known: Vec::new(),
            faults: Vec::new(),
        };
        match &mut self {
            Self::Orthogonal | Self::Pissa { .. } | Self::Olora => {}
            Self::Eva(eva) => {
                let number = |value: &Value| value.as_f64().filter(|rho| *rho >= 1.0);
                options.set("rho", "a number of at least 1", number, &mut eva.rho);
                let flags = [
                    ("whiten", &mut eva.whiten),
                    ("adjust_scaling_factors", &mut eva.adjust_scaling_factors),
                ];
                for (key, flag) in flags {
                    options.set(key, "true or false", Value::as_bool, flag);
                }
            }
            Self::Corda(method) => {
                let read = |value: &Value| match value.as_str()? {
                    "ipm" => Some(CordaMethod::InstructionPreviewed),
                    "kpm" => Some(CordaMethod::KnowledgePreserved),
                    _ => None,
                };
                options.set("corda_method", "ipm or kpm", read, method);
            }
            Self::LoftQ(loftq) => {
                let bits = |value: &Value| match value.as_u64()? {
                    4 => Some(Quantizer::Nf4),
                    8 => Some(Quantizer::Int8),
                    _ => None,
                };
                options.set("loftq_bits", "4 or 8", bits, &mut loftq.quantizer);
                let count =
                    |value: &Value| usize::try_from(value.as_u64()?).ok().filter(|n| *n > 0);
                let expected = "a whole number of at least 1";
                options.set("loftq_iter", expected, count, &mut loftq.iterations);
            }
            Self::LoraGa(lora_ga) => {
                let direction = |value: &Value| match value.as_str()? {
                    "ArBr" => Some(Direction::ArBr),
                    "A2rBr" => Some(Direction::A2rBr),
                    "ArB2r" => Some(Direction::ArB2r),
                    "random" => Some(Direction::Random),
                    _ => None,
                };
                let expected = "ArBr, A2rBr, ArB2r or random";
                options.set("direction", expected, direction, &mut lora_ga.direction);
                let mut gamma = 16.0;
                let number = |value: &Value| value.as_f64().filter(|gamma| *gamma > 0.0);
                options.set("stable_gamma", "a number above 0", number, &mut gamma);
                lora_ga.scale = GradientScale::Stable { gamma };
                let scale = |value: &Value| match value.as_str()? {
                    "stable" => Some(GradientScale::Stable { gamma }),
                    "weight_svd" => Some(GradientScale::WeightSvd),
                    "gd_scale" => Some(GradientScale::GradientDescent),
                    "unit" => Some(GradientScale::Unit),
                    _ => None,
                };
                let expected = "stable, weight_svd, gd_scale or unit";
                options.set("scale", expected, scale, &mut lora_ga.scale);
            }
        }
        let faults = options.finish(&self.word());
        match faults.is_empty() {
            true => Ok(self),
            false => Err(faults),
        }
    }
}

/// Settings that are taken out one by one.
struct Options {
    given: Map<String, Value>,
    known: Vec<&'static str>,
    faults: Vec<String>,
}

impl Options {
    /// Puts a value that is there into its place.
    fn set<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
        place: &mut T,
    ) {
        self.known.push(key);
        let Some(value) = self.given.remove(key) else {
            return;
        };
        match read(&value) {
            Some(read) => *place = read,
            None => self
                .faults
                .push(format!("{key} is {value}, not {expected}")),
        }
    }

    fn finish(self, word: &Value) -> Vec<String> {
        let mut faults = self.faults;
        for key in self.given.keys() {
            let near = nearest(key, self.known.iter().copied());
            faults.push(match (near, self.known.is_empty()) {
                (Some(near), _) => format!("{key} is no setting of {word}: did you mean {near}?"),
                (None, true) => format!("{key} is no setting of {word}, which has none"),
                (None, false) => format!(
                    "{key} is no setting of {word}; there are {}",
                    self.known.join(", ")
                ),
            });
        }
        faults
    }
}
