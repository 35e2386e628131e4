//! What a family of decoders says of itself.

use burn_lora_kernels::{Rope, RopeScaling, Scores};
use serde_json::{Map, Value};

use super::check;
use super::fields::Fields;
use super::rope::{RopeNames, to_version_4};
use super::schema::{LayerType, Schema};
use crate::decoder::names::Names;
use crate::decoder::norm::NormKind;
use crate::decoder::plan::{
    AttentionPlan, LayerPlan, LinearForm, MlpForm, MlpPlan, NormPlan, Plan, QkvForm, Residual,
};
use crate::error::ConfigError;

/// More layers or experts than any model has: such a number is a mistake, and a list of that length would not fit memory.
const MOST: usize = 1 << 16;

/// A family: its names, and what its fields mean.
pub(crate) trait Family: Schema {
    /// The `model_type` in `config.json`.
    const MODEL_TYPE: &'static str;
    /// The name of the class in Transformers.
    const ARCHITECTURE: &'static str;
    /// The name of the class with a head for labels.
    const CLASSIFIER: &'static str;
    /// The layers that PEFT adapts unless it is told otherwise.
    const TARGETS: &'static [&'static str];
    /// What the rotary fields are called.
    const ROPE: RopeNames = RopeNames {
        theta: "rope_theta",
        partial: "partial_rotary_factor",
        local_theta: None,
    };

    /// Whether heads share the width among themselves where the file has no `head_dim`.
    const HEADS_SHARE_WIDTH: bool = false;

    /// Other names of fields, each with the name here.
    const ALIASES: &'static [(&'static str, &'static str)] = &[];

    /// Notes fields that ask for what is not built.
    fn refuse(_fields: &mut Fields<'_>) {}

    /// One line for each contradiction between fields.
    fn contradictions(&self) -> Vec<String> {
        Vec::new()
    }

    /// What the fields mean. Never panics, not even on contradictions.
    fn plan(&self) -> Plan;
}

/// Reads a family's configuration from all fields of a file.
pub(super) fn read<F: Family>(map: Map<String, Value>) -> Result<F, ConfigError> {
    let mut map = to_version_4(map, F::ROPE);
    for (alias, name) in F::ALIASES {
        if let Some(value) = map.remove(*alias) {
            map.entry(*name).or_insert(value);
        }
    }
    let mut fields = Fields::new(&map);
    let _ = fields.value("model_type");
    if fields.value("quantization_config").is_some() {
        fields.refuse("`quantization_config`: quantized checkpoints are not read");
    }
    if let Some(left) = fields.value("rope_parameters") {
        fields.refuse(format!(
            "`rope_parameters` is {left}, expected an object for all layers"
        ));
    }
    if F::HEADS_SHARE_WIDTH {
        refuse_uneven_heads(&mut fields);
    }
    F::refuse(&mut fields);
    let config = F::read(&mut fields);
    fields.finish(F::MODEL_TYPE)?;
    check(F::MODEL_TYPE, problems(&config))?;
    Ok(config)
}

fn refuse_uneven_heads(fields: &mut Fields<'_>) {
    let size = |name: &str| fields.peek(name).and_then(Value::as_u64);
    let (width, heads) = (size("hidden_size"), size("num_attention_heads"));
    if let (None, Some(width), Some(heads @ 1..)) = (size("head_dim"), width, heads)
        && width % heads > 0
    {
        fields.refuse(format!(
            "`hidden_size` {width} is not a multiple of `num_attention_heads` {heads}, and there is no `head_dim`"
        ));
    }
}

/// All fields for writing.
pub(super) fn write<F: Family>(config: &F) -> Map<String, Value> {
    let mut map = config.write();
    map.insert("architectures".into(), vec![F::ARCHITECTURE].into());
    map.insert("model_type".into(), F::MODEL_TYPE.into());
    map
}

