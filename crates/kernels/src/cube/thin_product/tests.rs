//! Against the portable form in `f32` on the CPU: `BURN_LORA_TEST_DEVICES=vulkan cargo test --release --features vulkan,flex
//! thin_product -- --nocapture`.

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use burn_cubecl::ops::into_data_sync;

use super::*;
use crate::comparison::{gpus, near};
use crate::cube::apply::primitive;
use crate::cube::memory::transposed;
use crate::cube::product as seam;

fn there(x: &Tensor<2>, gpu: &Device, turned: bool) -> CubeTensor {
    let x = if turned {
        x.clone().transpose()
    } else {
        x.clone()
    };
    let x = Tensor::<2>::from_data(x.to_data(), (gpu, DType::F32));
    let x = primitive(x.cast(DType::F16));
    if turned { transposed(x) } else { x }
}

fn random(shape: [usize; 2]) -> Tensor<2> {
    let x = Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex());
    // Both forms read the same numbers.
    x.cast(DType::F16).cast(DType::F32)
}

/// The GPUs that have such matrices.
#[expect(clippy::print_stdout, reason = "a test that checks nothing says so")]
fn devices() -> Vec<Device> {
    let has = |gpu: &Device| {
        let has = Planes::of(&there(&random([16, 16]), gpu, false), |_| 0).is_some();
        if !has {
            println!("skipped: no matrices of planes on {gpu:?}");
        }
        has
    };
    gpus().into_iter().map(Device::inner).filter(has).collect()
}

/// The seam for products sends those with a rank here, and their transposes.
#[test]
fn products_with_a_rank_are_computed_by_these_kernels() {
    for gpu in devices() {
        let (x, a) = (
            there(&random([64, 64]), &gpu, false),
            there(&random([64, 8]), &gpu, false),
        );
        let before = LAUNCHED.get();
        let low = seam::product_times(x.clone(), a, 2.0, DType::F16);
        assert_eq!(LAUNCHED.get(), before + 1);
        drop(seam::outers(&[seam::Outer::whole(&x, &low, true)]));
        assert_eq!(LAUNCHED.get(), before + 2);
    }
}

/// Rows that no matrix divides, sums shorter than what a cube reads at a time, ranks of less than a matrix to two, both storage
/// orders.
#[test]
fn products_are_those_of_the_portable_form() {
    for gpu in devices() {
        for [m, k, n] in [
            [16, 64, 16],
            [100, 2048, 8],
            [33, 704, 32],
            [1, 128, 24],
            [50, 320, 48],
            [20, 64, 64],
        ] {
            let (a, b) = (random([m, k]), random([k, n]));
            let expected = a
                .clone()
                .matmul(b.clone())
                .mul_scalar(0.5)
                .flatten::<1>(0, 1);
            for (turned, dtype) in [(false, DType::F16), (true, DType::F32)] {
                let name = format!("{m}x{k}x{n} {turned}");
                let y = product(
                    &there(&a, &gpu, false),
                    &there(&b, &gpu, turned),
                    0.5,
                    dtype,
                );
                let Some(y) = y else {
                    panic!("{name}: not taken");
                };
                let y = Tensor::<2>::from_data(into_data_sync(y).convert::<f32>(), &Device::flex());
                let bound = if dtype == DType::F32 { 1e-4 } else { 1e-2 };
                near(&y.flatten::<1>(0, 1), &expected, bound, &name);
            }
        }
    }
}

/// Rows and columns that no cube divides, one part and several, both orientations, added up together.
#[test]
fn outer_products_are_those_of_the_portable_form() {
    for gpu in devices() {
        let shapes = [
            [64, 64, 16],
            [1, 128, 32],
            [700, 136, 8],
            [331, 2048, 24],
            [90, 264, 48],
        ];
        let sides = shapes.map(|[m, c, rank]| (random([m, c]), random([m, rank])));
        let there = (sides.each_ref()).map(|(x, d)| (there(x, &gpu, false), there(d, &gpu, false)));
        let products: Vec<seam::Outer> = there
            .iter()
            .flat_map(|(x, d)| [false, true].map(|transpose| seam::Outer::whole(x, d, transpose)))
            .collect();
        let sums = seam::outers(&products);
        for (index, (product, sum)) in products.iter().zip(sums).enumerate() {
            let (x, d) = &sides[index / 2];
            let name = format!("{:?} {}", shapes[index / 2], product.transpose);
            let taken = outer_parts(product.x, product.d, product.transpose);
            assert!(taken.is_some(), "{name}: not taken");
            let expected = x.clone().transpose().matmul(d.clone());
            let expected = match product.transpose {
                true => expected.transpose(),
                false => expected,
            };
            assert_eq!(sum.meta.shape()[..], expected.dims(), "{name}");
            let sum = Tensor::<2>::from_data(into_data_sync(sum), &Device::flex());
            let sum = sum.flatten::<1>(0, 1);
            near(&sum, &expected.flatten::<1>(0, 1), 1e-4, &name);
        }
    }
}

/// `BURN_LORA_TEST_DEVICES=vulkan cargo test --release --features vulkan,flex thin_product::tests::speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stdout, reason = "its result")]
fn speed() {
    for gpu in gpus().into_iter().map(Device::inner) {
        let time = |name: &str, run: &dyn Fn() -> Option<CubeTensor>| {
            let mut best = f64::MAX;
            for _ in 0..5 {
                let started = Instant::now();
                for _ in 0..50 {
                    assert!(run().is_some(), "{name}: not taken");
                }
                gpu.sync().expect("a device that is there");
                best = best.min(started.elapsed().as_secs_f64() / 50.0);
            }
            println!("{name}: {:.1} us", best * 1e6);
        };
        let random = |shape: [usize; 2]| {
            let x = Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &gpu);
            primitive(x.cast(DType::F16))
        };
        let low = random([4096, 16]);
        for width in [512, 2048] {
            let x = random([4096, width]);
            let (factor, turned) = (random([width, 16]), transposed(random([16, width])));
            time(&format!("{width}: product"), &|| {
                product(&x, &factor, 2.0, DType::F16)
            });
            time(&format!("{width}: product, turned"), &|| {
                product(&x, &turned, 2.0, DType::F16)
            });
            time(&format!("{width}: outer"), &|| outer_parts(&x, &low, false));
            time(&format!("{width}: outer, turned"), &|| {
                outer_parts(&x, &low, true)
            });
        }
    }
}
