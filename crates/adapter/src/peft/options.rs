//! What only some methods ask for, by PEFT's keys: of a folder, and of whoever sets them by hand.

use serde_json::{Map, Value};

use super::config::TargetModules;
use super::fields::{Fields, as_count, as_counts};
use crate::config::LoraConfig;
use crate::error::{AdapterError, nearest};
use crate::method::MethodConfig;

/// A configuration with options of its method by the keys of PEFT's `adapter_config.json`, read as those of a folder are. What is
/// not named stays as it is.
///
/// | method | options |
/// |---|---|
/// | all but tokens | `exclude_modules` |
/// | all but (IA)3 and tokens | `layers_to_transform`, `layers_pattern` |
/// | LoRA, LoRA-FA, DoRA | `rank_pattern`, `alpha_pattern`, `lora_bias`, `trainable_token_indices` |
/// | AdaLoRA | `alpha_pattern`, `target_r`, `tinit`, `tfinal`, `deltaT`, `beta1`, `beta2`, `orth_reg_weight` |
/// | VeRA | `projection_prng_key`, `save_projection`, `d_initial` |
/// | LoHa, LoKr | `rank_pattern`, `alpha_pattern`, `use_effective_conv2d`, `rank_dropout`, `module_dropout` |
/// | LoKr | `rank_dropout_scale`, `decompose_both`, `decompose_factor` |
/// | (IA)3 | `feedforward_modules` |
/// | tokens | `token_indices` |
///
/// What every method has, as its rank, the [`LoraConfig`] says itself.
///
/// ```
/// use burn_lora_adapter::{LoraConfig, peft};
/// use serde_json::json;
///
/// let options = json!({ "rank_pattern": { "q_proj": 16 } });
/// let config = LoraConfig::new(4, 8.0);
/// let config = peft::with_options(config, options.as_object().expect("a map"))?;
/// assert_eq!(config.rank_pattern, [("q_proj".to_string(), 16)]);
/// # Ok::<(), burn_lora_adapter::AdapterError>(())
/// ```
///
/// # Errors
/// [`AdapterError::Config`] with every value of a wrong type, whatever else is wrong with the configuration by itself, and every
/// key that the method does not have, with the nearest that it has.
pub fn with_options(
    config: LoraConfig,
    options: &Map<String, Value>,
) -> Result<LoraConfig, AdapterError> {
    let mut config = config;
    let mut fields = Fields::new(options.clone());
    if !matches!(config.method, MethodConfig::Tokens(_)) {
        read_exclude(&mut fields, &mut config);
    }
    if !matches!(
        config.method,
        MethodConfig::Ia3(_) | MethodConfig::Tokens(_)
    ) {
        read_layers(&mut fields, &mut config);
    }
    read_options(&mut fields, &mut config);
    let known = fields.asked();
    let word = config.method.word();
    let unknown = options.keys().filter(|key| !known.contains(key));
    let unknown = unknown.map(|key| {
        let near = nearest(key, known.iter().map(String::as_str));
        let near = near.map_or_else(
            || format!("; there are {}", known.join(", ")),
            |near| format!(": did you mean {near}?"),
        );
        format!("{word} has no option {key}{near}")
    });
    let unknown: Vec<String> = unknown.collect();
    // What could not be read is told once, not as missing, too.
    let is_wrong = |key: &&String, faults: &[String]| {
        let starts = format!("{key} ");
        let meant = format!("did you mean {key}?");
        faults.iter().any(|fault| fault.starts_with(&starts))
            || unknown.iter().any(|fault| fault.ends_with(&meant))
    };
    let known = known.to_vec();
    let (_, mut faults) = fields.rest();
    let wrong: Vec<&String> = known.iter().filter(|key| is_wrong(key, &faults)).collect();
    if let Err(AdapterError::Config { faults: own }) = config.check().map(|_| ()) {
        let is_new = |fault: &String| !wrong.iter().any(|key| fault.contains(key.as_str()));
        faults.extend(own.into_iter().filter(is_new));
    }
    faults.extend(unknown);
    match faults.is_empty() {
        true => Ok(config),
        false => Err(AdapterError::Config { faults }),
    }
}

/// Which layers are left out.
pub(super) fn read_exclude(fields: &mut Fields, adapter: &mut LoraConfig) {
    let modules = fields.optional(
        "exclude_modules",
        "names or an expression",
        TargetModules::read,
    );
    if let Some(modules) = modules {
        adapter.exclude = Some((&modules).into());
    }
}

