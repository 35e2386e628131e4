//! Reading and writing the configurations of decoders.

use burn_lora_kernels::RopeScaling;
use serde_json::{Value, json};

use super::*;

const FAMILIES: [&str; 10] = [
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "phi3",
    "gpt_neox",
    "mixtral",
    "qwen3_moe",
];

fn parse(model_type: &str, more: Value) -> Result<DecoderConfig, ConfigError> {
    let mut map = json!({
        "model_type": model_type, "vocab_size": 100, "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2,
    });
    for (name, value) in more.as_object().expect("an object") {
        map[name] = value.clone();
    }
    DecoderConfig::from_json(&map.to_string())
}

fn valid(model_type: &str, more: Value) -> DecoderConfig {
    parse(model_type, more).expect("valid")
}

fn llama(more: Value) -> LlamaConfig {
    match valid("llama", more) {
        DecoderConfig::Llama(config) => config,
        other => unreachable!("{other:?} is no Llama"),
    }
}

fn problem(model_type: &str, more: Value) -> String {
    parse(model_type, more).expect_err("refused").to_string()
}

fn windows(model_type: &str, more: Value) -> Vec<Option<usize>> {
    let plan = valid(model_type, more).plan();
    plan.layers.iter().map(|layer| layer.window).collect()
}

#[test]
fn absent_fields_have_the_defaults_of_transformers() {
    let config = llama(json!({}));
    assert_eq!(config.head_dim, 8);
    assert_eq!(config.rope_theta, 10_000.0);
    assert!(!config.tie_word_embeddings);
    assert_eq!(DecoderConfig::from(config).max_positions(), 2048);
    assert!(valid("gemma2", json!({})).is_tied());
}

#[test]
fn both_spellings_of_rope_are_read() {
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192});
    let mut five = scaling.clone();
    five["rope_theta"] = json!(5e5);
    let four = llama(json!({"rope_theta": 5e5, "rope_scaling": scaling}));
    let five = llama(json!({"rope_parameters": five}));
    assert_eq!(four.rope_theta, 5e5);
    assert!(matches!(four.rope_scaling, RopeScaling::Llama3 { .. }));
    assert_eq!(four, five);
}

#[test]
fn rotary_fields_have_other_names_in_other_families() {
    let parameters =
        json!({"rope_theta": 5e4, "partial_rotary_factor": 0.5, "rope_type": "default"});
    let neox = valid("gpt_neox", json!({"rope_parameters": parameters}));
    let DecoderConfig::GptNeox(neox) = neox else {
        unreachable!("a GPT-NeoX")
    };
    assert_eq!((neox.rotary_emb_base, neox.rotary_pct), (5e4, 0.5));
    let by_kind = json!({
        "full_attention": {"rope_theta": 5e5, "rope_type": "linear", "factor": 8.0},
        "sliding_attention": {"rope_theta": 5e3, "rope_type": "default"},
    });
    let DecoderConfig::Gemma3Text(gemma) =
        valid("gemma3_text", json!({"rope_parameters": by_kind}))
    else {
        unreachable!("a Gemma 3")
    };
    assert_eq!((gemma.rope_theta, gemma.rope_local_base_freq), (5e5, 5e3));
    assert_eq!(gemma.rope_scaling, RopeScaling::Linear { factor: 8.0 });
    // Another family has no second base.
    let text = problem("llama", json!({"rope_parameters": by_kind}));
    assert!(text.contains("for all layers"), "{text}");
}

#[test]
fn every_kind_of_scaling_is_read_and_written() {
    let kinds = [
        json!({"rope_type": "linear", "factor": 2.0}),
        json!({"type": "dynamic", "factor": 2.0}),
        json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "mscale": 0.7,
            "mscale_all_dim": 1.0, "truncate": false}),
        json!({"type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 2, 3, 4],
            "original_max_position_embeddings": 512}),
    ];
    for kind in kinds {
        let config = llama(json!({"rope_scaling": kind, "max_position_embeddings": 2048}));
        assert_ne!(config.rope_scaling, RopeScaling::None, "{kind}");
        let text = DecoderConfig::from(config).to_json();
        let again = DecoderConfig::from_json(&text).expect("valid");
        assert_eq!(again.to_json(), text);
    }
}

#[test]
fn dynamic_scaling_reaches_beyond_the_positions_of_pretraining() {
    let scaling = json!({"rope_type": "dynamic", "factor": 2.0});
    let fields = json!({"rope_scaling": scaling, "max_position_embeddings": 2048});
    assert_eq!(valid("llama", fields).max_positions(), 4096);
    let text = problem("llama", json!({"rope_scaling": scaling}));
    assert!(text.contains("needs `max_position_embeddings`"), "{text}");
}

