//! Transformers read from Hugging Face folders: decoders (the Llama family and GPT-2) with generation, and encoders (BERT,
//! RoBERTa, DistilBERT, ModernBERT, DeBERTa) with heads for sequences, tokens, choices, masked words and embeddings.
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
//! use burn::tensor::Device;
//! use burn_lora_transformer::SequenceClassifier;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let classifier = SequenceClassifier::load("path/to/encoder".as_ref(), &Device::default())?;
//! let rows = [vec![101, 7592, 102], vec![101, 102]];
//! let batch = classifier.encoder.batch(&rows, None)?;
//! let logits = classifier.forward(&batch); // [batch, num_labels]
//! # Ok(())
//! # }
//! ```
//!
//! The path of every parameter is its name in the checkpoint (`model.layers.0.self_attn.q_proj.weight`), and every
//! linear layer is a plain [`burn::nn::Linear`] of shape `[d_in, d_out]`, so that adapters find both. Parameters are
//! created frozen; [`burn::module::Module::set_require_grad`] opens them for full training.

mod activation;
mod cache;
mod checkpoint;
mod config;
mod convert;
mod decoder;
mod decoder_module;
mod encoder;
mod error;
mod generate;
mod gpt2;
mod llama;
mod nearest;
mod norm;
mod positions;
mod sampling;
mod save;
mod t5;
mod verify;
mod weigh;
mod weights;

pub use cache::KvCache;
pub use config::{DecoderConfig, Gpt2Config, LlamaConfig, LlamaVariant};
pub use decoder::{Decoder, LoadOptions};
pub use encoder::families::{
    BertConfig, BertVariant, DebertaConfig, DebertaVersion, DistilBertConfig, ModernBertConfig,
};
pub use encoder::{
    BatchError, Bias, Choices, ClassLabels, ConvLayer, Embeddings, Encoder, EncoderBatch,
    EncoderConfig, EncoderLayer, EncoderOptions, EncoderWithHead, Head, HeadTask, Kernel, Kind,
    LabelError, Labels, MaskedLm, MaskedTokens, MultipleChoice, Named, Pooling, PositionLinears,
    Qkv, RelativeEmbeddings, SentenceEncoder, SentenceError, SentencePooling, SequenceClassifier,
    SequenceLabels, Siblings, Task, TokenClassifier, TokenLabels, Transform,
};
pub use error::{
    ConfigError, GenerateError, LoadError, MisShaped, Mismatch, Missing, SaveError, TooLong,
};
pub use generate::{GenerateOptions, generate};
pub use gpt2::Gpt2;
pub use llama::Llama;
pub use norm::{LayerNorm, RmsNorm};
pub use positions::Padding;
pub use sampling::Sampling;
pub use t5::{Encoded, T5, T5Attention, T5Block, T5Cache, T5Config, T5Stack};

#[cfg(test)]
mod tests;
