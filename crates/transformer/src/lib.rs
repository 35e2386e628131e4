//! Transformers read from Hugging Face folders: decoders (see [`DecoderConfig`] for the families) with generation, and
//! encoders (see [`EncoderConfig`]) with heads for sequences, tokens, choices, masked words and embeddings.
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
mod adapter_folder;
mod anatomy;
mod bottleneck;
mod cache;
mod checkpoint;
mod config;
mod convert;
mod decoder;
mod difference;
mod encoder;
mod error;
mod fault;
mod finite;
mod generation;
mod header;
mod inspect;
mod load;
mod named;
mod nearest;
mod norm;
mod parameters;
mod part_methods;
mod parts;
mod pickle;
mod positions;
mod reader;
mod recompute;
mod resize;
mod rows;
mod save;
mod slot;
mod t5;
mod task;
mod verify;
mod virtual_tokens;
mod weigh;
mod weights;

pub use activation::Activation;
pub use anatomy::{Anatomy, BlockAnatomy, Place};
pub use bottleneck::{
    Bottleneck, BottleneckConfig, BottleneckError, BottleneckPlacement, WithBottlenecks,
};
pub use cache::KvCache;
pub use config::{
    DecoderConfig, Gemma2Config, Gemma3TextConfig, Gpt2Config, Gpt3Shape, GptNeoxConfig, LayerType,
    LlamaConfig, MistralConfig, MixtralConfig, ModelConfig, Phi3Config, Projection, Qwen2Config,
    Qwen3Config, Qwen3MoeConfig,
};
pub use decoder::{Decoder, DecoderClassifier};
pub use difference::{LinearWeights, WeightPairs};
pub use encoder::families::{
    BertConfig, BertVariant, DebertaConfig, DebertaVersion, DistilBertConfig, ModernBertConfig,
};
pub use encoder::{
    BatchError, Bias, Choices, ClassLabels, ConvLayer, Embeddings, Encoder, EncoderBatch,
    EncoderConfig, EncoderLayer, EncoderWithHead, FolderOptions, Head, HeadTask, Kernel,
    LabelError, Labels, MaskedLm, MaskedTokens, MultipleChoice, Pooling, PositionLinears, Qkv,
    RelativeEmbeddings, SentenceEncoder, SentenceError, SentenceFolder, SentencePooling,
    SequenceClassifier, SequenceLabels, Task, TokenClassifier, TokenLabels, Transform,
};
pub use error::{ConfigError, LoadError, MisShaped, Mismatch, Missing, SaveError, TooLong};
pub use fault::{FileFault, NotFinite};
pub use generation::{
    BeamSearch, DecoderSession, Decoding, DecodingSession, Detokenizer, EarlyStopping,
    FinishReason, GenerateError, GenerateOptions, Generative, RequestFault, Sampling, Sequence,
    TextEvent, TextSequence, TextStream, TokenEvent, TokenStream, generate, generate_sequences,
    generate_text, next_token_probabilities, stream_text, stream_tokens,
};
pub use inspect::{FolderReport, TensorReport, inspect_folder};
pub use load::{LoadOptions, LoadProgress, LoadReport, ProgressCallback};
pub use named::{Kind, Named, Siblings};
pub use norm::{LayerNorm, RmsNorm};
pub use part_methods::{PART_METHODS, PART_MODULES};
pub use parts::{
    AdapterFolder, AdapterKind, PartConfig, PartError, PartOutline, PartReport, PartTensor,
    WithParts, adapter_folders, inspect_part,
};
pub use positions::Padding;
pub use resize::NewRows;
pub use rows::WithRows;
pub use t5::{Encoded, T5, T5Attention, T5Block, T5Cache, T5Config, T5Session, T5Stack, T5Variant};
pub use virtual_tokens::{
    PTuning, PrefixProjection, PrefixTuning, PromptEncoder, PromptEncoderKind, PromptInit,
    PromptTuning, VirtualTokens, VirtualTokensConfig, VirtualTokensError, WithVirtualTokens,
};

#[cfg(test)]
mod tests;
