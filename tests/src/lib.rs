//! Helpers shared by the tests: devices, golden values, tiny models, comparisons.
//!
//! Every test runs on each device that the variable `BURN_LORA_TEST_DEVICES` names, separated by commas: `flex` and
//! `ndarray` are always built, `wgpu` with `--features burn-lora/wgpu`. Without the variable, on `flex`.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)] // a helper that fails fails the test

mod compare;
mod devices;
mod golden;
mod methods;
mod parameters;
mod subject;

pub use compare::{assert_close, assert_same, floats, largest_difference};
pub use devices::{devices, on_each_device};
pub use golden::{CASES, Golden};
pub use methods::{
    Grouped, METHOD_CASES, MethodCase, Vision, methods_for, methods_for_kernels, random,
};
pub use parameters::{Parameters, gradients, parameters};
pub use subject::{DECODER_ROUNDINGS, Mlp, Subject, bert, gpt2, llama, mlp, t5, vision};
