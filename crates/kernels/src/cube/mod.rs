//! Operations written by hand for GPUs, with their own backward, in CubeCL: one source for every runtime of it.
//!
//! An [`Operation`] of the form [`OnDevice`] launches kernels on the memory of Burn's own tensors, in the order of their
//! stream; [`apply`] takes it into the autodiff graph. Numbers are read in the dtype of the tensor and computed in `f32`.

mod apply;
mod memory;
pub(crate) mod product;

pub(crate) use crate::operation::Operation;
pub(crate) use apply::{OnDevice, Saved, apply, takes};
