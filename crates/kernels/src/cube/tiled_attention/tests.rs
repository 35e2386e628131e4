//! On a device with matrices of planes: `BURN_LORA_TEST_DEVICES=vulkan cargo test --release --features vulkan,flex
//! tiled_attention -- --nocapture`.

use burn::tensor::{DType, Device, Tensor};

use super::{LAUNCHED, takes};
use crate::AttentionMask;
use crate::comparison::{Shard, gpus};
use crate::cube::attention_cases::{
    Case, cases, gradients_are_the_same, nothing_seen_has_no_value,
};

/// The devices that have such matrices, and in which dtypes.
#[expect(clippy::print_stdout, reason = "a test that checks nothing says so")]
fn on_each(check: impl Fn(&Device, DType)) {
    for gpu in gpus() {
        let x = Tensor::<4>::zeros([1, 1, 1, 64], &gpu).cast(DType::F16);
        if takes([&x, &x, &x]) {
            check(&gpu, DType::F16);
        } else {
            println!("skipped: no matrices of planes on {gpu:?}");
        }
    }
}

#[test]
fn attention_equals_the_portable_form() {
    // Each query with bounds of its own.
    let ranged = [
        Case::new([1, 2, 1, 200, 200, 64], |d| {
            AttentionMask::local(200, &[200], 40, d)
        }),
        Case::new([2, 4, 2, 150, 150, 64], |d| {
            AttentionMask::causal_documents(150, &[vec![70, 80], vec![1, 9, 140]], None, d)
        }),
        Case::new([1, 4, 2, 150, 150, 128], |d| {
            AttentionMask::causal_documents(150, &[vec![70, 80]], Some(33), d)
        }),
    ];
    let cases: Vec<Case> = cases().into_iter().chain(ranged).collect();
    on_each(|gpu, dtype| {
        let shard = Shard::default();
        for case in cases.iter().filter(|_| shard.has_next()) {
            case.check(gpu, dtype, &|| LAUNCHED.get());
        }
    });
}

#[test]
fn a_query_that_sees_nothing_has_no_value() {
    on_each(|gpu, dtype| nothing_seen_has_no_value(&gpu.clone().inner(), dtype));
}

#[test]
fn gradients_are_the_same_each_time() {
    on_each(gradients_are_the_same);
}
