//! The rotary fields of a configuration, in the spellings of Transformers 4 and 5.

use burn_lora_kernels::RopeScaling;
use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::schema::Field;

/// What a family calls its rotary fields in the spelling of Transformers 4.
#[derive(Clone, Copy)]
pub(crate) struct RopeNames {
    /// The base of the frequencies.
    pub(crate) theta: &'static str,
    /// The part of a head that is rotated.
    pub(crate) partial: &'static str,
    /// The base in layers with a sliding window, where it is one of its own.
    pub(crate) local_theta: Option<&'static str>,
}

impl Default for RopeNames {
    fn default() -> Self {
        Self {
            theta: "rope_theta",
            partial: "partial_rotary_factor",
            local_theta: None,
        }
    }
}

/// The fields in the spelling of Transformers 4, which 5 reads too: 5 gathers in `rope_parameters` what 4 has at the top
/// and under `rope_scaling`.
///
/// An object that cannot be taken apart stays where it is.
pub(crate) fn to_version_4(mut map: Map<String, Value>, names: RopeNames) -> Map<String, Value> {
    if let Some(Value::Object(parameters)) = map.get("rope_parameters").cloned() {
        let by_kind = ["full_attention", "sliding_attention"].map(|kind| parameters.get(kind));
        match (by_kind, names.local_theta) {
            ([None, None], _) => take_apart(&mut map, parameters, names),
            ([full, sliding], Some(local_theta)) => {
                let full = full.and_then(Value::as_object).cloned();
                take_apart(&mut map, full.unwrap_or_default(), names);
                let theta = sliding.and_then(|sliding| sliding.get("rope_theta"));
                if let Some(theta) = theta.cloned() {
                    map.insert(local_theta.into(), theta);
                }
                let is_scaled = |sliding: &&Value| kind(sliding) != "default";
                if let Some(sliding) = sliding.filter(is_scaled).cloned() {
                    map.insert("rope_parameters".into(), sliding);
                }
            }
            _ => {}
        }
    } else if let Some(Value::Object(scaling)) = map.get("rope_scaling").cloned() {
        take_apart(&mut map, scaling, names);
    }
    map
}

fn take_apart(map: &mut Map<String, Value>, mut parameters: Map<String, Value>, names: RopeNames) {
    map.remove("rope_parameters");
    for (inside, outside) in [
        ("rope_theta", names.theta),
        ("partial_rotary_factor", names.partial),
    ] {
        if let Some(value) = parameters.remove(inside).filter(|value| !value.is_null()) {
            map.insert(outside.into(), value);
        }
    }
    let parameters = Value::Object(parameters);
    if kind(&parameters) != "default" {
        map.insert("rope_scaling".into(), parameters);
    }
}

/// The kind of scaling.
fn kind(scaling: &Value) -> &str {
    let kind = scaling.get("rope_type").or_else(|| scaling.get("type"));
    kind.and_then(Value::as_str).unwrap_or("default")
}

impl Field for RopeScaling {
    fn read(fields: &mut Fields<'_>, name: &'static str, default: Self) -> Self {
        let Some(value) = fields.value(name) else {
            return default;
        };
        let Some(map) = value.as_object() else {
            fields.refuse(format!("`{name}` is {value}, expected an object"));
            return default;
        };
        let scaling = Scaling {
            kind: kind(value),
            map,
            max: fields.peek("max_position_embeddings"),
            original: fields.peek("original_max_position_embeddings"),
        };
        scaling.read().unwrap_or_else(|problem| {
            fields.refuse(format!("`{name}`: {problem}"));
            default
        })
    }

    /// The value of `rope_scaling` in the spelling of Transformers 4.
    fn write(&self) -> Value {
        match self {
            RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            RopeScaling::Dynamic { factor, .. } => {
                json!({"rope_type": "dynamic", "factor": factor})
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_positions,
            } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_positions,
            }),
            RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                original_positions,
                attention_factor,
                truncate,
            } => json!({
                "rope_type": "yarn",
                "factor": factor,
                "beta_fast": beta_fast,
                "beta_slow": beta_slow,
                "original_max_position_embeddings": original_positions,
                "attention_factor": attention_factor,
                "truncate": truncate,
            }),
            RopeScaling::LongRope {
                short,
                long,
                original_positions,
                attention_factor,
            } => json!({
                "rope_type": "longrope",
                "short_factor": short,
                "long_factor": long,
                "original_max_position_embeddings": original_positions,
                "attention_factor": attention_factor,
            }),
            _ => Value::Null,
        }
    }
}

/// A scaling under examination.
struct Scaling<'a> {
    kind: &'a str,
    map: &'a Map<String, Value>,
    /// `max_position_embeddings` and `original_max_position_embeddings` of the configuration itself.
    max: Option<&'a Value>,
    original: Option<&'a Value>,
}

const COMMON: [&str; 3] = ["rope_type", "type", "finetuned"];

