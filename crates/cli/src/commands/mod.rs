//! The commands, one module for each: its options, and `run`.

pub mod score;