/// Which layers of a list are taken.
pub(super) fn read_layers(fields: &mut Fields, adapter: &mut LoraConfig) {
    if let Some(layers) = fields.counts("layers_to_transform") {
        adapter.layers_to_transform = Some(layers);
    }
    put(fields.texts("layers_pattern"), &mut adapter.layers_pattern);
}

/// What only LoRA has, whatever it is called.
pub(super) fn read_lora_options(fields: &mut Fields, adapter: &mut LoraConfig) {
    adapter.lora_bias = fields.flag("lora_bias", adapter.lora_bias);
    let tokens = fields.optional(
        "trainable_token_indices",
        "a list, or lists by layer",
        |value| match value {
            Value::Object(layers) => layers
                .iter()
                .map(|(layer, tokens)| Some((layer.clone(), as_counts(tokens)?)))
                .collect(),
            tokens => Some(vec![(String::new(), as_counts(tokens)?)]),
        },
    );
    put(tokens, &mut adapter.trainable_tokens);
}

/// The options of the adapter's method.
pub(super) fn read_options(fields: &mut Fields, adapter: &mut LoraConfig) {
    if adapter.method.is_lora() {
        read_lora_options(fields, adapter);
    }
    let is_product = matches!(
        adapter.method,
        MethodConfig::LoHa(_) | MethodConfig::LoKr(_)
    );
    if is_product || adapter.method.is_lora() {
        let ranks = fields.entries("rank_pattern", "a whole number", as_count);
        put(ranks, &mut adapter.rank_pattern);
    }
    if is_product || adapter.method.is_lora() || matches!(adapter.method, MethodConfig::AdaLora(_))
    {
        let alphas = fields.entries("alpha_pattern", "a number", Value::as_f64);
        put(alphas, &mut adapter.alpha_pattern);
    }
    match &mut adapter.method {
        MethodConfig::AdaLora(adalora) => {
            adalora.target_rank = fields.count("target_r", adalora.target_rank);
            adalora.t_init = fields.count("tinit", adalora.t_init);
            adalora.t_final = fields.count("tfinal", adalora.t_final);
            adalora.delta_t = fields.count("deltaT", adalora.delta_t);
            adalora.beta_1 = fields.number("beta1", adalora.beta_1);
            adalora.beta_2 = fields.number("beta2", adalora.beta_2);
            let weight = adalora.orthogonality_weight;
            adalora.orthogonality_weight = fields.number("orth_reg_weight", weight);
        }
        MethodConfig::Vera(vera) => {
            let key = fields.optional("projection_prng_key", "a whole number", Value::as_u64);
            vera.key = key.unwrap_or(vera.key);
            vera.save_projection = fields.flag("save_projection", vera.save_projection);
            vera.d_initial = fields.number("d_initial", vera.d_initial);
        }
        MethodConfig::LoHa(loha) => {
            loha.use_effective_conv2d =
                fields.flag("use_effective_conv2d", loha.use_effective_conv2d);
            loha.rank_dropout = fields.number("rank_dropout", loha.rank_dropout);
            loha.module_dropout = fields.number("module_dropout", loha.module_dropout);
        }
        MethodConfig::LoKr(lokr) => {
            lokr.use_effective_conv2d =
                fields.flag("use_effective_conv2d", lokr.use_effective_conv2d);
            lokr.rank_dropout = fields.number("rank_dropout", lokr.rank_dropout);
            lokr.rank_dropout_scale = fields.flag("rank_dropout_scale", lokr.rank_dropout_scale);
            lokr.module_dropout = fields.number("module_dropout", lokr.module_dropout);
            lokr.decompose_both = fields.flag("decompose_both", lokr.decompose_both);
            // PEFT writes -1 for none.
            if let Some(factor) =
                fields.optional("decompose_factor", "a whole number", Value::as_i64)
            {
                lokr.decompose_factor = usize::try_from(factor).ok();
            }
        }
        MethodConfig::Ia3(ia3) => {
            let feedforward = fields.optional(
                "feedforward_modules",
                "names or an expression",
                TargetModules::read,
            );
            if let Some(modules) = feedforward {
                ia3.feedforward = Some((&modules).into());
            }
        }
        MethodConfig::Tokens(indices) => put(fields.counts("token_indices"), indices),
        MethodConfig::Lora
        | MethodConfig::LoraFa
        | MethodConfig::Dora
        | MethodConfig::BitFit
        | MethodConfig::Full => {}
    }
}

fn put<T>(found: Option<T>, place: &mut T) {
    if let Some(found) = found {
        *place = found;
    }
}
