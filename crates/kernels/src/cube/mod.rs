//! Operations written by hand for GPUs, with their own backward, in CubeCL: one source for every runtime of it.
//!
//! An [`Operation`] of the form [`OnDevice`] launches kernels on the memory of Burn's own tensors, in the order of their
//! stream; [`apply`] takes it into the autodiff graph. Numbers are read in the dtype of the tensor and computed in `f32`.

#![allow(
    clippy::collapsible_if,
    clippy::if_same_then_else,
    clippy::manual_is_multiple_of,
    reason = "in kernels, what is known when they are compiled stands apart from what is not"
)]

mod adamw;
mod apply;
#[cfg(feature = "cuda")]
pub(crate) mod attention;
#[cfg(all(test, feature = "flex", any(feature = "cuda", feature = "vulkan")))]
mod attention_cases;
mod batched_attention;
mod bounds;
mod clip;
mod columns;
#[cfg(feature = "vulkan")]
mod cooperative;
mod cross_entropy;
#[cfg(feature = "cuda")]
pub(crate) mod cuda_source;
mod elementwise;
mod gelu;
mod heads;
#[cfg(feature = "cuda")]
mod hopper;
mod low_rank;
mod many;
#[cfg(feature = "vulkan")]
mod matrices;
mod memory;
mod norm;
mod place;
#[cfg(feature = "vulkan")]
mod plane_product;
#[cfg(feature = "vulkan")]
mod planes;
mod product;
mod projection;
mod reduce;
mod rope;
mod select_rows;
pub(crate) mod side_by_side;
mod silu;
mod softcap;
#[cfg(feature = "vulkan")]
mod thin_product;
#[cfg(feature = "vulkan")]
pub(crate) mod tiled_attention;
mod tuned;
mod unit_product;

pub(crate) use crate::operation::Operation;
pub(crate) use adamw::{adamw, together};
pub(crate) use apply::{OnDevice, Saved, apply, takes};
pub(crate) use batched_attention::attention as batched_attention;
pub(crate) use bounds::Bounds;
pub(crate) use clip::clip;
pub(crate) use cross_entropy::cross_entropy;
pub(crate) use gelu::{Gelu, gelu};
pub(crate) use heads::split_heads;
pub(crate) use norm::{
    layer_norm, residual_layer_norm, residual_rms_norm, rms_norm, takes_residual,
};
pub(crate) use projection::{projection, projections};
pub(crate) use rope::{DeviceAngles, rotate};
pub(crate) use select_rows::select_rows;
pub(crate) use silu::{silu_mul, silu_mul_halves};
