//! Against the portable form in `f32` on the CPU, and how fast: on a machine with a Hopper GPU,
//! `BURN_LORA_TEST_DEVICES=cuda cargo test --release --features cuda,flex hopper -- --nocapture` and with `--ignored`.

use std::time::Instant;

use burn::tensor::{DType, Device, Distribution, Tensor};
use burn_cubecl::ops::into_data_sync;
use burn_cubecl::tensor::CubeTensor;

use super::*;
use crate::comparison::{gpus, near};
use crate::cube::apply::primitive;
use crate::cube::memory::transposed;
use crate::portable;

/// The GPUs with these kernels, among those that the tests are to run on.
#[expect(clippy::print_stdout, reason = "a test that checks nothing says so")]
fn hoppers() -> Vec<Device> {
    let mut all: Vec<Device> = gpus().into_iter().map(Device::inner).collect();
    all.retain(|gpu| is_hopper(&primitive(Tensor::<1>::zeros([1], gpu))));
    if all.is_empty() {
        println!("skipped: no Hopper GPU among the test devices");
    }
    all
}

/// A matrix on the CPU, its numbers those that `dtype` has.
fn matrix(rows: usize, columns: usize, dtype: DType) -> Tensor<2> {
    let x = Tensor::<2>::random(
        [rows, columns],
        Distribution::Normal(0.0, 1.0),
        &Device::flex(),
    );
    x.cast(dtype).cast(DType::F32)
}

/// The same on a GPU, stored column after column if `turned`.
fn there(x: &Tensor<2>, gpu: &Device, dtype: DType, turned: bool) -> CubeTensor {
    let x = if turned {
        x.clone().transpose()
    } else {
        x.clone()
    };
    let x = primitive(Tensor::<2>::from_data(x.to_data(), (gpu, DType::F32)).cast(dtype));
    if turned { transposed(x) } else { x }
}

fn here(x: CubeTensor) -> Tensor<1> {
    let x = into_data_sync(x).convert::<f32>();
    Tensor::<2>::from_data(x, &Device::flex()).flatten(0, 1)
}

/// Every storage order, sizes that no tile divides, more tiles than multiprocessors, with and without the second term and
/// the bias.
#[test]
fn products_are_those_of_the_portable_form() {
    let sizes = [
        // m, k, n, rank
        (8, 8, 8, 8),
        (136, 72, 264, 8),
        (1000, 200, 328, 24),
        (264, 2048, 1032, 72),
        (1024, 520, 4096, 16),
        (2104, 64, 2056, 64),
    ];
    for gpu in hoppers() {
        for (case, (m, k, n, rank)) in sizes.into_iter().enumerate() {
            let dtype = [DType::BF16, DType::F16][case % 2];
            let (a, b) = (matrix(m, k, dtype), matrix(k, n, dtype));
            let (c, d) = (matrix(m, rank, dtype), matrix(rank, n, dtype));
            let bias = matrix(1, n, dtype) * 16.0;
            for (left, right) in [(false, false), (false, true), (true, false), (true, true)] {
                for (with_more, with_bias) in [(false, false), (true, false), (true, true)] {
                    let bias_here = with_bias.then(|| bias.clone().reshape([n]));
                    let times = |x: &Tensor<2>, y: &Tensor<2>, bias| {
                        portable::projection(x.clone(), y.clone(), bias, None)
                    };
                    let mut expected = times(&a, &b, bias_here);
                    if with_more {
                        expected = expected + times(&c, &d, None);
                    }
                    let on_gpu = |x: &Tensor<2>, turned| there(x, &gpu, dtype, turned);
                    let (ga, gb) = (on_gpu(&a, left), on_gpu(&b, right));
                    let (gc, gd) = (on_gpu(&c, left), on_gpu(&d, right));
                    let flat = bias.clone().reshape([n]);
                    let flat =
                        Tensor::<1>::from_data(flat.to_data(), (&gpu, DType::F32)).cast(dtype);
                    let flat = primitive(flat);
                    let more = with_more.then_some((&gc, &gd));
                    let bias = with_bias.then_some(&flat);
                    assert!(takes(&ga, &gb, more, bias));
                    let y = product(&ga, &gb, more, bias);
                    assert_eq!(y.dtype, dtype);
                    let name = format!("{m}x{k}x{n} {left} {right} {with_more} {with_bias}");
                    near(&here(y), &expected.flatten(0, 1), 1e-2, &name);
                }
            }
        }
    }
}

