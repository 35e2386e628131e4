//! The commands, one module for each: its options, and `run`.

pub mod completions;
pub mod inspect;
pub mod recipes;
pub mod score;
pub mod train;
