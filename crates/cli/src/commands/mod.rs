//! The commands, one module for each: its options, and `run`.

pub mod combine;
pub mod completions;
pub mod convert;
pub mod doctor;
pub mod evaluate;
pub mod extract;
pub mod generate;
pub mod inspect;
pub mod merge;
pub mod plan;
pub mod recipes;
pub mod score;
pub mod train;
