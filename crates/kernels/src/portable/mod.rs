//! The same operations composed from Burn's tensor operations, for every backend.
//!
//! A function of the crate takes this form where no hand-written one fits its operands. Here it can be asked for by name,
//! to compare the two.

mod adamw;
mod attention;
mod clip;
mod cross_entropy;
mod gelu;
mod layer_norm;
mod projection;
mod rms_norm;
mod rope;
mod silu;

pub use adamw::adamw;
pub use attention::{attention, attention_with};
pub use clip::clip_norm;
pub use cross_entropy::{linear_cross_entropy, linear_cross_entropy_with};
pub use gelu::{gelu, gelu_tanh};
pub use layer_norm::layer_norm;
pub use projection::{add_low_rank, projection};
pub use rms_norm::rms_norm;
pub(crate) use rope::RotationTensors;
pub use silu::silu_mul;
