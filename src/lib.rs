//! Fine-tune Transformers by LoRA, in Rust, on Burn: the base frozen, only the adapter trained, one training code on the
//! CPU, wgpu (Vulkan, Metal, DX12) and CUDA.
//!
//! ```no_run
//! use burn_lora::prelude::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = DeviceChoice::resolve(None)?.open()?;
//! let tokenizer = Tokenizer::from_folder("model")?;
//! let rows = encode(&read_rows("rows.jsonl")?, &tokenizer, &EncodeOptions::new(512))?;
//! let (train, valid) = split(rows.examples, 0.1, 42)?;
//! let base = Decoder::load("model".as_ref(), &LoadOptions::new(DType::F32, device))?;
//! let lora = LoraConfig::new(16, 32.0).with_targets(Targets::names(["q_proj", "v_proj"]));
//! let model = attach(base, DEFAULT_NAME, &lora)?;
//! let data = TrainData { train, valid, pad: tokenizer.pad() };
//! let tuned = finetune(model, &TrainConfig::default(), data, Observer::auto(std::io::stderr()))?;
//! peft::save(&tuned.model, DEFAULT_NAME, &lora, &PeftMetadata::default(), "adapter".as_ref())?;
//! let merged = merge_and_unload(tuned.model)?;
//! # let _ = merged;
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`adapter`] | LoRA on any Burn module: targets, attach, merge, PEFT folders |
//! | [`transformer`] | the Llama family and GPT-2 from Hugging Face folders, generation; encoders and T5 |
//! | [`data`] | tokenizer, chat templates, rows of files, batches |
//! | [`train`] | the recipe on burn-train: step, metrics, dashboard, checkpoints, evaluation, devices |
//! | [`kernels`] | the operations that the decoders are made of |
//!
//! # Features
//! Backends: `flex` (the default, on the CPU), `ndarray`, `wgpu`, `vulkan`, `metal`, `cuda`, `rocm`. Those that are built
//! can be chosen at run time, by [`train::DeviceChoice`]. `tui` (default) is the dashboard in a terminal.

pub use burn_lora_adapter as adapter;
pub use burn_lora_data as data;
pub use burn_lora_kernels as kernels;
pub use burn_lora_train as train;
pub use burn_lora_transformer as transformer;

/// What a fine-tuning program needs, in one `use`.
pub mod prelude {
    pub use burn::tensor::DType;

    pub use crate::adapter::peft::{self, PeftMetadata};
    pub use crate::adapter::{
        AdapterOnly, DEFAULT_NAME, LoraConfig, Targets, attach, merge, merge_and_unload, project,
        set_enabled, summary, unmerge,
    };
    pub use crate::data::{EncodeOptions, Tokenizer, encode, read_rows, split};
    pub use crate::train::{
        DeviceChoice, EvaluateOptions, Observer, TrainConfig, TrainData, evaluate, finetune,
    };
    pub use crate::transformer::{Decoder, GenerateOptions, LoadOptions, generate};
}
