//! Tests of whole models: tiny ones with random weights.

mod bottlenecks;
mod classification;
mod damage;
mod decoding;
mod difference;
mod encoder_configs;
mod encoder_families;
mod encoder_heads;
mod encoders;
mod folders;
mod generation;
mod hostile;
mod loading;
#[cfg(target_os = "linux")]
mod memory;
mod noise;
mod parts;
mod paths;
mod published;
mod published_encoders;
mod recompute;
mod rows;
mod rows_of_parts;
mod t5;
mod t5_generation;
mod virtual_tokens;

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::Map;

use crate::{
    Decoder, DecoderConfig, Gemma2Config, Gemma3TextConfig, Gpt2Config, GptNeoxConfig, LlamaConfig,
    MistralConfig, MixtralConfig, Phi3Config, Qwen2Config, Qwen3Config, Qwen3MoeConfig,
};

/// Large fresh weights, so that different inputs give clearly different outputs.
const STD: f64 = 0.3;

fn llama() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 31,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 6,
        max_position_embeddings: 32,
        initializer_range: STD,
        ..LlamaConfig::default()
    }
}

fn gpt2() -> Gpt2Config {
    Gpt2Config {
        vocab_size: 31,
        n_positions: 32,
        n_embd: 16,
        n_layer: 2,
        n_head: 4,
        n_inner: 24,
        initializer_range: STD,
        extra: Map::new(),
        ..Gpt2Config::default()
    }
}

/// A configuration with the sizes of [`llama`].
macro_rules! as_llama {
    ($config:ident { $($field:ident: $value:expr),* $(,)? }) => {
        $config {
            $($field: $value,)*
            vocab_size: 31,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 6,
            max_position_embeddings: 32,
            initializer_range: STD,
            ..$config::default()
        }
        .into()
    };
}

/// One configuration for each way in which decoders differ.
fn configs() -> Vec<(&'static str, DecoderConfig)> {
    let tied = LlamaConfig {
        tie_word_embeddings: true,
        ..llama()
    };
    let untied = Gpt2Config {
        tie_word_embeddings: false,
        ..gpt2()
    };
    let neox = GptNeoxConfig {
        vocab_size: 31,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        max_position_embeddings: 32,
        initializer_range: STD,
        ..GptNeoxConfig::default()
    };
    let sequential = GptNeoxConfig {
        use_parallel_residual: false,
        attention_bias: false,
        ..neox.clone()
    };
    vec![
        ("llama", llama().into()),
        ("llama_tied", tied.into()),
        (
            "mistral",
            as_llama!(MistralConfig {
                sliding_window: Some(3)
            }),
        ),
        (
            "qwen2",
            as_llama!(Qwen2Config {
                use_sliding_window: true,
                sliding_window: Some(2),
                max_window_layers: Some(1),
            }),
        ),
        ("qwen3", as_llama!(Qwen3Config {})),
        (
            "gemma2",
            as_llama!(Gemma2Config {
                sliding_window: Some(3)
            }),
        ),
        (
            "gemma3",
            as_llama!(Gemma3TextConfig {
                sliding_window: Some(3),
                sliding_window_pattern: 2,
            }),
        ),
        (
            "phi3",
            as_llama!(Phi3Config {
                partial_rotary_factor: 0.7,
                sliding_window: Some(3),
            }),
        ),
        ("gpt2", gpt2().into()),
        ("gpt2_untied", untied.into()),
        ("gpt_neox", neox.into()),
        ("gpt_neox_sequential", sequential.into()),
        (
            "mixtral",
            as_llama!(MixtralConfig {
                num_local_experts: 4
            }),
        ),
        (
            "qwen3_moe",
            as_llama!(Qwen3MoeConfig {
                num_experts: 5,
                num_experts_per_tok: 3,
                moe_intermediate_size: 8,
                mlp_only_layers: vec![1],
            }),
        ),
    ]
}

fn decoders() -> Vec<(&'static str, Decoder)> {
    let build = |config| Decoder::init(config, &Device::flex(), 3).expect("a valid configuration");
    configs()
        .into_iter()
        .map(|(name, config)| (name, build(config)))
        .collect()
}

fn ids(rows: &[&[u32]]) -> Tensor<2, Int> {
    let values: Vec<i32> = rows.concat().into_iter().map(|id| id as i32).collect();
    let shape = [rows.len(), rows[0].len()];
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

#[track_caller]
fn assert_close<const D: usize>(name: &str, a: Tensor<D>, b: Tensor<D>, tolerance: f32) {
    assert_eq!(a.dims(), b.dims(), "{name}");
    let distance: f32 = (a - b).abs().max().into_scalar();
    assert!(distance <= tolerance, "{name}: {distance}");
}
