//! Tests of whole models: tiny ones with random weights.

mod bert;
mod damage;
mod decoding;
mod folders;
mod generation;
mod loading;
#[cfg(target_os = "linux")]
mod memory;
mod paths;

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::Map;

use crate::{Decoder, DecoderConfig, Gpt2Config, LlamaConfig, LlamaVariant};

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

/// One configuration for each way in which decoders differ.
fn configs() -> Vec<(&'static str, DecoderConfig)> {
    let tied = LlamaConfig {
        tie_word_embeddings: true,
        ..llama()
    };
    let qwen2 = LlamaConfig {
        variant: LlamaVariant::Qwen2,
        ..llama()
    };
    let untied = Gpt2Config {
        tie_word_embeddings: false,
        ..gpt2()
    };
    vec![
        ("llama", llama().into()),
        ("llama_tied", tied.into()),
        ("qwen2", qwen2.into()),
        ("gpt2", gpt2().into()),
        ("gpt2_untied", untied.into()),
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