impl Scaling<'_> {
    fn read(&self) -> Result<RopeScaling, String> {
        // Phi-3 had other names for it.
        let is_long = self.kind == "su" || self.map.contains_key("short_factor");
        match self.kind {
            "default" => Ok(RopeScaling::None),
            _ if is_long || self.kind == "longrope" => self.long_rope(),
            "linear" => {
                self.only(&["factor"])?;
                Ok(RopeScaling::Linear {
                    factor: self.number("factor")?,
                })
            }
            "dynamic" => {
                self.only(&["factor", "original_max_position_embeddings"])?;
                Ok(RopeScaling::Dynamic {
                    factor: self.number("factor")?,
                    original_positions: size(self.max)
                        .ok_or("`dynamic` needs `max_position_embeddings`")?,
                })
            }
            "llama3" => self.llama3(),
            "yarn" => self.yarn(),
            other => Err(format!(
                "rope type `{other}` is not built; default, linear, dynamic, llama3, yarn and longrope are"
            )),
        }
    }

    fn llama3(&self) -> Result<RopeScaling, String> {
        let (low, high) = ("low_freq_factor", "high_freq_factor");
        self.only(&["factor", low, high, "original_max_position_embeddings"])?;
        let (low_freq_factor, high_freq_factor) = (self.number(low)?, self.number(high)?);
        if high_freq_factor <= low_freq_factor {
            return Err(format!("`{high}` is not above `{low}`"));
        }
        Ok(RopeScaling::Llama3 {
            factor: self.number("factor")?,
            low_freq_factor,
            high_freq_factor,
            original_positions: self.original_positions()?,
        })
    }

    fn yarn(&self) -> Result<RopeScaling, String> {
        self.only(&[
            "factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "attention_factor",
            "truncate",
            "original_max_position_embeddings",
        ])?;
        let original_positions = self.original_positions()?;
        let factor = self.factor(original_positions)?;
        let growth = |scale: f64| match factor <= 1.0 {
            true => 1.0,
            false => 0.1 * scale * factor.ln() + 1.0,
        };
        let scales = (self.optional("mscale")?, self.optional("mscale_all_dim")?);
        let attention_factor = match (self.optional("attention_factor")?, scales) {
            (Some(given), _) => given,
            (None, (Some(scale), Some(all))) => growth(scale) / growth(all),
            _ => growth(1.0),
        };
        let truncate = self.map.get("truncate").and_then(Value::as_bool);
        Ok(RopeScaling::Yarn {
            factor,
            beta_fast: self.optional("beta_fast")?.unwrap_or(32.0),
            beta_slow: self.optional("beta_slow")?.unwrap_or(1.0),
            original_positions,
            attention_factor,
            truncate: truncate.unwrap_or(true),
        })
    }

    fn long_rope(&self) -> Result<RopeScaling, String> {
        self.only(&[
            "factor",
            "short_factor",
            "long_factor",
            "attention_factor",
            "original_max_position_embeddings",
        ])?;
        let original_positions = self.original_positions()?;
        let factor = self.factor(original_positions)?;
        let attention_factor = match self.optional("attention_factor")? {
            Some(given) => given,
            None if factor <= 1.0 => 1.0,
            None if original_positions < 2 => return Err(self.needs("attention_factor")),
            None => (1.0 + factor.ln() / (original_positions as f64).ln()).sqrt(),
        };
        Ok(RopeScaling::LongRope {
            short: self.numbers("short_factor")?,
            long: self.numbers("long_factor")?,
            original_positions,
            attention_factor,
        })
    }

    /// Refuses keys that could mean something.
    fn only(&self, known: &[&str]) -> Result<(), String> {
        let is_known = |key: &&str| COMMON.contains(key) || known.contains(key);
        let unknown: Vec<&str> = self.map.keys().map(String::as_str).collect();
        let unknown: Vec<&str> = unknown.into_iter().filter(|key| !is_known(key)).collect();
        match unknown.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "`{}` of rope type `{}` is not built",
                unknown.join("`, `"),
                self.kind
            )),
        }
    }

    fn optional(&self, name: &str) -> Result<Option<f64>, String> {
        let Some(value) = self.map.get(name).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let number = value.as_f64().filter(|number| *number > 0.0);
        number.map(Some).ok_or_else(|| self.needs(name))
    }

    fn number(&self, name: &str) -> Result<f64, String> {
        self.optional(name)?.ok_or_else(|| self.needs(name))
    }

    fn needs(&self, name: &str) -> String {
        format!("`{}` needs a positive number under `{name}`", self.kind)
    }

    fn numbers(&self, name: &str) -> Result<Vec<f64>, String> {
        let values = self.map.get(name).and_then(Value::as_array);
        let positive = |value: &Value| value.as_f64().filter(|number| *number > 0.0);
        values
            .and_then(|values| values.iter().map(positive).collect())
            .ok_or_else(|| {
                let kind = self.kind;
                format!("`{kind}` needs a list of positive numbers under `{name}`")
            })
    }

    /// The context length of pretraining. Where the configuration has the field at the top, that one counts.
    fn original_positions(&self) -> Result<usize, String> {
        let name = "original_max_position_embeddings";
        let found = self.original.or_else(|| self.map.get(name));
        let found = found.filter(|value| !value.is_null()).or(self.max);
        size(found).ok_or_else(|| format!("`{}` needs a length under `{name}`", self.kind))
    }

    fn factor(&self, original_positions: usize) -> Result<f64, String> {
        let by_length = size(self.max).map(|max| max as f64 / original_positions as f64);
        match self.optional("factor")? {
            Some(given) => Ok(given),
            None => by_length.ok_or_else(|| self.needs("factor")),
        }
    }
}

fn size(value: Option<&Value>) -> Option<usize> {
    let number = value?.as_u64().filter(|number| *number > 0)?;
    number.try_into().ok()
}
