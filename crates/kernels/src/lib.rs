//! Operations that fine-tuning spends its time in, each with a portable form for every Burn backend.
//!
//! A function here is the seam between a model and the way an operation is computed: its forward and backward may be
//! replaced by a fused form without a change to any model. Every function
//! - takes and returns tensors of the model's dtype,
//! - computes statistics (means, maxima, sums of exponentials) in `f32` when that dtype is `f16` or `bf16`,
//! - lets gradients through to every float operand, and keeps nothing for an operand that is not tracked.

mod attention;
mod cross_entropy;
mod gelu;
mod layer_norm;
mod precision;
mod rms_norm;
mod rope;
mod silu;

pub use attention::{AttentionMask, attention};
pub use cross_entropy::cross_entropy;
pub use gelu::gelu_tanh;
pub use layer_norm::layer_norm;
pub use rms_norm::rms_norm;
pub use rope::{Rope, RopeScaling, RopeTables};
pub use silu::silu_mul;

#[cfg(test)]
mod testing;
