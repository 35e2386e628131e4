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
//! - [`attach_adapter`]: an adapter whose factors may start from the data that it will be trained on;
//! - [`finetune`] trains adapters, [`train`] whatever a model shows, by one loop;
//! - [`Task`] says what is learned: [`finetune_task`], [`train_task`] and [`evaluate_task`] do it for any;
//! - [`gradients`] and [`optimizer()`]: one step of that loop, for a loop of the caller's own; [`LossScale`] for one in f16,
//!   [`Pages`] for one on a GPU;
//! - [`Observer`]: the dashboard, or plain lines to a sink of the caller's;
//! - [`Stop`]: ends a run after the step that it is at, with a checkpoint;
//! - [`RunConfig`] and [`run()`]: a whole run as data, as a configuration file has it;
//! - [`read_facts`], [`Report`]: what was known of every step, and the page that a run ends with;
//! - [`Planner`]: what a run will take, before anything is loaded;
//! - [`evaluate`]: loss, perplexity and the share of prompts that are completed exactly.
//!
//! The library prints nothing by itself.

mod checkpoint;
mod clip;
mod config;
mod data;
mod device;
mod error;
mod evaluate;
mod exact;
mod facts;
mod fit;
mod initialize;
mod lines;
mod loader;
mod loss_scale;
pub mod measures;
mod metrics;
mod model;
mod observer;
mod optimizer;
mod output;
mod pages;
mod plan;
mod recipe;
mod report;
mod run;
mod samples;
mod schedule;
mod source;
mod standing;
mod step;
mod stop;
mod task;
mod terminal;
mod warmup;
mod watch;

pub use burn_lora_kernels::LossTerms;
pub use config::TrainConfig;
pub use data::{TaskData, TrainData};
pub use device::{Backend, DeviceChoice, DeviceError, require_dtype};
pub use error::TrainError;
pub use evaluate::{
    Completion, EvaluateOptions, Evaluation, TaskEvaluation, evaluate, evaluate_task,
};
pub use facts::{EVENTS_FOLDER, FACTS_FILE, Fact, FactKind, read_facts};
pub use initialize::{attach_adapter, attach_task_adapter};
pub use lines::LineRenderer;
pub use loss_scale::LossScale;
pub use model::CausalLm;
pub use observer::Observer;
pub use optimizer::{
    AdafactorOptions, AdamWOptions, LionOptions, MuonOptions, OptimizerChoice, SgdOptions,
    optimizer,
};
pub use pages::Pages;
pub use plan::{
    Fit, FitAtLength, MeasuredRate, MemoryParts, Plan, PlanError, PlanOptions, PlanParameters,
    Planner, StepFlops, measure_rate,
};
pub use recipe::{
    Outcome, finetune, finetune_stream, finetune_task, learning_rates, resume_facts, train,
    train_task,
};
pub use report::{REPORT_FILE, Report};
pub use run::{
    AdapterSettings, BottleneckSettings, DataSettings, EncoderType, EvaluationSettings, ModelDtype,
    PTuningSettings, PartSettings, Placement, PreferenceSettings, PrefixSettings, PromptSettings,
    PromptStart, RunConfig, RunData, RunError, RunEvaluation, RunPart, RunPreview, RunResult,
    RunWatcher, TaskKind, evaluate_run, preview, read_data, read_tokenizer, run,
};
pub use samples::{SAMPLES_FILE, Sample, read_samples};
pub use schedule::{Decay, Schedule};
pub use source::ExampleSource;
pub use step::{gradients, scaled_gradients, task_gradients};
pub use stop::{Stop, Stopped};
pub use task::{
    Causal, Classification, Counts, Masked, MaskedBatch, ModelLimits, Notes, Preference,
    PreferenceBatch, PreferenceLoss, Regression, Seq2Seq, Seq2SeqBatch, SequenceBatch,
    SequenceModel, Tagging, TaggingBatch, Task, Told,
};
pub use warmup::Warmup;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