/// Everything because of which no model can have this configuration.
pub(super) fn problems<F: Family>(config: &F) -> Vec<String> {
    let faults = config.faults();
    if !faults.is_empty() {
        return faults;
    }
    let mut problems = config.contradictions();
    let plan = config.plan();
    if plan.layers.iter().any(|layer| layer.window == Some(0)) {
        problems.push("`sliding_window` is 0".into());
    }
    let experts = plan.experts.map_or(0, |experts| experts.n);
    for (what, count) in [("layers", plan.layers.len()), ("experts", experts)] {
        if count >= MOST {
            problems.push(format!("{MOST} {what} or more are not possible"));
        }
    }
    problems
}

/// Layers that differ in their windows only, as many as a model can have: [`problems`] tells of more.
pub(super) fn layers(count: usize, window: impl Fn(usize) -> Option<usize>) -> Vec<LayerPlan> {
    (0..count.min(MOST))
        .map(|index| LayerPlan {
            rope: Some(0),
            window: window(index),
            routed: false,
        })
        .collect()
}

/// Layers of which some have experts.
pub(super) fn routed(layers: Vec<LayerPlan>, is_routed: impl Fn(usize) -> bool) -> Vec<LayerPlan> {
    let layers = layers.into_iter().enumerate();
    layers
        .map(|(index, layer)| LayerPlan {
            routed: is_routed(index),
            ..layer
        })
        .collect()
}

/// Complains of a token that is to go to more experts than there are.
pub(super) fn too_many((top_k, experts): (usize, usize), name: &str) -> Option<String> {
    (top_k > experts).then(|| format!("`num_experts_per_tok` {top_k} is above `{name}` {experts}"))
}

/// The window of each layer by its kind.
pub(super) fn sliding(
    kinds: Option<&[LayerType]>,
    otherwise: impl Fn(usize) -> LayerType,
    window: Option<usize>,
) -> impl Fn(usize) -> Option<usize> {
    move |index| {
        let kind = kinds.and_then(|kinds| kinds.get(index)).copied();
        let kind = kind.unwrap_or_else(|| otherwise(index));
        window.filter(|_| kind == LayerType::Sliding)
    }
}

/// [`sliding`], where the layers from one on have the window unless the file says the kind of each.
pub(super) fn sliding_from(
    first: Option<usize>,
    kinds: Option<&[LayerType]>,
    window: Option<usize>,
) -> impl Fn(usize) -> Option<usize> {
    let is_full = move |index| first.is_none_or(|first| index < first);
    let kind = move |index| match is_full(index) {
        true => LayerType::Full,
        false => LayerType::Sliding,
    };
    sliding(kinds, kind, window)
}

/// Complains of `a` that is not a multiple of `b`.
pub(super) fn multiple(a: (&str, usize), b: (&str, usize)) -> Option<String> {
    let wrong = !a.1.is_multiple_of(b.1);
    wrong.then(|| format!("`{}` {} is not a multiple of `{}` {}", a.0, a.1, b.0, b.1))
}

/// Complains of kinds of layers that are more or fewer than the layers, or that want a window where there is none.
pub(super) fn kinds_of(
    kinds: Option<&[LayerType]>,
    layers: usize,
    window: Option<usize>,
) -> Option<String> {
    let kinds = kinds?;
    if kinds.len() != layers {
        let count = kinds.len();
        return Some(format!(
            "`layer_types` has {count} entries for {layers} layers"
        ));
    }
    (window.is_none() && kinds.contains(&LayerType::Sliding))
        .then(|| "`layer_types` asks for `sliding_attention`, but there is no window".into())
}

/// Complains of a width that cannot be rotated in pairs.
pub(super) fn even(name: &str, width: usize) -> Option<String> {
    (width == 0 || !width.is_multiple_of(2))
        .then(|| format!("`{name}` {width} is odd, and its coordinates are rotated in pairs"))
}

/// Complains of a base of which frequencies cannot be made.
pub(super) fn base(name: &str, theta: f64) -> Option<String> {
    (theta <= 1.0).then(|| format!("`{name}` {theta} is not above 1"))
}

/// Complains of a list of divisors that is not as long as there are frequencies.
pub(super) fn divisors(scaling: &RopeScaling, width: usize) -> Option<String> {
    let RopeScaling::LongRope { short, long, .. } = scaling else {
        return None;
    };
    let (short, long, pairs) = (short.len(), long.len(), width / 2);
    let wrong = short != pairs || long != pairs;
    wrong.then(|| {
        format!("`short_factor` and `long_factor` have {short} and {long} entries for {pairs} frequencies")
    })
}

