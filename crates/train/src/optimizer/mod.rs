//! How gradients become steps.

mod adamw;
mod build;
mod choice;

pub use build::optimizer;
pub use choice::{
    AdafactorOptions, AdamWOptions, LionOptions, MuonOptions, OptimizerChoice, SgdOptions,
};
