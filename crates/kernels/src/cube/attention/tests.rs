//! On a machine with an NVIDIA GPU: `cargo test --features cuda -- --ignored`.

use burn::tensor::{DType, Device};

use super::LAUNCHED;
use crate::cube::attention_cases::{cases, gradients_are_the_same, nothing_seen_has_no_value};

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn attention_equals_the_portable_form() {
    let gpu = Device::cuda(0).autodiff();
    for case in cases() {
        for dtype in [DType::BF16, DType::F16] {
            case.check(&gpu, dtype, &|| LAUNCHED.get());
        }
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn a_query_that_sees_nothing_has_no_value() {
    nothing_seen_has_no_value(&Device::cuda(0), DType::BF16);
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn gradients_are_the_same_each_time() {
    gradients_are_the_same(&Device::cuda(0).autodiff(), DType::BF16);
}