/// Few columns or rows, any number of them.
#[test]
fn thin_products_are_those_of_the_portable_form() {
    let sizes = [
        (8, 8, 1),
        (333, 72, 24),
        (1000, 1000, 48),
        (4096, 2048, 16),
        (40, 4096, 1027),
        (20_000, 128, 128),
        (3, 264, 8),
        // Two cubes share the sum, each with two panels of columns.
        (300, 640, 128),
        (65, 1000, 72),
    ];
    for gpu in hoppers() {
        for (m, k, n) in sizes {
            for dtype in [DType::BF16, DType::F16] {
                let (a, b) = (matrix(m, k, dtype), matrix(k, n, dtype));
                let expected = (a.clone().matmul(b.clone()) * 0.5).flatten(0, 1);
                for (left, right) in [(false, false), (false, true), (true, false), (true, true)] {
                    let (ga, gb) = (there(&a, &gpu, dtype, left), there(&b, &gpu, dtype, right));
                    // As the device laid them out, which may leave gaps behind rows.
                    let pitch = |x: &CubeTensor| {
                        let strides: Vec<usize> = x.meta.strides().iter().copied().collect();
                        if strides[1] == 1 {
                            strides[0]
                        } else {
                            strides[1]
                        }
                    };
                    let fits = [&ga, &gb].into_iter().all(|x| pitch(x).is_multiple_of(8));
                    assert_eq!(takes_thin(&ga, &gb), fits, "{m}x{k}x{n} {left} {right}");
                    if fits {
                        let name = format!("{m}x{k}x{n} {left} {right}");
                        let y = thin(&ga, &gb, 0.5, DType::F32);
                        near(&here(y), &expected, 1e-4, &name);
                        let y = thin(&ga, &gb, 0.5, dtype);
                        near(&here(y), &expected, 1e-2, &name);
                    }
                }
            }
        }
    }
}

/// What a model computes in 16 bits comes here, forward and backward, and not to the kernels of other devices.
#[test]
fn projections_and_losses_are_computed_by_these_kernels() {
    for gpu in hoppers() {
        let gpu = gpu.autodiff();
        for dtype in [DType::BF16, DType::F16] {
            let random = |rows: usize, columns: usize, dtype: DType| {
                let shape = [rows, columns];
                Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &gpu).cast(dtype)
            };
            let counted = |run: &dyn Fn()| {
                let before = LAUNCHED.get();
                run();
                let after = LAUNCHED.get();
                [after[0] - before[0], after[1] - before[1]]
            };
            let (rows, k, n, rank) = (4 * 96, 512, 1024, 16);
            for turned in [false, true] {
                let launches = counted(&|| {
                    let x = random(rows, k, dtype).require_grad().reshape([4, 96, k]);
                    let weight = match turned {
                        false => random(k, n, dtype),
                        true => random(n, k, dtype).transpose(),
                    };
                    let low_rank = crate::LowRank {
                        a: random(k, rank, DType::F32).require_grad(),
                        b: random(rank, n, DType::F32).require_grad(),
                        scale: 0.3,
                    };
                    let y = crate::projection::<3>(x, weight, None, Some(low_rank));
                    drop(y.cast(DType::F32).sum().backward());
                });
                // y and dx; x A, g B^T, dA and dB.
                assert_eq!(launches, [2, 4], "{dtype:?}, turned: {turned}");
            }
            let launches = counted(&|| {
                let hidden = random(rows, k, dtype).require_grad();
                let head = random(n, k, dtype).transpose();
                let targets = Tensor::<1, burn::tensor::Int>::zeros([rows], &gpu.clone().inner());
                let weights = Tensor::<1>::ones([rows], &gpu.clone().inner());
                drop(crate::linear_cross_entropy(hidden, head, targets, weights).backward());
            });
            // The gradient of the hidden states; logits, which stay f32.
            assert_eq!(launches, [1, 1], "{dtype:?}");
        }
    }
}

