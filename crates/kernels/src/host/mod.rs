//! Operations written by hand for tensors in host memory, with their own backward.
//!
//! An operation says what it computes from plain slices ([`Operation`]); [`apply`] takes it to whichever CPU backend holds
//! the operands, and into the autodiff graph when one of them is tracked. All computation is in `f32`: operands of
//! another float dtype are converted on the way in, results on the way out.

#![allow(
    deprecated,
    reason = "so Burn 0.22 calls its ndarray backend, and still has it"
)]

mod adamw;
mod apply;
mod attention;
mod backend;
mod cross_entropy;
mod gelu;
mod layer_norm;
mod math;
mod pool;
mod product;
mod projection;
mod rms_norm;
mod rope;
mod rows;
mod silu;
mod tensor;

pub(crate) use crate::operation::Operation;
pub(crate) use adamw::adamw;
pub(crate) use apply::{InMemory, Output, Saved, apply};
pub(crate) use attention::attention;
pub(crate) use backend::takes;
pub(crate) use cross_entropy::cross_entropy;
pub(crate) use gelu::{Gelu, gelu};
pub(crate) use layer_norm::layer_norm;
pub(crate) use pool::release;
pub(crate) use projection::projection;
pub(crate) use rms_norm::rms_norm;
pub(crate) use rope::rotate;
pub(crate) use silu::silu_mul;
pub(crate) use tensor::HostTensor;
