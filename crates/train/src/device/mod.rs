//! Which device a run uses, chosen at run time among the backends that were built.

mod backend;
mod choice;
mod error;
mod probe;

pub use backend::Backend;
pub use choice::{DeviceChoice, require_dtype};
pub use error::DeviceError;
