//! Operations that fine-tuning spends its time in.
//!
//! A function here is the seam between a model and the way an operation is computed. On Burn's CPU backends (features
//! `flex` and `ndarray`) it is computed by a form written by hand, with its own backward; everywhere else by the
//! [`portable`] form, composed from tensor operations. Every function
//! - takes and returns tensors of the model's dtype,
//! - computes statistics (means, maxima, sums of exponentials) in `f32` when that dtype is `f16` or `bf16`,
//! - lets gradients through to every float operand, and keeps nothing for an operand that is not tracked.

mod attention;
mod cross_entropy;
mod gelu;
#[cfg(feature = "host")]
mod host;
mod layer_norm;
pub mod portable;
mod precision;
mod projection;
mod rms_norm;
mod rope;
mod silu;

pub use attention::{AttentionMask, attention};
pub use cross_entropy::{cross_entropy, linear_cross_entropy};
pub use gelu::{gelu, gelu_tanh};
pub use layer_norm::layer_norm;
pub use projection::{LowRank, add_low_rank, projection};
pub use rms_norm::rms_norm;
pub use rope::{Rope, RopeScaling, RopeTables};
pub use silu::silu_mul;

#[cfg(all(test, feature = "host"))]
mod comparison;
#[cfg(test)]
mod testing;
