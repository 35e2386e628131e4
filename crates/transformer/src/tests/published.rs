//! The shapes of published models: their `config.json`, but for token ids and the like, and their number of parameters.

use serde_json::{Value, json};

use super::*;

/// The divisors of LongRoPE; which ones they are does not matter here.
fn ones() -> Value {
    vec![1.0; 48].into()
}

/// A Pythia by its shape: hidden size, layers, heads, and the rows of its embedding.
fn pythia(hidden: usize, layers: usize, heads: usize, vocab: usize) -> Value {
    json!({"model_type": "gpt_neox", "hidden_act": "gelu", "hidden_size": hidden, "intermediate_size": 4 * hidden,
        "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "num_attention_heads": heads,
        "num_hidden_layers": layers, "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": false,
        "use_parallel_residual": true, "vocab_size": vocab})
}

/// Five layers with a window to one without.
fn gemma3_layers(count: usize) -> Value {
    let kind = |layer: usize| match layer % 6 {
        5 => "full_attention",
        _ => "sliding_attention",
    };
    (0..count).map(kind).collect()
}

fn published() -> Vec<(&'static str, usize, Value)> {
    vec![
        (
            "Llama-2-7b",
            6_738_415_616,
            json!({"model_type": "llama", "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008,
                "max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
                "num_key_value_heads": 32, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": null,
                "tie_word_embeddings": false, "vocab_size": 32000}),
        ),
        (
            "Llama-3.1-8B",
            8_030_261_248,
            json!({"model_type": "llama", "attention_bias": false, "hidden_act": "silu", "hidden_size": 4096,
                "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": false,
                "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "pretraining_tp": 1,
                "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
                "rope_theta": 500000.0, "tie_word_embeddings": false, "vocab_size": 128256}),
        ),
        (
            "SmolLM2-135M",
            134_515_008,
            json!({"model_type": "llama", "attention_bias": false, "hidden_act": "silu", "hidden_size": 576,
                "intermediate_size": 1536, "is_llama_config": true, "max_position_embeddings": 8192,
                "mlp_bias": false, "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
                "pad_token_id": null, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": false,
                "rope_scaling": null, "rope_theta": 100000, "tie_word_embeddings": true, "vocab_size": 49152}),
        ),
        (
            "Qwen2.5-7B",
            7_615_616_512,
            json!({"model_type": "qwen2", "hidden_act": "silu", "hidden_size": 3584, "intermediate_size": 18944,
                "max_position_embeddings": 131072, "max_window_layers": 28, "num_attention_heads": 28,
                "num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
                "sliding_window": 131072, "tie_word_embeddings": false, "use_mrope": false,
                "use_sliding_window": false, "vocab_size": 152064}),
        ),
        (
            "gemma-3-270m",
            268_098_176,
            json!({"model_type": "gemma3_text", "_sliding_window_pattern": 6, "attention_bias": false,
                "attn_logit_softcapping": null, "final_logit_softcapping": null, "head_dim": 256,
                "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 640, "intermediate_size": 2048,
                "layer_types": gemma3_layers(18), "max_position_embeddings": 32768, "num_attention_heads": 4,
                "num_hidden_layers": 18, "num_key_value_heads": 1, "query_pre_attn_scalar": 256,
                "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000.0, "rope_scaling": null,
                "rope_theta": 1000000.0, "sliding_window": 512, "use_bidirectional_attention": false,
                "vocab_size": 262144}),
        ),
        (
            "phi-4",
            14_659_507_200,
            json!({"model_type": "phi3", "attention_bias": false, "hidden_act": "silu", "hidden_size": 5120,
                "intermediate_size": 17920, "max_position_embeddings": 16384, "num_attention_heads": 40,
                "num_hidden_layers": 40, "num_key_value_heads": 10, "original_max_position_embeddings": 16384,
                "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 250000, "sliding_window": null,
                "tie_word_embeddings": false, "vocab_size": 100352}),
        ),
        (
            "Llama-3.2-1B",
            1_235_814_400,
            json!({"model_type": "llama", "attention_bias": false, "bos_token_id": 128000, "eos_token_id": 128001,
                "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
                "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false,
                "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1,
                "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0,
                "low_freq_factor": 1.0, "original_max_position_embeddings": 8192, "rope_type": "llama3",
                "rope_theta": 500000.0}, "rope_theta": 500000.0, "tie_word_embeddings": true,
                "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 128256}),
        ),
        (
            "TinyLlama-1.1B",
            1_100_048_384,
            json!({"model_type": "llama", "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 5632,
                "max_position_embeddings": 2048, "num_attention_heads": 32, "num_hidden_layers": 22,
                "num_key_value_heads": 4, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": null,
                "tie_word_embeddings": false, "vocab_size": 32000}),
        ),
        (
            "Mistral-7B-v0.1",
            7_241_732_096,
            json!({"model_type": "mistral", "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
                "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 32,
                "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096,
                "tie_word_embeddings": false, "vocab_size": 32000}),
        ),
        (
            "Qwen2.5-0.5B",
            494_032_768,
            json!({"model_type": "qwen2", "hidden_act": "silu", "hidden_size": 896, "intermediate_size": 4864,
                "max_position_embeddings": 32768, "max_window_layers": 24, "num_attention_heads": 14,
                "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
                "sliding_window": 32768, "tie_word_embeddings": true, "use_mrope": false,
                "use_sliding_window": false, "vocab_size": 151936}),
        ),
        (
            "Qwen3-0.6B",
            596_049_920,
            json!({"model_type": "qwen3", "attention_bias": false, "head_dim": 128, "hidden_act": "silu",
                "hidden_size": 1024, "intermediate_size": 3072, "max_position_embeddings": 40960,
                "max_window_layers": 28, "num_attention_heads": 16, "num_hidden_layers": 28,
                "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000,
                "sliding_window": null, "tie_word_embeddings": true, "use_sliding_window": false,
                "vocab_size": 151936}),
        ),
        (
            "gemma-2-2b",
            2_614_341_888,
            json!({"model_type": "gemma2", "attention_bias": false, "attn_logit_softcapping": 50.0,
                "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
                "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "intermediate_size": 9216,
                "max_position_embeddings": 8192, "num_attention_heads": 8, "num_hidden_layers": 26,
                "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
                "sliding_window": 4096, "cache_implementation": "hybrid", "vocab_size": 256000}),
        ),
        (
            "gemma-3-1b",
            999_885_952,
            json!({"model_type": "gemma3_text", "attention_bias": false, "attn_logit_softcapping": null,
                "cache_implementation": "hybrid", "final_logit_softcapping": null, "head_dim": 256,
                "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152, "intermediate_size": 6912,
                "max_position_embeddings": 32768, "num_attention_heads": 4, "num_hidden_layers": 26,
                "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
                "rope_local_base_freq": 10000, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": 512,
                "sliding_window_pattern": 6, "vocab_size": 262144}),
        ),
        (
            "Phi-3.5-mini",
            3_821_079_552,
            json!({"model_type": "phi3", "hidden_act": "silu", "hidden_size": 3072, "intermediate_size": 8192,
                "max_position_embeddings": 131072, "num_attention_heads": 32, "num_hidden_layers": 32,
                "num_key_value_heads": 32, "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-05,
                "rope_scaling": {"long_factor": ones(), "short_factor": ones(), "type": "longrope"},
                "rope_theta": 10000.0, "sliding_window": 262144, "tie_word_embeddings": false, "vocab_size": 32064}),
        ),
        (
            "Phi-4-mini",
            3_836_021_760,
            json!({"model_type": "phi3", "full_attn_mod": 1, "hidden_act": "silu", "hidden_size": 3072,
                "intermediate_size": 8192, "interpolate_factor": 1, "lm_head_bias": false,
                "max_position_embeddings": 131072, "mlp_bias": false, "num_attention_heads": 24,
                "num_hidden_layers": 32, "num_key_value_heads": 8, "original_max_position_embeddings": 4096,
                "partial_rotary_factor": 0.75, "rms_norm_eps": 1e-05, "rope_scaling": {"long_factor": ones(),
                "short_factor": ones(), "type": "longrope"}, "rope_theta": 10000.0, "sliding_window": 262144,
                "tie_word_embeddings": true, "vocab_size": 200064}),
        ),
        (
            "gpt2",
            124_439_808,
            json!({"model_type": "gpt2", "activation_function": "gelu_new", "n_ctx": 1024, "n_embd": 768,
                "n_head": 12, "n_layer": 12, "n_positions": 1024, "layer_norm_epsilon": 1e-05, "vocab_size": 50257}),
        ),
        ("pythia-70m", 70_426_624, pythia(512, 6, 8, 50304)),
        ("pythia-160m", 162_322_944, pythia(768, 12, 12, 50304)),
        ("pythia-410m", 405_334_016, pythia(1024, 24, 16, 50304)),
        ("pythia-1b", 1_011_781_632, pythia(2048, 16, 8, 50304)),
        ("pythia-1.4b", 1_414_647_808, pythia(2048, 24, 16, 50304)),
        ("pythia-2.8b", 2_775_208_960, pythia(2560, 32, 32, 50304)),
        ("pythia-6.9b", 6_857_302_016, pythia(4096, 32, 32, 50432)),
        ("pythia-12b", 11_846_072_320, pythia(5120, 36, 40, 50688)),
        (
            "Mixtral-8x7B",
            46_702_792_704,
            json!({"model_type": "mixtral", "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
                "max_position_embeddings": 32768, "num_attention_heads": 32, "num_experts_per_tok": 2,
                "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8,
                "output_router_logits": false, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0,
                "router_aux_loss_coef": 0.02, "sliding_window": null, "tie_word_embeddings": false,
                "vocab_size": 32000}),
        ),
        (
            "Qwen3-30B-A3B",
            30_532_122_624,
            json!({"model_type": "qwen3_moe", "attention_bias": false, "decoder_sparse_step": 1, "head_dim": 128,
                "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 6144,
                "max_position_embeddings": 40960, "max_window_layers": 48, "mlp_only_layers": [],
                "moe_intermediate_size": 768, "norm_topk_prob": true, "num_attention_heads": 32, "num_experts": 128,
                "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4, "rms_norm_eps": 1e-06,
                "rope_scaling": null, "rope_theta": 1000000.0, "sliding_window": null, "tie_word_embeddings": false,
                "use_sliding_window": false, "vocab_size": 151936}),
        ),
    ]
}

#[test]
fn published_models_have_their_number_of_parameters() {
    for (name, expected, config) in published() {
        let config = DecoderConfig::from_json(&config.to_string());
        let config = config.unwrap_or_else(|error| panic!("{name}: {error}"));
        let keys = Decoder::keys(&config, &Device::flex());
        let count: usize = keys
            .iter()
            .map(|key| key.shape.iter().product::<usize>())
            .sum();
        assert_eq!(count, expected, "{name}");
        // What is written for them is read again.
        let again = DecoderConfig::from_json(&config.to_json());
        let again = again.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(again.to_json(), config.to_json(), "{name}");
    }
}