/// The longest sequence of a model whose configuration names this one.
pub(super) fn longest(max_position_embeddings: usize, scaling: &RopeScaling) -> usize {
    match scaling {
        // The field is the length of pretraining: beyond it the frequencies begin to change.
        RopeScaling::Dynamic { factor, .. } => (max_position_embeddings as f64 * factor) as usize,
        _ => max_position_embeddings,
    }
}

/// The fields that Llama's configuration has in common with others, by their values.
pub(super) struct LlamaShape<'a> {
    pub(super) names: &'static Names,
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) num_attention_heads: usize,
    pub(super) num_key_value_heads: usize,
    pub(super) head_dim: usize,
    pub(super) activation: crate::activation::Activation,
    pub(super) max_position_embeddings: usize,
    pub(super) rms_norm_eps: f64,
    pub(super) rope_theta: f64,
    pub(super) rope_scaling: &'a RopeScaling,
    pub(super) tied: bool,
    pub(super) initializer_range: f64,
    pub(super) layers: Vec<LayerPlan>,
}

impl LlamaShape<'_> {
    /// A decoder as Llama is: what a family has of its own is changed by struct update.
    pub(super) fn plan(self) -> Plan {
        let rope = Rope::new(self.head_dim, self.rope_theta, self.rope_scaling.clone());
        Plan {
            names: self.names,
            vocab_size: self.vocab_size,
            d_model: self.hidden_size,
            max_positions: longest(self.max_position_embeddings, self.rope_scaling),
            learned_positions: false,
            embedding_scale: None,
            norm: NormPlan {
                kind: NormKind::Rms,
                eps: self.rms_norm_eps,
            },
            linear: LinearForm::Linear,
            residual: Residual::Sequential,
            attention: AttentionPlan {
                n_heads: self.num_attention_heads,
                n_kv_heads: self.num_key_value_heads,
                d_head: self.head_dim,
                qkv: QkvForm::Separate,
                qkv_bias: false,
                out_bias: false,
                head_norms: false,
                scores: Scores::of_width(self.head_dim.max(1)),
            },
            ropes: vec![rope],
            mlp: MlpPlan {
                d_inner: self.intermediate_size,
                form: MlpForm::Gated,
                activation: self.activation,
                bias: false,
            },
            experts: None,
            layers: self.layers,
            tied: self.tied,
            logit_softcap: None,
            initializer_range: self.initializer_range,
        }
    }
}

/// [`LlamaShape`] of a configuration with Llama's fields.
macro_rules! llama_shape {
    ($config:ident, $names:expr, $activation:expr, $window:expr) => {
        $crate::config::family::LlamaShape {
            names: $names,
            vocab_size: $config.vocab_size,
            hidden_size: $config.hidden_size,
            intermediate_size: $config.intermediate_size,
            num_attention_heads: $config.num_attention_heads,
            num_key_value_heads: $config.num_key_value_heads,
            head_dim: $config.head_dim,
            activation: $activation,
            max_position_embeddings: $config.max_position_embeddings,
            rms_norm_eps: $config.rms_norm_eps,
            rope_theta: $config.rope_theta,
            rope_scaling: &$config.rope_scaling,
            tied: $config.tie_word_embeddings,
            initializer_range: $config.initializer_range,
            layers: $crate::config::family::layers($config.num_hidden_layers, $window),
        }
    };
}
pub(super) use llama_shape;

/// The contradictions that a configuration with Llama's fields may hold.
macro_rules! llama_contradictions {
    ($config:ident) => {{
        use $crate::config::family::{base, divisors, even, multiple};
        let heads = ("num_attention_heads", $config.num_attention_heads);
        let kv_heads = ("num_key_value_heads", $config.num_key_value_heads);
        [
            multiple(heads, kv_heads),
            even("head_dim", $config.head_dim),
            base("rope_theta", $config.rope_theta),
            divisors(&$config.rope_scaling, $config.head_dim),
        ]
        .into_iter()
        .flatten()
        .collect::<Vec<String>>()
    }};
}
pub(super) use llama_contradictions;
