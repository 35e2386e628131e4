//! Adapters for any Burn module.
//!
//! [`attach`] freezes a module and puts an adapter on every weight that an [`AdapterConfig`] targets, from outside: the
//! module's type stays as it is. It is [`Lora`] unless a word changes the method ([`METHODS`]). Burn's own layers then compute with the composed weight; layers that call [`project`]
//! take the activation path, which builds neither a dense delta nor a weight-shaped gradient.
//!
//! | call | what it does |
//! |---|---|
//! | [`attach`] | freezes the base, adds a named adapter to each target |
//! | [`project`] | `x W + b + s (dropout(x) A) B` through a `burn::nn::Linear` |
//! | [`project_together`] | several such layers of one input by one product, where a GPU has them side by side |
//! | [`embed`] | the rows of a `burn::nn::Embedding` with its adapters |
//! | [`adapters`], [`activate`], [`rename`], [`delete`] | several adapters on one base |
//! | [`with_rows`] | one adapter for each row of a batch |
//! | [`set_enabled`] | turns the adapters off (the base, exactly) and on again |
//! | [`merge`], [`unmerge`] | folds the adapters into one dense weight each, and restores the base bit for bit |
//! | [`merge_and_unload`] | leaves plain weights and no adapter |
//! | [`outline`] | what a configuration would put onto a module, counted before a number exists |
//! | [`changes`] | how much an adapter changes each weight |
//! | [`summary`] | the table of trainable and total parameters |
//! | [`AdapterOnly`] | the module as optimizers and records should see it: adapter parameters only, and modules saved with them |
//! | [`attach_initialized`] | attaches with factors from the weights, activations or gradients: PiSSA, OLoRA, LoftQ, EVA, CorDA, LoRA-GA |
//! | [`FactorSet`] | an adapter as numbers: [`combine`], [`extract`], [`to_plain`], portable export |
//! | [`foreign`] | reads the adapters of mlx-lm and of the original loralib |
//! | [`peft`] | reads and writes the adapter folders of Hugging Face PEFT |

mod adapter_only;
mod attach;
mod beside;
mod blueprint;
pub mod budget;
mod change;
mod config;
mod error;
mod factors;
pub mod foreign;
mod init;
mod initial;
mod lifecycle;
mod lora;
mod merge;
mod method;
mod outline;
pub mod peft;
mod plan;
mod project;
mod reach;
mod rows;
mod saved;
mod sites;
mod specs;
mod stack;
mod summary;
mod switch;
mod targets;
mod unmatched;
mod view;

pub use adapter_only::AdapterOnly;
pub use attach::{DEFAULT_NAME, attach, freeze};
pub use beside::TrainedBiases;
pub use change::{LayerChange, changes};
pub use config::{AdapterConfig, LoraConfig};
pub use error::{AdapterError, TensorFault};
pub use factors::{
    Combination, CombinationMethod, ExtractRank, Extracted, FactorSet, Factors, MajoritySign,
    NamedPair, combine, extract, extract_layer, to_plain,
};
pub use init::LoraInit;
pub use initial::{
    CordaMethod, Direction, Eva, Evidence, GradientScale, INITIALIZATIONS, Initialization,
    InitializationInfo, Initialized, LoftQ, LoraGa, Needs, Observer, Quantizer, attach_initialized,
    weight_gradients,
};
pub use lifecycle::{AdapterInfo, activate, adapters, delete, rename, up_projections};
pub use lora::Lora;
pub use merge::{MergeOptions, merge, merge_and_unload, merge_and_unload_with, unmerge};
pub use method::{
    AdaLora, AdaLoraConfig, Columns, Dense, Dora, Ia3, Ia3Config, LoHa, LoHaConfig, LoKr,
    LoKrConfig, METHODS, Method, MethodConfig, MethodInfo, Parts, TiedBias, Tokens, Vera,
    VeraConfig, trainable_count,
};
pub use outline::{BaseParameter, Outline, OutlineLayer, base_parameters, outline};
pub use project::{embed, per_row, project, project_together, shared_table};
pub use reach::{AdaptedWeight, adapted_weights, drops_inputs};
pub use rows::{rows_of, with_rows};
pub use saved::{PEFT_HEADS, is_saved};
pub use stack::{AdapterStack, NamedAdapter};
pub use summary::{AdapterRow, ParameterSummary, summary};
pub use switch::set_enabled;
pub use targets::Targets;
