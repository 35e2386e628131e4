//! The text of a configuration, in PEFT's words.

use serde_json::{Map, Value, json};

use super::config::TargetModules;
use super::save::PeftMetadata;
use crate::beside::TrainedBiases;
use crate::config::LoraConfig;
use crate::method::{LoHaConfig, LoKrConfig, MethodConfig};

/// The configuration of an adapter with the fields that PEFT writes for its method, and those that were read and not understood.
pub(super) fn config_text(
    config: &LoraConfig,
    targets: &TargetModules,
    metadata: &PeftMetadata,
) -> String {
    let task = metadata.task_type.as_deref().unwrap_or("CAUSAL_LM");
    let saved = Some(&config.modules_to_save).filter(|names| !names.is_empty());
    let exclude = config.exclude.as_ref().map(TargetModules::from);
    let mut map = Map::new();
    let mut put = |field: &str, value: Value| map.insert(field.to_string(), value);
    put("peft_type", json!(peft_type(&config.method)));
    put("task_type", json!(task));
    put(
        "base_model_name_or_path",
        json!(metadata.base_model_name_or_path),
    );
    put("inference_mode", json!(true));
    put("target_modules", targets.to_value());
    put("modules_to_save", json!(saved));
    if !matches!(config.method, MethodConfig::Tokens(_)) {
        put(
            "exclude_modules",
            json!(exclude.map(|modules| modules.to_value())),
        );
    }
    if !matches!(
        config.method,
        MethodConfig::Ia3(_) | MethodConfig::Tokens(_)
    ) {
        put("layers_to_transform", json!(config.layers_to_transform));
        let pattern = match config.layers_pattern.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        };
        put("layers_pattern", pattern);
    }
    for (field, value) in method_fields(config, metadata) {
        put(field, value);
    }
    // What was read goes before what stands for nothing.
    let empty = ["auto_mapping", "revision"].map(|field| (field.to_string(), Value::Null));
    let rest = metadata.other.clone().into_iter().chain(empty);
    for (field, value) in rest {
        map.entry(field).or_insert(value);
    }
    format!("{:#}\n", Value::Object(map))
}

pub(super) fn peft_type(method: &MethodConfig) -> &'static str {
    match method {
        MethodConfig::Lora | MethodConfig::LoraFa | MethodConfig::Dora => "LORA",
        MethodConfig::Vera(_) => "VERA",
        MethodConfig::LoHa(_) => "LOHA",
        MethodConfig::LoKr(_) => "LOKR",
        MethodConfig::AdaLora(_) => "ADALORA",
        MethodConfig::Ia3(_) => "IA3",
        MethodConfig::Tokens(_) => "TRAINABLE_TOKENS",
        MethodConfig::BitFit => "BITFIT",
        MethodConfig::Full => "FULL",
    }
}

