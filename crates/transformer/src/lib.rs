//! Transformers read from Hugging Face folders: decoders (see [`DecoderConfig`] for the families) with generation, and
//! BERT with a head that classifies sequences.
//!
//! ```no_run
//! use burn::tensor::{DType, Device};
//! use burn_lora_transformer::{Decoder, GenerateOptions, LoadOptions, generate};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = LoadOptions::new(DType::F32, Device::default());
//! let decoder = Decoder::load("path/to/model".as_ref(), &options)?;
//! let prompts = [vec![1, 2, 3], vec![4]];
//! let tokens = generate(&decoder, &prompts, &GenerateOptions::default())?;
//! # Ok(())
//! # }
//! ```
//!
//! ```no_run
//! use burn::tensor::{Device, Int, Tensor};
//! use burn_lora_transformer::BertClassifier;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::default();
//! let classifier = BertClassifier::load("path/to/encoder".as_ref(), &device)?;
//! let ids = Tensor::<2, Int>::from_data([[101, 7592, 102], [101, 102, 0]], &device);
//! let logits = classifier.forward(ids, &[3, 2]); // [batch, num_labels]
//! # Ok(())
//! # }
//! ```
//!
//! The path of every parameter is its name in the checkpoint (`model.layers.0.self_attn.q_proj.weight`), and every
//! linear layer is a plain [`burn::nn::Linear`] of shape `[d_in, d_out]`, so that adapters find both. Parameters are
//! created frozen; [`burn::module::Module::set_require_grad`] opens them for full training.

mod activation;
mod bert;
mod bert_module;
mod cache;
mod checkpoint;
mod classifier;
mod config;
mod convert;
mod decoder;
mod error;
mod generate;
mod nearest;
mod norm;
mod positions;
mod recompute;
mod sampling;
mod save;
mod verify;
mod weights;

pub use activation::Activation;
pub use bert::Bert;
pub use cache::KvCache;
pub use classifier::{BertClassifier, ClassifierOptions};
pub use config::{
    BertConfig, DecoderConfig, Gemma2Config, Gemma3TextConfig, Gpt2Config, GptNeoxConfig,
    LayerType, LlamaConfig, MistralConfig, MixtralConfig, Phi3Config, Qwen2Config, Qwen3Config,
    Qwen3MoeConfig,
};
pub use decoder::{Decoder, DecoderClassifier, LoadOptions};
pub use error::{
    ConfigError, GenerateError, LoadError, MisShaped, Mismatch, Missing, SaveError, TooLong,
};
pub use generate::{GenerateOptions, generate};
pub use norm::{LayerNorm, RmsNorm};
pub use positions::Padding;
pub use sampling::Sampling;

#[cfg(test)]
mod tests;