/// Sums as they are, of sizes that no tile divides.
#[test]
fn unrounded_products_are_those_of_the_portable_form() {
    for gpu in hoppers() {
        for (case, (m, k, n)) in [
            (8, 8, 8),
            (1000, 200, 328),
            (264, 2048, 1032),
            (2104, 64, 4096),
        ]
        .into_iter()
        .enumerate()
        {
            let dtype = [DType::BF16, DType::F16][case % 2];
            let (a, b) = (matrix(m, k, dtype), matrix(k, n, dtype));
            let expected = a.clone().matmul(b.clone()).flatten(0, 1);
            for (left, right) in [(false, false), (false, true), (true, false), (true, true)] {
                let (ga, gb) = (there(&a, &gpu, dtype, left), there(&b, &gpu, dtype, right));
                assert!(takes(&ga, &gb, None, None));
                let y = unrounded(&ga, &gb);
                assert_eq!(y.dtype, DType::F32);
                let name = format!("{m}x{k}x{n} {left} {right}");
                near(&here(y), &expected, 1e-4, &name);
            }
        }
    }
}

/// What the choice of tiles rests on.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stdout, reason = "its result")]
fn speed() {
    let dtype = DType::BF16;
    for gpu in hoppers() {
        let random = |rows: usize, columns: usize, turned: bool| {
            let shape = if turned {
                [columns, rows]
            } else {
                [rows, columns]
            };
            let x = Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &gpu).cast(dtype);
            if turned {
                transposed(primitive(x))
            } else {
                primitive(x)
            }
        };
        let time = |run: &dyn Fn(usize) -> CubeTensor| {
            let times = 30;
            let mut all: Vec<f64> = (0..5)
                .map(|_| {
                    run(0);
                    gpu.sync().expect("a device that works");
                    let started = Instant::now();
                    (0..times).for_each(|index| drop(run(index)));
                    gpu.sync().expect("a device that works");
                    started.elapsed().as_secs_f64() / f64::from(times as u32)
                })
                .collect();
            all.sort_by(f64::total_cmp);
            all[2]
        };
        let wide = [
            (4096, 2048, 8192, false),
            (4096, 8192, 2048, true),
            (4096, 2048, 2048, false),
            (4096, 2048, 512, false),
            (8192, 8192, 8192, false),
        ];
        for (m, k, n, turned) in wide {
            // Several sets, so that the cache does not hold them.
            let sets: Vec<_> = (0..3)
                .map(|_| {
                    let more = (random(m, 16, false), random(16, n, turned));
                    (random(m, k, false), random(k, n, turned), more)
                })
                .collect();
            let [plain, more] = [false, true].map(|with_more| {
                time(&|index| {
                    let (a, b, (c, d)) = &sets[index % sets.len()];
                    product(a, b, with_more.then_some((c, d)), None)
                })
            });
            let rate = |seconds: f64| 2e-12 * (m * k * n) as f64 / seconds;
            println!(
                "{m}x{k}x{n} {turned}: {:.0} TFLOP/s, with a second term {:.0}",
                rate(plain),
                rate(more)
            );
        }
        let narrow = [
            (4096, 2048, 16, false, false),
            (4096, 2048, 48, false, false),
            (4096, 8192, 16, false, false),
            (4096, 2048, 16, false, true),
            (2048, 4096, 16, true, false),
            (16, 4096, 2048, true, false),
            (16, 4096, 8192, true, false),
        ];
        for (m, k, n, left, right) in narrow {
            let sets: Vec<_> = (0..6)
                .map(|_| (random(m, k, left), random(k, n, right)))
                .collect();
            let seconds = time(&|index| {
                let (a, b) = &sets[index % sets.len()];
                thin(a, b, 1.0, DType::F32)
            });
            println!("{m}x{k}x{n} {left} {right}: {:.1} us", seconds * 1e6);
        }
    }
}
