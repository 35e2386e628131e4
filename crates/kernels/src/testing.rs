//! What the unit tests of this crate share.

use burn::tensor::{Device, Tensor, Tolerance};

/// The CPU device, with gradients.
pub(crate) fn device() -> Device {
    Device::flex().autodiff()
}

/// Asserts that a tensor holds these values, row by row, within `1e-5`.
#[track_caller]
pub(crate) fn assert_values<const D: usize>(tensor: Tensor<D>, expected: &[f32]) {
    let shape = tensor.shape();
    let expected = burn::tensor::TensorData::new(expected.to_vec(), shape);
    tensor
        .into_data()
        .assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
}
