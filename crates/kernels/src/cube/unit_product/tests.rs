//! Against the portable form on the CPU.

use std::time::Instant;

use burn::backend::DispatchDevice;
use burn::tensor::{Device, Distribution, Tensor};
use burn_cubecl::kernel::cast;
use burn_cubecl::ops::into_data_sync;

use super::*;
use crate::comparison::{gpus, has, near};
use crate::cube::apply::primitive;
use crate::cube::memory::{empty, transposed};
use crate::cube::product::{self as seam, first_that_fits};

fn random(shape: [usize; 4], device: &Device) -> Tensor<4> {
    Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), device)
}

/// Tiles that divide the matrices and tiles that do not, every storage order, a batch, sums of more than one part.
#[test]
fn products_by_units_are_those_of_the_portable_form_on_gpus() {
    for gpu in gpus().into_iter().map(Device::inner) {
        for [outer, inner, m, k, n] in [
            [1, 1, 64, 32, 64],
            [1, 1, 5, 1, 3],
            [2, 3, 70, 19, 67],
            [1, 2, 1, 2100, 130],
        ] {
            let here = Device::flex();
            let (a, b) = (
                random([outer, inner, m, k], &here),
                random([outer, inner, k, n], &here),
            );
            let expected = a.clone().matmul(b.clone()).flatten::<1>(0, 3);
            for (left, right) in [(false, false), (false, true), (true, false), (true, true)] {
                let there = |x: &Tensor<4>, turned: bool| {
                    let x = if turned {
                        x.clone().swap_dims(2, 3)
                    } else {
                        x.clone()
                    };
                    let x = primitive(Tensor::<4>::from_data(x.to_data(), (&gpu, DType::F32)));
                    if turned { transposed(x) } else { x }
                };
                let (ga, gb) = (there(&a, left), there(&b, right));
                let name = format!("{outer}x{inner} {m}x{k}x{n} {left} {right}");
                let out = empty(&ga, &[outer, inner, m, n], DType::F32);
                let before = LAUNCHED.get();
                assert!(product_into(&ga, &gb, &out), "{name}: not taken");
                assert_eq!(LAUNCHED.get(), before + 1);
                let y = Tensor::<4>::from_data(into_data_sync(out), &here).flatten::<1>(0, 3);
                near(&y, &expected, 1e-5, &name);
                if matches!(gpu.as_dispatch(), DispatchDevice::Cube(CubeDevice::Wgpu(_)))
                    && has(&gpu, DType::F16)
                {
                    let half = |x: &CubeTensor| cast(x.clone(), DType::F16);
                    let out = empty(&ga, &[outer, inner, m, n], DType::F16);
                    assert!(
                        product_into(&half(&ga), &half(&gb), &out),
                        "{name}: f16 not taken"
                    );
                    let y = into_data_sync(out).convert::<f32>();
                    let y = Tensor::<4>::from_data(y, &here).flatten::<1>(0, 3);
                    near(&y, &expected, 1e-2, &name);
                }
            }
        }
    }
}

/// The seam for products sends those in `f32` here.
#[test]
fn products_in_f32_are_computed_by_units_on_gpus() {
    for gpu in gpus().into_iter().map(Device::inner) {
        let x = || primitive(random([1, 1, 8, 8], &gpu));
        let before = LAUNCHED.get();
        let y = seam::product(x(), x(), DType::F32);
        assert_eq!(LAUNCHED.get(), before + 1);
        seam::product_into(x(), x(), &y);
        assert_eq!(LAUNCHED.get(), before + 2);
    }
}

/// `BURN_LORA_TEST_DEVICES=vulkan cargo test --release --features vulkan,flex unit_product::tests::speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stdout, reason = "its result")]
fn speed() {
    for gpu in gpus().into_iter().map(Device::inner) {
        for ([outer, inner, m, k, n], turned) in [
            ([1, 1, 4096, 2048, 2048], false),
            ([1, 1, 4096, 2048, 2048], true),
            ([1, 1, 4096, 2048, 16], false),
            ([1, 1, 1024, 384, 1024], true),
            ([16, 8, 128, 64, 128], true),
            ([1, 1, 512, 128, 128], false),
        ] {
            let a = primitive(random([outer, inner, m, k], &gpu));
            let b = match turned {
                true => transposed(primitive(random([outer, inner, n, k], &gpu))),
                false => primitive(random([outer, inner, k, n], &gpu)),
            };
            let out = empty(&a, &[outer, inner, m, n], DType::F32);
            let time = |run: &dyn Fn()| {
                let started = Instant::now();
                run();
                gpu.sync().expect("a device that is there");
                let first = started.elapsed().as_secs_f64();
                let mut best = f64::MAX;
                for _ in 0..5 {
                    let started = Instant::now();
                    for _ in 0..10 {
                        run();
                    }
                    gpu.sync().expect("a device that is there");
                    best = best.min(started.elapsed().as_secs_f64() / 10.0);
                }
                (first, best * 1e3)
            };
            let ours = time(&|| assert!(product_into(&a, &b, &out)));
            let cubek = time(&|| first_that_fits(&a, &b, &out));
            let flops = 2e-9 * (outer * inner * m * k * n) as f64;
            println!(
                "{outer}x{inner} {m}x{k}x{n} {turned}: {:.3} ms, {:.1} TFLOP/s, first {:.2} s; CubeK {:.3} ms, {:.1} TFLOP/s, first {:.2} s",
                ours.1,
                flops / ours.1,
                ours.0,
                cubek.1,
                flops / cubek.1,
                cubek.0
            );
        }
    }
}
