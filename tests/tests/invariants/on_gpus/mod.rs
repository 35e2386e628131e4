//! The part of the suite for devices on which each kernel takes long to compile, such as wgpu on Mesa's software driver: one method of
//! each kind, where it takes the activation path and where the dense weight is composed.

mod side_by_side;

use burn::module::Module;
use burn::tensor::{DType, Device};
use burn_lora::adapter::LoraConfig;
use burn_lora_tests::{Subject, llama, mlp, on_each_device};

use crate::methods::{identity, merging, saving, training};

/// Two factors, a dense change, a product of another kind, and scales.
const METHODS: [&str; 4] = ["lora", "dora", "lokr", "ia3"];

fn each<M: Module>(subject: &Subject<M>, check: fn(&str, &Subject<M>, &LoraConfig)) {
    for word in METHODS {
        let config = subject.config().with_method(word.parse().unwrap());
        check(&format!("{}, {word}", subject.name), subject, &config);
    }
}

macro_rules! on_both {
    ($prepare:expr, $check:ident) => {
        on_each_device(|device: Device| {
            let device = $prepare(device);
            each(&llama(&device, DType::F32), $check);
            each(&mlp(&device, DType::F32), $check);
        })
    };
}

#[test]
fn i01_i12_fresh_is_the_identity_and_disabled_is_the_base() {
    on_both!(|device| device, identity);
}

#[test]
fn i03_only_adapters_are_trained() {
    on_both!(|device: Device| device.autodiff(), training);
}

#[test]
fn i05_i07_merging_changes_nothing_and_is_undone_exactly() {
    on_both!(|device| device, merging);
}

#[test]
fn i09_a_saved_adapter_is_loaded_as_it_was() {
    on_both!(|device| device, saving);
}
