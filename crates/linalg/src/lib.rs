//! Decompositions of dense matrices on the host, in f64.
//!
//! Adapters are initialized, combined and extracted by decompositions of weights, which happens once and not in a training
//! step. So they run on the host for every backend, in one precision that leaves nothing to argue about, and in a crate of
//! their own: what the decompositions are compiled from is optimized once and not again with every change of the adapters.

mod error;
mod incremental;
mod matrix;
mod qr;
mod random;
mod svd;
mod symmetric;

pub use error::LinalgError;
pub use incremental::IncrementalSvd;
pub use matrix::Matrix;
pub use qr::{Qr, qr};
pub use random::Normal;
pub use svd::{Svd, randomized_svd, svd};
pub use symmetric::{Eigen, eigen, inverse};
