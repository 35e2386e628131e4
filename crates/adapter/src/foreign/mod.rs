//! Adapters that other programs wrote, as [`FactorSet`](crate::FactorSet)s.

mod loralib;
mod mlx;

pub use loralib::{EnabledParts, LoralibOptions, read_loralib};
pub use mlx::read_mlx;
