//! Operations that fine-tuning spends its time in.
//!
//! A function here is the seam between a model and the way an operation is computed. On Burn's CPU backends (features
//! `flex` and `ndarray`) and on GPUs (`cuda`, `wgpu`, `vulkan`, `metal`, `rocm`) it is computed by a form written by hand,
//! with its own backward; everywhere else by the [`portable`] form, composed from tensor operations. Every function
//! - takes and returns tensors of the model's dtype,
//! - computes statistics (means, maxima, sums of exponentials) in `f32` when that dtype is `f16` or `bf16`,
//! - lets gradients through to every float operand, and keeps nothing for an operand that is not tracked.

mod adamw;
mod attention;
mod attention_mask;
mod clip;
mod cross_entropy;
#[cfg(feature = "cube")]
mod cube;
mod gelu;
mod heads;
#[cfg(feature = "host")]
mod host;
mod layer_norm;
#[cfg(any(feature = "host", feature = "cube"))]
mod operation;
mod packed;
pub mod portable;
mod precision;
mod projection;
mod recompute;
mod regularized;
mod rms_norm;
mod rope;
mod rope_scaling;
mod select_rows;
mod silu;

pub use adamw::{AdamWStep, adamw, adamw_together};
pub use attention::{Scores, attention, attention_with};
pub use attention_mask::AttentionMask;
pub use clip::{Clipped, clip_norm};
pub use cross_entropy::{cross_entropy, linear_cross_entropy, linear_cross_entropy_with};
pub use gelu::{gelu, gelu_tanh};
pub use heads::split_heads;
pub use layer_norm::{layer_norm, residual_layer_norm};
pub use projection::{
    Branch, LowRank, add_low_rank, are_side_by_side, projection, projections, side_by_side,
};
pub use recompute::{can_recompute, recompute};
pub use regularized::{LossTerms, cross_entropy_regularized, linear_cross_entropy_regularized};
pub use rms_norm::{residual_rms_norm, rms_norm};
pub use rope::{Rope, RopeTables};
pub use rope_scaling::RopeScaling;
pub use select_rows::select_rows;
pub use silu::{silu_mul, silu_mul_halves};

/// Gives back to the system the memory that the CPU kernels keep for coming results.
///
/// They keep what a training step allocates and frees, so that the next step need not ask for it again: at most an eighth
/// above the most that was in use at once. To be called after training, by a program that goes on with something else.
pub fn release_memory() {
    #[cfg(feature = "host")]
    host::release();
}

#[cfg(all(test, feature = "host"))]
mod comparison;
#[cfg(test)]
mod testing;
