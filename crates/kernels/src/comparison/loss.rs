#[cfg(all(feature = "cube", feature = "flex"))]
use burn::tensor::Device;
use burn::tensor::{Int, Tensor};

use super::case::Case;
use super::devices::devices;
#[cfg(all(feature = "cube", feature = "flex"))]
use super::devices::{Shard, gpus};
use crate::portable;

#[test]
fn linear_cross_entropy() {
    #[cfg(all(feature = "cube", feature = "flex"))]
    let shard = Shard::default();
    // The second has logits for more than one chunk.
    for (n, d, vocab) in [(5, 7, 11), (133, 9, 40_001)] {
        for (tied, softcap) in [(false, None), (true, None), (true, Some(1.5))] {
            for device in devices() {
                let targets: Vec<i32> = (0..n).map(|i| (i * 7919 % vocab) as i32).collect();
                let targets =
                    Tensor::<1, Int>::from_ints(targets.as_slice(), &device.clone().inner());
                let weights: Vec<f32> = (0..n).map(|i| (i % 3) as f32 * 0.5).collect();
                let weights = Tensor::<1>::from_floats(weights.as_slice(), &device.clone().inner());
                let weight = |x: &Tensor<1>| match tied {
                    false => x.clone().reshape([d, vocab]),
                    true => x.clone().reshape([vocab, d]).transpose(),
                };
                let hidden = |x: &Tensor<1>| x.clone().reshape([n, d]);
                let case = Case {
                    name: "linear_cross_entropy",
                    sizes: &[n * d, d * vocab],
                    ours: &|x| {
                        crate::linear_cross_entropy_with(
                            hidden(&x[0]),
                            weight(&x[1]),
                            targets.clone(),
                            weights.clone(),
                            softcap,
                        )
                    },
                    portable: &|x| {
                        portable::linear_cross_entropy_with(
                            hidden(&x[0]),
                            weight(&x[1]),
                            targets.clone(),
                            weights.clone(),
                            softcap,
                        )
                    },
                };
                case.check_on(&device);
            }
            #[cfg(all(feature = "cube", feature = "flex"))]
            if shard.has_next() {
                for device in gpus() {
                    cross_entropy_on_gpu(&device, [n, d, vocab], tied, softcap);
                }
            }
        }
    }
}

#[cfg(all(feature = "cube", feature = "flex"))]
fn cross_entropy_on_gpu(gpu: &Device, [n, d, vocab]: [usize; 3], tied: bool, softcap: Option<f64>) {
    let labels = |device: &Device| {
        let targets: Vec<i32> = (0..n).map(|i| (i * 7919 % vocab) as i32).collect();
        let weights: Vec<f32> = (0..n).map(|i| (i % 3) as f32 * 0.5).collect();
        (
            Tensor::<1, Int>::from_ints(targets.as_slice(), device),
            Tensor::<1>::from_floats(weights.as_slice(), device),
        )
    };
    let (here, there) = (labels(&Device::flex()), labels(&gpu.clone().inner()));
    let weight = |x: &Tensor<1>| match tied {
        false => x.clone().reshape([d, vocab]),
        true => x.clone().reshape([vocab, d]).transpose(),
    };
    let case = Case {
        name: "linear_cross_entropy",
        sizes: &[n * d, d * vocab],
        ours: &|x| {
            let hidden = x[0].clone().reshape([n, d]);
            let (targets, weights) = there.clone();
            crate::linear_cross_entropy_with(hidden, weight(&x[1]), targets, weights, softcap)
        },
        portable: &|x| {
            let hidden = x[0].clone().reshape([n, d]);
            let (targets, weights) = here.clone();
            portable::linear_cross_entropy_with(hidden, weight(&x[1]), targets, weights, softcap)
        },
    };
    case.check_on_gpu(gpu);
}
