//! What must hold of adapters on any module: decoders, an encoder, T5 (all call `project`) and users' modules of plain layers.
//!
//! The project's invariants; a test's name starts with the number of the one it belongs to. `methods` and `learning` go through the
//! table of methods, over f32 and bf16; the other files tell LoRA's own.
#![allow(clippy::unwrap_used)]

mod common;
mod factors;
mod files;
mod identity;
mod learning;
mod lifecycle;
mod low_precision;
mod merging;
mod methods;
mod on_gpus;
mod properties;
mod saved_config;
mod saved_modules;
mod switching;
mod targets;
mod training;
mod weighing;
