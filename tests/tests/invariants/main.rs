//! What must hold of adapters on any module: decoders, an encoder, T5 (all call `project`) and users' modules of plain layers.
//!
//! The project's invariants; a test's name starts with the number of the one it belongs to. `methods` and `learning` go through the
//! table of methods, and `parts` through that of parts beside the weights, over f32 and, where a device has it, bf16; the other files
//! tell LoRA's own. `on_gpus` is the part for devices on
//! which a kernel takes long to compile.
//!
//! | | what | where |
//! |---|---|---|
//! | 1, 12 | fresh is the identity, disabled is the base | `methods`, `identity`, `switching`, `parts` |
//! | 2 | how factors start | `factors` |
//! | 3, 18 | what trains, each of its parameters | `methods`, `training`, `parts`; of two kinds at once `combined` |
//! | 4 | counts | `methods`, `training`, `lifecycle` (GPT-3) |
//! | 5, 6, 7 | merging, refusals, what is left | `methods`, `merging` |
//! | 8 | f16 and bf16 | `methods`, `learning`, `low_precision` |
//! | 9, 10 | folders and their faults | `methods`, `files`, `parts` |
//! | 11 | targets | `targets`, `properties` |
//! | 13 | several adapters | `methods`, `parts` |
//! | 14 | rows with adapters of their own | `methods`, `parts`; generation in `lifecycle` and `crates/transformer/src/tests` |
//! | 15, 16 | combinations, patterns, scales | `weighing`; PEFT's numbers in `crates/adapter/tests/factors.rs` |
//! | 17 | PiSSA and OLoRA | `crates/adapter/tests/initial.rs` |
//! | 19 | modules saved as a whole | `saved_modules` |
//! | 20 | recomputation, accumulation, packing | `learning`; the recipe's own in `crates/train/src/tests.rs` |
//! | 21 | hot swap | `methods`, `lifecycle` |
//! | 22 | tied weights | `lifecycle` |
//! | 23, 24 | resumed runs, nothing to learn | `learning` |
//! | 25 | the cache | `learning`; T5 in `crates/transformer/src/tests` |
#![allow(clippy::unwrap_used)]

mod changes;
mod combined;
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
mod parts;
mod properties;
mod saved_config;
mod saved_modules;
mod switching;
mod targets;
mod training;
mod weighing;