fn method_fields(config: &LoraConfig, metadata: &PeftMetadata) -> Vec<(&'static str, Value)> {
    let fan = ("fan_in_fan_out", json!(metadata.fan_in_fan_out));
    let word = match (config.trained_biases, config.method.biases_word()) {
        (TrainedBiases::All, _) => "all",
        (TrainedBiases::Adapted, Some(word)) => word,
        _ => "none",
    };
    let bias = ("bias", json!(word));
    match &config.method {
        MethodConfig::Lora | MethodConfig::LoraFa | MethodConfig::Dora => {
            let mut fields = lora_fields(config);
            let is_dora = config.method == MethodConfig::Dora;
            fields.extend([
                ("r", json!(config.rank)),
                ("use_rslora", json!(config.use_rslora)),
                ("use_dora", json!(is_dora)),
                ("lora_bias", json!(config.lora_bias)),
                (
                    "rank_pattern",
                    pattern(&config.rank_pattern, |rank| json!(rank)),
                ),
                fan,
                bias,
            ]);
            fields
        }
        MethodConfig::AdaLora(adalora) => {
            let mut fields = lora_fields(config);
            let kept = adalora.kept.iter();
            let kept: Map<String, Value> = kept
                .map(|(layer, kept)| (format!("{layer}.lora_E"), json!(kept)))
                .collect();
            fields.extend([
                ("r", json!(8)),
                ("init_r", json!(config.rank)),
                ("target_r", json!(adalora.target_rank)),
                ("tinit", json!(adalora.t_init)),
                ("tfinal", json!(adalora.t_final)),
                ("deltaT", json!(adalora.delta_t)),
                ("beta1", json!(adalora.beta_1)),
                ("beta2", json!(adalora.beta_2)),
                ("orth_reg_weight", json!(adalora.orthogonality_weight)),
                ("total_step", json!(adalora.total_steps)),
                (
                    "rank_pattern",
                    json!(Some(kept).filter(|kept| !kept.is_empty())),
                ),
                ("use_rslora", json!(false)),
                ("use_dora", json!(false)),
                ("lora_bias", json!(false)),
                fan,
                bias,
            ]);
            fields
        }
        MethodConfig::Vera(vera) => vec![
            ("r", json!(config.rank)),
            ("vera_dropout", json!(config.dropout)),
            ("projection_prng_key", json!(vera.key)),
            ("save_projection", json!(vera.save_projection)),
            ("d_initial", json!(vera.d_initial)),
            ("init_weights", json!(true)),
            fan,
            bias,
        ],
        MethodConfig::LoHa(LoHaConfig {
            use_effective_conv2d,
            rank_dropout,
            module_dropout,
        })
        | MethodConfig::LoKr(LoKrConfig {
            use_effective_conv2d,
            rank_dropout,
            module_dropout,
            ..
        }) => {
            let mut fields = vec![
                ("r", json!(config.rank)),
                ("alpha", number(config.alpha)),
                ("init_weights", json!(true)),
                ("use_effective_conv2d", json!(use_effective_conv2d)),
                ("rank_dropout", json!(rank_dropout)),
                ("module_dropout", json!(module_dropout)),
                (
                    "rank_pattern",
                    pattern(&config.rank_pattern, |rank| json!(rank)),
                ),
                ("alpha_pattern", pattern(&config.alpha_pattern, number_of)),
            ];
            if let MethodConfig::LoKr(lokr) = &config.method {
                let factor = lokr.decompose_factor.map_or(-1, |factor| factor as i64);
                fields.push(("decompose_both", json!(lokr.decompose_both)));
                fields.push(("decompose_factor", json!(factor)));
                fields.push(("rank_dropout_scale", json!(lokr.rank_dropout_scale)));
            }
            fields
        }
        MethodConfig::Ia3(ia3) => {
            let feedforward = ia3.feedforward.as_ref().map(TargetModules::from);
            vec![
                (
                    "feedforward_modules",
                    json!(feedforward.map(|modules| modules.to_value())),
                ),
                ("init_ia3_weights", json!(true)),
                fan,
            ]
        }
        MethodConfig::Tokens(indices) => vec![
            ("token_indices", json!(indices)),
            ("init_weights", json!(true)),
        ],
        MethodConfig::BitFit | MethodConfig::Full => vec![fan],
    }
}

/// What LoRA and AdaLoRA have in common.
fn lora_fields(config: &LoraConfig) -> Vec<(&'static str, Value)> {
    let tokens = match config.trainable_tokens.as_slice() {
        [] => Value::Null,
        [(layer, tokens)] if layer.is_empty() => json!(tokens),
        several => {
            let several = several.iter();
            Value::Object(
                several
                    .map(|(layer, tokens)| (layer.clone(), json!(tokens)))
                    .collect(),
            )
        }
    };
    vec![
        ("lora_alpha", number(config.alpha)),
        ("lora_dropout", json!(config.dropout)),
        // The tensors say it all now; an exotic name here would make some loaders refuse the folder.
        ("init_lora_weights", json!(true)),
        ("alpha_pattern", pattern(&config.alpha_pattern, number_of)),
        ("trainable_token_indices", tokens),
    ]
}

/// Whole numbers are written as such, since some readers want an integer for `lora_alpha`.
fn number(value: f64) -> Value {
    match value.fract() == 0.0 && value.abs() < 1e15 {
        true => json!(value as i64),
        false => json!(value),
    }
}

fn number_of(value: &f64) -> Value {
    number(*value)
}

fn pattern<T>(entries: &[(String, T)], value: impl Fn(&T) -> Value) -> Value {
    let entries = entries.iter();
    Value::Object(
        entries
            .map(|(key, one)| (key.clone(), value(one)))
            .collect(),
    )
}