#[test]
fn all_that_is_not_built_is_refused_at_once() {
    let text = problem(
        "llama",
        json!({"hidden_act": "mish", "rope_scaling": {"type": "yarn", "factor": 2.0, "alpha": 3},
            "quantization_config": {"bits": 4}, "vocab_size": "many", "pretraining_tp": 2}),
    );
    for part in [
        "hidden_act",
        "`alpha` of rope type `yarn`",
        "quantization_config",
        "vocab_size",
        "pretraining_tp",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    for (model_type, more, part) in [
        (
            "gemma2",
            json!({"use_bidirectional_attention": true}),
            "bidirectional",
        ),
        (
            "gemma3_text",
            json!({"attn_logit_softcapping": 5.0}),
            "softcapping",
        ),
        (
            "llama",
            json!({"rope_scaling": {"type": "ntk"}}),
            "linear, dynamic, llama3",
        ),
        (
            "qwen2",
            json!({"layer_types": ["chunked_attention"]}),
            "layer_types",
        ),
        (
            "mistral",
            json!({"layer_types": ["full_attention"]}),
            "layer_types",
        ),
    ] {
        let text = problem(model_type, more);
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_missing_field_names_a_similar_one() {
    let text = problem("llama", json!({"hidden_size": null, "hidden_sizes": 64}));
    assert!(
        text.contains("`hidden_size` is missing (nearest: `hidden_sizes`)"),
        "{text}"
    );
}

#[test]
fn contradictions_are_refused() {
    for (model_type, more, part) in [
        ("llama", json!({"num_key_value_heads": 3}), "not a multiple"),
        ("llama", json!({"head_dim": 7}), "odd"),
        ("llama", json!({"vocab_size": 0}), "`vocab_size` is 0"),
        (
            "llama",
            json!({"num_attention_heads": 1u64 << 62}),
            "at most 2^24",
        ),
        ("llama", json!({"rope_theta": 0.0}), "rope_theta"),
        ("llama", json!({"rms_norm_eps": -1.0}), "rms_norm_eps"),
        (
            "llama",
            json!({"num_hidden_layers": 1u64 << 20}),
            "layers or more",
        ),
        ("mistral", json!({"sliding_window": 0}), "sliding_window"),
        (
            "mixtral",
            json!({"num_experts_per_tok": 9}),
            "num_local_experts",
        ),
        (
            "qwen3_moe",
            json!({"num_experts": 4}),
            "num_experts_per_tok",
        ),
        (
            "gpt_neox",
            json!({"num_attention_heads": 7}),
            "not a multiple",
        ),
        ("gpt_neox", json!({"rotary_pct": 0.4}), "odd"),
        ("phi3", json!({"partial_rotary_factor": 1.5}), "above 1"),
        (
            "phi3",
            json!({"rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [1.0],
                "original_max_position_embeddings": 64, "factor": 2.0}}),
            "4 frequencies",
        ),
        (
            "qwen3",
            json!({"layer_types": ["full_attention"]}),
            "1 entries for 2",
        ),
        (
            "qwen3",
            json!({"layer_types": ["full_attention", "sliding_attention"]}),
            "no window",
        ),
        (
            "gemma2",
            json!({"final_logit_softcapping": 0.0}),
            "final_logit_softcapping",
        ),
    ] {
        let text = problem(model_type, more);
        assert!(text.contains(part), "{model_type}: {part} in {text}");
    }
}

#[test]
fn windows_are_those_of_transformers() {
    let positions = json!({"max_position_embeddings": 32768});
    assert_eq!(windows("mistral", positions), [Some(4096); 2]);
    assert_eq!(
        windows("mistral", json!({"sliding_window": null})),
        [None; 2]
    );
    let asked = |more: Value| {
        let mut fields = json!({"use_sliding_window": true, "sliding_window": 9});
        for (name, value) in more.as_object().expect("an object") {
            fields[name] = value.clone();
        }
        windows("qwen2", fields)
    };
    assert_eq!(windows("qwen2", json!({"sliding_window": 9})), [None; 2]);
    assert_eq!(asked(json!({})), [None; 2]);
    assert_eq!(asked(json!({"max_window_layers": 1})), [None, Some(9)]);
    let kinds = json!({"layer_types": ["sliding_attention", "full_attention"]});
    assert_eq!(asked(kinds), [Some(9), None]);
    assert_eq!(
        windows("gemma2", json!({"sliding_window": 9})),
        [Some(9), None]
    );
    let pattern = json!({"sliding_window": 9, "sliding_window_pattern": 2});
    assert_eq!(windows("gemma3_text", pattern), [Some(9), None]);
}

#[test]
fn a_window_no_longer_limits_the_length() {
    let config = valid("mistral", json!({"max_position_embeddings": 32768}));
    assert_eq!(config.max_positions(), 32_768);
}

#[test]
fn writing_and_reading_keeps_everything() {
    let more = json!({"bos_token_id": 1, "eos_token_id": [2, 3], "tie_word_embeddings": true,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0}, "sliding_window": 512,
        "num_experts": 16, "rotary_pct": 0.5});
    for model_type in FAMILIES {
        let config = valid(model_type, more.clone());
        assert_eq!(config.model_type(), model_type);
        let again = DecoderConfig::from_json(&config.to_json()).expect("valid");
        assert_eq!(again.to_json(), config.to_json());
        assert!(again.to_json().contains("eos_token_id"));
        assert!(again.is_tied());
    }
}
