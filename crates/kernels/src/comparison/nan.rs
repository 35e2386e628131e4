use burn::tensor::{Int, Tensor};

use super::case::flat;
use super::devices::all_devices;
use crate::AttentionMask;

#[test]
fn nan_is_never_hidden() {
    for device in all_devices() {
        let nan = Tensor::<2>::full([2, 40], f32::NAN, &device);
        let ones = Tensor::<1>::ones([40], &device);
        let seen = |y: Tensor<1>| assert!(y.contains_nan().into_scalar::<bool>());
        seen(flat(crate::rms_norm(nan.clone(), ones.clone(), 1e-5)));
        seen(flat(crate::layer_norm(
            nan.clone(),
            ones.clone(),
            ones.clone(),
            1e-5,
        )));
        seen(flat(crate::gelu(nan.clone())));
        seen(flat(crate::gelu_tanh(nan.clone())));
        seen(flat(crate::silu_mul(nan.clone(), nan.clone())));
        let heads = nan.clone().reshape([1, 2, 4, 10]);
        let mask = AttentionMask::causal(4, 0, &device);
        seen(flat(crate::attention(
            heads.clone(),
            heads.clone(),
            heads,
            &mask,
        )));
        let targets = Tensor::<1, Int>::zeros([2], &device.clone().inner());
        let weights = Tensor::<1>::ones([2], &device.clone().inner());
        seen(crate::linear_cross_entropy(
            nan.clone(),
            nan.transpose(),
            targets,
            weights,
        ));
    }
}
