//! The training recipe: a frozen decoder, an adapter on it, and burn-train's learner and dashboard around the loop.
//!
//! ```no_run
//! use burn::tensor::DType;
//! use burn_lora_adapter::{LoraConfig, attach};
//! use burn_lora_data::{EncodeOptions, Tokenizer, encode, read_rows, split};
//! use burn_lora_train::{DeviceChoice, Observer, TrainConfig, TrainData, finetune};
//! use burn_lora_transformer::{Decoder, LoadOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = DeviceChoice::resolve(None)?.open()?;
//! let config = TrainConfig { steps: 300, eval_every: Some(50), ..TrainConfig::default() };
//! let tokenizer = Tokenizer::from_folder("model")?;
//! let encoded = encode(&read_rows("rows.jsonl")?, &tokenizer, &EncodeOptions::new(config.max_seq_len))?;
//! let (train, valid) = split(encoded.examples, 0.1, config.seed)?;
//! let base = Decoder::load("model".as_ref(), &LoadOptions::new(DType::F32, device))?;
//! let model = attach(base, "default", &LoraConfig::new(8, 16.0))?;
//! let data = TrainData { train, valid, pad: tokenizer.pad() };
//! let outcome = finetune(model, &config, data, Observer::auto(std::io::stderr()))?;
//! # let _ = outcome;
//! # Ok(())
//! # }
//! ```
//!
//! - [`DeviceChoice`]: the device, from an option, from `BURN_DEVICE`, or the fastest backend of the build;
//! - [`TrainConfig`]: every setting, checked as a whole before anything runs;
//! - [`finetune`] trains adapters, [`train`] whatever a model shows, by one loop;
//! - [`gradients`] and [`adamw`]: one step of that loop, for a loop of the caller's own; [`LossScale`] for one in f16, [`Pages`] for one on a GPU;
//! - [`Observer`]: the dashboard, or plain lines to a sink of the caller's;
//! - [`RunConfig`] and [`run()`]: a whole run as data, as a configuration file has it;
//! - [`evaluate`]: loss, perplexity and the share of prompts that are completed exactly.
//!
//! The library prints nothing by itself.

mod adamw;
mod checkpoint;
mod clip;
mod config;
mod data;
mod device;
mod error;
mod evaluate;
mod lines;
mod loader;
mod loss_scale;
mod metrics;
mod model;
mod observer;
mod output;
mod pages;
mod recipe;
mod run;
mod schedule;
mod step;
mod warmup;
mod watch;

pub use config::TrainConfig;
pub use data::TrainData;
pub use device::{Backend, DeviceChoice, DeviceError, require_dtype};
pub use error::TrainError;
pub use evaluate::{Completion, EvaluateOptions, Evaluation, evaluate};
pub use lines::LineRenderer;
pub use loss_scale::LossScale;
pub use model::CausalLm;
pub use observer::Observer;
pub use pages::Pages;
pub use recipe::{Outcome, adamw, finetune, learning_rates, train};
pub use run::{
    AdapterSettings, DataSettings, EvaluationSettings, ModelDtype, RunConfig, RunData, RunError,
    RunPart, RunResult, RunWatcher, read_data, read_tokenizer, run,
};
pub use schedule::{Decay, Schedule};
pub use step::{gradients, scaled_gradients};
pub use warmup::Warmup;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
