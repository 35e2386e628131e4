//! Transformers read from Hugging Face folders: decoders (the Llama family and GPT-2) with generation, and BERT with a
//! head that classifies sequences.
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

mod bert;
mod bert_module;
mod cache;
mod checkpoint;
mod classifier;
mod config;
mod convert;
mod decoder;
mod decoder_module;
mod error;
mod fault;
mod finite;
mod generate;
mod gpt2;
mod header;
mod llama;
mod load;
mod nearest;
mod norm;
mod pickle;
mod positions;
mod reader;
mod resize;
mod sampling;
mod save;
mod verify;
mod weights;

pub use bert::Bert;
pub use cache::KvCache;
pub use classifier::{BertClassifier, ClassifierOptions};
pub use config::{
    BertConfig, DecoderConfig, Gpt2Config, Gpt3Shape, LlamaConfig, LlamaVariant, Projection,
};
pub use decoder::Decoder;
pub use error::{
    ConfigError, GenerateError, LoadError, MisShaped, Mismatch, Missing, SaveError, TooLong,
};
pub use fault::{FileFault, NotFinite};
pub use generate::{GenerateOptions, generate};
pub use gpt2::Gpt2;
pub use llama::Llama;
pub use load::{LoadOptions, LoadProgress, LoadReport, ProgressCallback};
pub use norm::{LayerNorm, RmsNorm};
pub use positions::Padding;
pub use resize::NewRows;
pub use sampling::Sampling;

#[cfg(test)]
mod tests;
