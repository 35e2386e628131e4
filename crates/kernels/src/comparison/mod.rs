//! Every hand-written form against the portable one and against difference quotients.
//!
//! Sizes are odd, so that no loop comes out even; padding, grouped heads, views and half precision have cases of their own.
//! On which devices, `BURN_LORA_TEST_DEVICES` says (`flex,ndarray,cuda,vulkan,wgpu,gl`): on the CPU backends without it.
//! On a GPU most of the time is compilation, one kernel after the other in a process: `BURN_LORA_TEST_SHARD=2/8` runs every
//! eighth case of the tests that have many, so that eight processes share them.

mod activations;
mod attention;
mod case;
mod devices;
mod loss;
mod nan;
mod norms;
#[cfg(all(feature = "cube", feature = "flex"))]
mod optimizer;
mod projection;
mod rotation;
mod rows;

#[cfg(all(feature = "cube", feature = "flex"))]
pub(crate) use case::{has, near};
#[cfg(all(feature = "vulkan", feature = "flex"))]
pub(crate) use devices::Shard;
#[cfg(feature = "cube")]
pub(crate) use devices::gpus;
