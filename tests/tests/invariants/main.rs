//! What must hold of LoRA on any module: a Llama, a GPT-2 (both call `project`) and a user's module of plain layers.
//!
//! The project's invariants; a test's name starts with the number of the one it belongs to.
#![allow(clippy::unwrap_used)]

mod changes;
mod common;
mod factors;
mod files;
mod identity;
mod lifecycle;
mod low_precision;
mod merging;
mod methods;
mod properties;
mod saved_config;
mod saved_modules;
mod switching;
mod targets;
mod training;
