//! Parity with PyTorch, Transformers and PEFT: the values are in this package's `golden/`, made by the script there.
#![allow(clippy::unwrap_used)]

mod adapter;
mod common;
mod decoding;
mod encoder;
mod experts;
mod generation;
mod groups;
mod methods;
mod model;
mod peft_files;
mod plan;
mod pytorch;
mod recipe;
mod sentence;
mod sequences;
mod t5;
mod tasks;
