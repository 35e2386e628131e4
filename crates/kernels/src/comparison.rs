//! Every hand-written form against the portable one and against difference quotients.
//!
//! Sizes are odd, so that no loop comes out even; padding, grouped heads, views and half precision have cases of their own.
//! On which devices, `BURN_LORA_TEST_DEVICES` says (`flex,ndarray,cuda,vulkan,wgpu,gl`): on the CPU backends without it.
//! On a GPU most of the time is compilation, one kernel after the other in a process: `BURN_LORA_TEST_SHARD=2/8` runs every
//! eighth case of the tests that have many, so that eight processes share them.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

use burn::tensor::{DType, Device, Distribution, Int, Tensor, Tolerance};

use crate::portable;
use crate::{AttentionMask, LowRank, Rope, RopeScaling, Scores};

/// An operation on flat operands, which it brings into shape.
type Operation<'a> = &'a dyn Fn(&[Tensor<1>]) -> Tensor<1>;

struct Case<'a> {
    name: &'a str,
    /// Elements of each operand.
    sizes: &'a [usize],
    ours: Operation<'a>,
    portable: Operation<'a>,
}

fn devices() -> Vec<Device> {
    vec![
        #[cfg(feature = "flex")]
        wanted("flex", || Device::flex().autodiff()),
        #[cfg(feature = "ndarray")]
        #[expect(deprecated, reason = "so Burn 0.22 calls it, and still has it")]
        wanted("ndarray", || Device::ndarray().autodiff()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A device, if the tests are to run on it.
fn wanted(name: &str, device: impl Fn() -> Device) -> Option<Device> {
    let on_cpu = ["flex", "ndarray"].contains(&name);
    let named = match std::env::var("BURN_LORA_TEST_DEVICES") {
        Ok(names) => names.split(',').any(|each| each.trim() == name),
        Err(_) => on_cpu,
    };
    named.then(device)
}

/// The GPUs that the tests are to run on.
#[cfg(feature = "cube")]
pub(crate) fn gpus() -> Vec<Device> {
    vec![
        #[cfg(feature = "cuda")]
        wanted("cuda", || Device::cuda(0).autodiff()),
        #[cfg(feature = "vulkan")]
        wanted("vulkan", || {
            Device::vulkan(burn::tensor::DeviceKind::DefaultDevice).autodiff()
        }),
        #[cfg(feature = "wgpu")]
        wanted("wgpu", || {
            Device::wgpu(burn::tensor::DeviceKind::DefaultDevice).autodiff()
        }),
        // WGSL, whatever other compilers are built in.
        #[cfg(feature = "wgpu")]
        wanted("gl", || {
            use burn::backend::{WgpuBackend, WgpuDevice, WgpuDeviceKind};
            let device = WgpuDevice::new(WgpuDeviceKind::DefaultDevice);
            Device::new(device.on(WgpuBackend::Gl)).autodiff()
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The cases of a test that this process runs on a GPU.
#[cfg(all(feature = "cube", feature = "flex"))]
#[derive(Default)]
struct Shard(std::cell::Cell<usize>);

#[cfg(all(feature = "cube", feature = "flex"))]
impl Shard {
    /// Whether the next case is one of them.
    fn has_next(&self) -> bool {
        let index = self.0.replace(self.0.get() + 1);
        let Ok(shard) = std::env::var("BURN_LORA_TEST_SHARD") else {
            return true;
        };
        let numbers = shard
            .split_once('/')
            .map(|(own, all)| (own.parse(), all.parse()));
        let Some((Ok(own), Ok(all))) = numbers else {
            panic!("BURN_LORA_TEST_SHARD is \"{shard}\", not as \"2/8\"");
        };
        let (own, all): (usize, usize) = (own, all);
        index % all == own % all
    }
}

/// The same numbers for every device and in every run: each test is a thread, and its draws have the seeds 0, 1, 2 and so on.
fn random(size: usize, device: &Device) -> Tensor<1> {
    thread_local! {
        static SEED: Cell<u64> = const { Cell::new(0) };
    }
    // All threads draw from one generator.
    static DRAWS: Mutex<()> = Mutex::new(());
    let seed = SEED.replace(SEED.get() + 1);
    let cpu = Device::flex();
    let drawn = {
        let _alone = DRAWS.lock().unwrap_or_else(PoisonError::into_inner);
        cpu.seed(seed);
        Tensor::<1>::random([size], Distribution::Normal(0.0, 1.0), &cpu)
    };
    Tensor::from_data(drawn.into_data(), (device, DType::F32))
}

/// The sum of the result times fixed numbers, the result, and the gradients of the tracked operands.
fn run(
    operation: Operation<'_>,
    operands: &[Tensor<1>],
    tracked: &[bool],
    weights: Option<&Tensor<1>>,
) -> (f64, Tensor<1>, Vec<Option<Tensor<1>>>) {
    let operands: Vec<Tensor<1>> = operands
        .iter()
        .zip(tracked)
        .map(|(x, tracked)| x.clone().detach().set_require_grad(*tracked))
        .collect();
    let y = operation(&operands);
    let loss = match weights {
        Some(weights) => (y.clone() * weights.clone()).sum(),
        None => y.clone().sum(),
    };
    let grads = loss.backward();
    let loss: f32 = loss.into_scalar();
    let grads = operands.iter().map(|x| x.grad(&grads)).collect();
    (loss as f64, y.detach(), grads)
}

fn close(a: &Tensor<1>, b: &Tensor<1>, tolerance: f32) {
    let (a, b) = (a.clone().into_data(), b.clone().into_data());
    a.assert_approx_eq::<f32>(&b, Tolerance::absolute(tolerance).set_relative(tolerance));
}

/// Whether a GPU computes with tensors of this dtype.
#[cfg(all(feature = "cube", feature = "flex"))]
pub(crate) fn has(gpu: &Device, dtype: DType) -> bool {
    gpu.supports_dtype(dtype)
}

/// Without a backward.
#[cfg(all(feature = "cube", feature = "flex"))]
fn run_untracked(
    operation: Operation<'_>,
    operands: &[Tensor<1>],
) -> (f64, Tensor<1>, Vec<Option<Tensor<1>>>) {
    let operands: Vec<_> = operands.iter().map(|x| x.clone().inner()).collect();
    (0.0, operation(&operands), Vec::new())
}

/// Equal but for this share of a number and of the mean of all.
#[cfg(all(feature = "cube", feature = "flex"))]
#[track_caller]
pub(crate) fn near(a: &Tensor<1>, b: &Tensor<1>, tolerance: f32, name: &str) {
    let (error, at) = worst_error(a, b);
    // Not `>`: NaN is not near.
    let near = error <= f64::from(tolerance);
    assert!(near, "{name}: off by {error:.2e} at {at}");
}

/// The largest error of a number, as a share of itself and of the mean of all, and whose it is. NaN where there is one.
#[cfg(all(feature = "cube", feature = "flex"))]
fn worst_error(a: &Tensor<1>, b: &Tensor<1>) -> (f64, String) {
    let (a, b) = (numbers(a), numbers(b));
    assert_eq!(a.len(), b.len());
    let mean = b.iter().map(|b| b.abs()).sum::<f64>() / b.len().max(1) as f64;
    let mut worst = (0.0, String::new());
    for (index, (a, b)) in a.iter().zip(&b).enumerate() {
        let error = (a - b).abs() / (b.abs() + mean.max(1e-3));
        // NaN is worse than all.
        if error.is_nan() || error > worst.0 {
            worst = (error, format!("{index}: {a} for {b}, mean {mean}"));
            if error.is_nan() {
                break;
            }
        }
    }
    worst
}

#[cfg(all(feature = "cube", feature = "flex"))]
fn numbers(x: &Tensor<1>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

impl Case<'_> {
    fn check(&self) {
        #[cfg(all(feature = "cube", feature = "flex"))]
        for device in gpus() {
            self.check_on_gpu(&device);
        }
        self.check_on_cpus();
    }

    fn check_on_cpus(&self) {
        for device in devices() {
            self.check_on(&device);
        }
    }

    /// On the GPUs only where the shard has it.
    #[cfg(all(feature = "cube", feature = "flex"))]
    fn check_within(&self, shard: &Shard) {
        self.check_on_cpus();
        if shard.has_next() {
            for device in gpus() {
                self.check_on_gpu(&device);
            }
        }
    }

    /// In each dtype that the GPU has, of operands that have it.
    #[cfg(all(feature = "cube", feature = "flex"))]
    fn check_on_gpu(&self, gpu: &Device) {
        for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::F16, 1e-2), (DType::BF16, 1e-2)] {
            if dtype == DType::F32 || has(gpu, dtype) {
                self.check_dtype_on_gpu(gpu, dtype, tolerance);
            }
        }
    }

    /// Against the portable form in `f64` on the CPU: off by no more than `tolerance`. Where the operands of a product must be
    /// rounded to the dtype, as those of PyTorch are, no form can do that when their sum nearly cancels: then off by no more
    /// than twice what the portable form in that dtype, by plain operations, is off at the worst of its results.
    #[cfg(all(feature = "cube", feature = "flex"))]
    #[expect(clippy::print_stdout, reason = "shown where a test fails")]
    fn check_dtype_on_gpu(&self, gpu: &Device, dtype: DType, tolerance: f32) {
        let name = format!("{} in {dtype:?} on {gpu:?}", self.name);
        println!("{name}");
        let cpu = Device::flex().autodiff();
        let exact = |size: usize| random(size, &cpu).cast(dtype).cast(DType::F64);
        let operands: Vec<_> = self.sizes.iter().map(|size| exact(*size)).collect();
        let all = vec![true; operands.len()];
        let weights = exact((self.portable)(&operands).dims()[0]);
        let (_, y, grads) = run(self.portable, &operands, &all, Some(&weights));

        let in_dtype = |operation: Operation<'_>, x: &[Tensor<1>]| {
            let y = operation(x);
            if y.dtype() == dtype { y } else { y.cast(dtype) }
        };
        let round = |x: &Tensor<1>| x.clone().cast(dtype);
        let rounded: Vec<_> = operands.iter().map(round).collect();
        let plain = |x: &[Tensor<1>]| in_dtype(self.portable, x);
        let (_, plain, plain_grads) = run(&plain, &rounded, &all, Some(&round(&weights)));

        let there = |x: &Tensor<1>| {
            let x = x.clone().cast(DType::F32).to_data();
            Tensor::<1>::from_data(x, (gpu, dtype))
        };
        let operands: Vec<_> = operands.iter().map(there).collect();
        let weights = Some(there(&weights));
        let result = |x: &[Tensor<1>]| in_dtype(self.ours, x);
        let (_, ours, ours_grads) = run(&result, &operands, &all, weights.as_ref());
        let all_of = |y: Tensor<1>, grads: Vec<Option<Tensor<1>>>| {
            let grads = grads.into_iter().map(|grad| grad.expect("tracked"));
            std::iter::once(y).chain(grads).collect::<Vec<_>>()
        };
        let exact = all_of(y, grads);
        let plain = all_of(plain, plain_grads);
        let plain = plain
            .iter()
            .zip(&exact)
            .map(|(x, exact)| worst_error(x, exact).0);
        let bound = plain.fold(f64::from(tolerance), |bound, plain| bound.max(2.0 * plain));
        let check = |ours: &Tensor<1>, index: usize| {
            let (error, at) = worst_error(ours, &exact[index]);
            println!("result {index}: off by {error:.1e}, bound {bound:.1e}");
            // Not `>`: NaN is not near.
            let near = error <= bound;
            assert!(
                near,
                "{name}, result {index}: off by {error:.2e} at {at}; bound {bound:.1e}"
            );
        };
        check(&ours, 0);
        for (index, ours) in ours_grads.iter().enumerate() {
            check(ours.as_ref().expect("tracked"), index + 1);
        }
        for only in 0..operands.len() {
            let tracked: Vec<bool> = (0..operands.len()).map(|index| index == only).collect();
            let (_, _, alone) = run(&result, &operands, &tracked, weights.as_ref());
            for (index, grad) in alone.iter().enumerate() {
                assert_eq!(grad.is_some(), index == only, "{name}, operand {index}");
            }
            let (alone, together) = (alone[only].as_ref(), ours_grads[only].as_ref());
            let name = format!("{name}, gradient {only} alone");
            near(
                alone.expect(&name),
                together.expect(&name),
                tolerance,
                &name,
            );
        }
        let (_, ours, _) = run_untracked(&result, &operands);
        check(&ours, 0);
    }

    fn check_on(&self, device: &Device) {
        let name = format!("{} on {device:?}", self.name);
        #[expect(clippy::print_stdout, reason = "shown where a test fails")]
        {
            println!("{name}");
        }
        let operands: Vec<_> = self
            .sizes
            .iter()
            .map(|size| random(*size, device))
            .collect();
        let all = vec![true; operands.len()];
        let size = (self.portable)(&operands).dims()[0];
        let weights = random(size, device);
        let (loss, y, grads) = run(self.ours, &operands, &all, Some(&weights));
        let (_, y_portable, grads_portable) = run(self.portable, &operands, &all, Some(&weights));
        close(&y, &y_portable, 2e-4);
        for (ours, portable) in grads.iter().zip(&grads_portable) {
            let (ours, portable) = (ours.as_ref().expect(&name), portable.as_ref().expect(&name));
            close(ours, portable, 5e-4);
        }

        // Whatever else is tracked, a tracked operand has the same gradient and another one has none.
        for only in 0..operands.len() {
            let tracked: Vec<bool> = (0..operands.len()).map(|index| index == only).collect();
            let (_, _, alone) = run(self.ours, &operands, &tracked, Some(&weights));
            for (index, grad) in alone.iter().enumerate() {
                assert_eq!(grad.is_some(), index == only, "{name}, operand {index}");
            }
            let (alone, together) = (alone[only].as_ref(), grads[only].as_ref());
            close(alone.expect(&name), together.expect(&name), 1e-5);
        }

        // Along a random direction, f64 beyond the operation itself.
        let step = 3e-3;
        let none = vec![false; operands.len()];
        for (index, grad) in grads.iter().enumerate() {
            let direction = random(self.sizes[index], device);
            let moved = |by: f64| {
                let mut operands = operands.clone();
                operands[index] = operands[index].clone() + direction.clone() * by;
                let y = (self.ours)(&set(&operands, &none)).into_data();
                let w = weights.clone().into_data();
                let pairs = y.iter::<f64>().zip(w.iter::<f64>());
                pairs.map(|(y, w)| y * w).sum::<f64>()
            };
            let quotient = (moved(step) - moved(-step)) / (2.0 * step);
            let product = grad.clone().expect(&name) * direction.clone();
            let slope: f64 = product.into_data().iter::<f64>().sum();
            let tolerance = 2e-2 * (1.0 + slope.abs() + 1e-2 * loss.abs());
            assert!(
                (slope - quotient).abs() < tolerance,
                "{name}, operand {index}: slope {slope}, quotient {quotient}"
            );
        }
    }

    /// In half precision, against the portable form in `f32`, of operands that all have.
    #[cfg(feature = "flex")]
    fn check_halves(&self, dtypes: &[DType]) {
        let device = Device::flex().autodiff();
        let rounded = |size: &usize| random(*size, &device).cast(DType::BF16).cast(DType::F32);
        let operands: Vec<_> = self.sizes.iter().map(rounded).collect();
        let all = vec![true; operands.len()];
        let (_, y_portable, grads_portable) = run(self.portable, &operands, &all, None);
        for dtype in dtypes {
            let half = |x: &[Tensor<1>]| {
                let x: Vec<_> = x.iter().map(|x| x.clone().cast(*dtype)).collect();
                let y = (self.ours)(&x);
                assert_eq!(y.dtype(), *dtype, "{}", self.name);
                y.cast(DType::F32)
            };
            let (_, y, grads) = run(&half, &operands, &all, None);
            close(&y, &y_portable, 0.1);
            for (ours, portable) in grads.iter().zip(&grads_portable) {
                close(
                    ours.as_ref().expect(self.name),
                    portable.as_ref().expect(self.name),
                    0.2,
                );
            }
        }
    }
}

fn set(operands: &[Tensor<1>], tracked: &[bool]) -> Vec<Tensor<1>> {
    let pairs = operands.iter().zip(tracked);
    pairs
        .map(|(x, tracked)| x.clone().detach().set_require_grad(*tracked))
        .collect()
}

fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    x.flatten(0, D - 1)
}

const HALVES: &[DType] = &[DType::BF16, DType::F16];

#[test]
fn rms_norm() {
    // The gradient of a single number is that of eps alone: it must be more than what f32 leaves of a difference.
    for (rows, d, eps) in [(1, 1, 0.1), (7, 33, 1e-5), (300, 129, 1e-5)] {
        let case = Case {
            name: "rms_norm",
            sizes: &[rows * d, d],
            ours: &|x| {
                flat(crate::rms_norm::<2>(
                    x[0].clone().reshape([rows, d]),
                    x[1].clone(),
                    eps,
                ))
            },
            portable: &|x| {
                flat(portable::rms_norm::<2>(
                    x[0].clone().reshape([rows, d]),
                    x[1].clone(),
                    eps,
                ))
            },
        };
        case.check();
        #[cfg(feature = "flex")]
        case.check_halves(if d > 1 { HALVES } else { &[] });
    }
}

#[test]
fn layer_norm() {
    for (rows, d) in [(7, 33), (300, 129)] {
        let case = Case {
            name: "layer_norm",
            sizes: &[rows * d, d, d],
            ours: &|x| {
                flat(crate::layer_norm::<2>(
                    x[0].clone().reshape([rows, d]),
                    x[1].clone(),
                    x[2].clone(),
                    1e-5,
                ))
            },
            portable: &|x| {
                flat(portable::layer_norm::<2>(
                    x[0].clone().reshape([rows, d]),
                    x[1].clone(),
                    x[2].clone(),
                    1e-5,
                ))
            },
        };
        case.check();
        #[cfg(feature = "flex")]
        case.check_halves(HALVES);
    }
}

#[test]
fn silu_mul() {
    for (rows, d) in [(1, 5), (77, 301)] {
        let case = Case {
            name: "silu_mul",
            sizes: &[rows * d, rows * d],
            ours: &|x| {
                flat(crate::silu_mul::<2>(
                    x[0].clone().reshape([rows, d]),
                    x[1].clone().reshape([rows, d]),
                ))
            },
            portable: &|x| portable::silu_mul(x[0].clone(), x[1].clone()),
        };
        case.check();
        #[cfg(feature = "flex")]
        case.check_halves(HALVES);
    }
}

#[test]
fn select_rows() {
    for (n, d) in [(1, 5), (77, 64)] {
        // Every second row, from the last to the first.
        let rows: Vec<i32> = (0..n as i32).rev().step_by(2).collect();
        let select = |x: &[Tensor<1>]| {
            let device = x[0].device().inner();
            let rows = Tensor::<1, Int>::from_data(rows.as_slice(), &device);
            (x[0].clone().reshape([n, d]), rows)
        };
        let case = Case {
            name: "select_rows",
            sizes: &[n * d],
            ours: &|x| {
                let (x, rows) = select(x);
                flat(crate::select_rows(x, rows))
            },
            portable: &|x| {
                let (x, rows) = select(x);
                flat(x.select(0, rows))
            },
        };
        case.check();
    }
}

#[test]
fn gelu() {
    for size in [5, 20_001] {
        let exact = Case {
            name: "gelu",
            sizes: &[size],
            ours: &|x| crate::gelu(x[0].clone()),
            portable: &|x| portable::gelu(x[0].clone()),
        };
        let tanh = Case {
            name: "gelu_tanh",
            sizes: &[size],
            ours: &|x| crate::gelu_tanh(x[0].clone()),
            portable: &|x| portable::gelu_tanh(x[0].clone()),
        };
        for case in [exact, tanh] {
            case.check();
            #[cfg(feature = "flex")]
            case.check_halves(HALVES);
        }
    }
}

#[test]
fn rotation() {
    let (batch, seq, heads, d) = (2, 5, 3, 6);
    let amplified = RopeScaling::LongRope {
        short: vec![1.0; 2],
        long: vec![1.0, 3.0],
        original_positions: 2,
        attention_factor: 1.3,
    };
    // All of a head, and a part of it.
    let ropes = [
        Rope::new(d, 100.0, RopeScaling::None),
        Rope::new(d - 2, 100.0, amplified),
    ];
    let positions: Vec<usize> = (0..seq).chain(3..3 + seq).collect();
    for (device, rope) in devices()
        .iter()
        .flat_map(|device| ropes.iter().map(move |rope| (device, rope)))
    {
        for rows in [1, 2] {
            let tables = rope.tables(&positions[..rows * seq], rows, DType::F32, device);
            // As models have it, and as a view whose heads and tokens are exchanged.
            for swap in [false, true] {
                let view = |x: &[Tensor<1>]| match swap {
                    false => x[0].clone().reshape([batch, seq, heads, d]),
                    true => x[0].clone().reshape([batch, heads, seq, d]).swap_dims(1, 2),
                };
                let case = Case {
                    name: "rotation",
                    sizes: &[batch * seq * heads * d],
                    ours: &|x| flat(tables.apply(view(x))),
                    portable: &|x| flat(tables.apply_portable(view(x))),
                };
                case.check_on(device);
            }
        }
    }
    #[cfg(all(feature = "cube", feature = "flex"))]
    let shard = Shard::default();
    #[cfg(all(feature = "cube", feature = "flex"))]
    for (gpu, rope) in gpus()
        .iter()
        .flat_map(|gpu| ropes.iter().map(move |rope| (gpu, rope)))
    {
        for (rows, swap) in [(1, false), (2, false), (1, true), (2, true)] {
            let tables = |dtype: DType, device: &Device| {
                rope.tables(&positions[..rows * seq], rows, dtype, device)
            };
            let there = tables(DType::F32, gpu);
            let view = |x: &[Tensor<1>]| match swap {
                false => x[0].clone().reshape([batch, seq, heads, d]),
                true => x[0].clone().reshape([batch, heads, seq, d]).swap_dims(1, 2),
            };
            let case = Case {
                name: "rotation",
                sizes: &[batch * seq * heads * d],
                ours: &|x| flat(there.apply(view(x))),
                portable: &|x| {
                    let here = tables(x[0].dtype(), &Device::flex());
                    flat(here.apply_portable(view(x)))
                },
            };
            if shard.has_next() {
                case.check_on_gpu(gpu);
            }
        }
    }
}

#[test]
fn attention() {
    struct Sizes {
        batch: usize,
        heads: usize,
        kv_heads: usize,
        queries: usize,
        keys: usize,
        d: usize,
    }
    let of = |[batch, heads, kv_heads, queries, keys, d]: [usize; 6]| Sizes {
        batch,
        heads,
        kv_heads,
        queries,
        keys,
        d,
    };
    let cases_on = |device: &Device| {
        let padded =
            |queries, left: &[usize]| AttentionMask::causal_left_padded(queries, 0, left, device);
        vec![
            (of([1, 1, 1, 1, 1, 1]), AttentionMask::none()),
            (of([2, 3, 3, 7, 7, 5]), AttentionMask::none()),
            (of([2, 4, 2, 9, 9, 8]), AttentionMask::causal(9, 0, device)),
            // More than one block of queries and of keys.
            (
                of([1, 2, 1, 131, 301, 4]),
                AttentionMask::causal(131, 170, device),
            ),
            (of([2, 2, 2, 70, 70, 4]), padded(70, &[0, 66])),
            (
                of([3, 2, 1, 11, 11, 6]),
                AttentionMask::right_padded(11, &[11, 4, 1], device),
            ),
            // Windows: within a block, across blocks of keys, behind a cache, with padding that some queries outlive.
            (
                of([2, 4, 2, 9, 9, 8]),
                AttentionMask::sliding(9, 0, &[], 3, device),
            ),
            (
                of([1, 2, 1, 131, 301, 4]),
                AttentionMask::sliding(131, 170, &[], 40, device),
            ),
            (
                of([2, 2, 2, 70, 70, 4]),
                AttentionMask::sliding(70, 0, &[0, 66], 2, device),
            ),
            (
                of([2, 2, 1, 1, 9, 4]),
                AttentionMask::sliding(1, 8, &[0, 7], 4, device),
            ),
            // To both sides: within a block, and across blocks of queries and keys.
            (
                of([2, 4, 2, 9, 9, 8]),
                AttentionMask::local(9, &[9, 8], 2, device),
            ),
            (
                of([1, 2, 1, 300, 300, 4]),
                AttentionMask::local(300, &[300], 40, device),
            ),
            // Several documents in a row, with and without a window.
            (
                of([2, 4, 2, 9, 9, 8]),
                AttentionMask::causal_documents(9, &[vec![4, 5], vec![1, 2, 6]], None, device),
            ),
            (
                of([1, 2, 1, 300, 300, 4]),
                AttentionMask::causal_documents(300, &[vec![100, 200]], Some(70), device),
            ),
        ]
    };
    let capped = Scores {
        scale: 0.9,
        softcap: Some(1.5),
    };
    #[cfg(all(feature = "cube", feature = "flex"))]
    let shard = Shard::default();
    for device in all_devices() {
        // Where the portable form is computed: on a CPU on the same device.
        let on_gpu = !devices().contains(&device);
        let here = if on_gpu {
            Device::flex()
        } else {
            device.clone()
        };
        let (cases, portables) = (cases_on(&device), cases_on(&here));
        for (((s, mask), (_, portable_mask)), capped) in cases
            .iter()
            .zip(&portables)
            .flat_map(|case| [None, Some(capped)].map(move |capped| (case, capped)))
        {
            let scores = capped.unwrap_or(Scores::of_width(s.d));
            let operands = |x: &[Tensor<1>]| {
                // As models have it: heads behind tokens, seen the other way round.
                let q = x[0]
                    .clone()
                    .reshape([s.batch, s.queries, s.heads, s.d])
                    .swap_dims(1, 2);
                let k = x[1].clone().reshape([s.batch, s.kv_heads, s.keys, s.d]);
                let v = x[2]
                    .clone()
                    .reshape([s.batch, s.keys, s.kv_heads, s.d])
                    .swap_dims(1, 2);
                (q, k, v)
            };
            // Queries of padding see nothing, and the two forms differ in what they make of it.
            let real = |y: Tensor<4>| match s.queries {
                70 => flat(y.narrow(2, 66, 4)),
                _ => flat(y),
            };
            let keys = s.batch * s.kv_heads * s.keys * s.d;
            let case = Case {
                name: "attention",
                sizes: &[s.batch * s.heads * s.queries * s.d, keys, keys],
                ours: &|x| {
                    let (q, k, v) = operands(x);
                    real(crate::attention_with(q, k, v, mask, scores))
                },
                portable: &|x| {
                    let (q, k, v) = operands(x);
                    real(portable::attention_with(q, k, v, portable_mask, scores))
                },
            };
            #[cfg(all(feature = "cube", feature = "flex"))]
            if on_gpu {
                if shard.has_next() {
                    case.check_on_gpu(&device);
                }
                continue;
            }
            case.check_on(&device);
            #[cfg(feature = "flex")]
            if device == Device::flex().autodiff() && s.batch == 2 && s.queries < 10 {
                case.check_halves(HALVES);
            }
        }
    }
}

#[test]
fn projection() {
    #[cfg(all(feature = "cube", feature = "flex"))]
    let shard = Shard::default();
    for (rows, k, n, rank) in [
        (1, 3, 5, 1),
        (5, 33, 17, 4),
        (203, 65, 130, 8),
        (70, 64, 96, 16),
        (130, 40, 9, 3),
    ] {
        for bias in [false, true] {
            for adapted in [false, true] {
                for transposed in [false, true] {
                    let operands = |x: &[Tensor<1>]| {
                        let mut x = x.iter().cloned();
                        let mut next = || x.next().expect("an operand");
                        let input = next().reshape([1, rows, k]);
                        let weight = match transposed {
                            false => next().reshape([k, n]),
                            true => next().reshape([n, k]).transpose(),
                        };
                        let bias = bias.then(&mut next);
                        let low_rank = adapted.then(|| LowRank {
                            a: next().reshape([k, rank]),
                            b: next().reshape([rank, n]),
                            scale: 0.7,
                        });
                        (input, weight, bias, low_rank)
                    };
                    let mut sizes = vec![rows * k, k * n];
                    if bias {
                        sizes.push(n);
                    }
                    if adapted {
                        sizes.extend([k * rank, rank * n]);
                    }
                    let case = Case {
                        name: "projection",
                        sizes: &sizes,
                        ours: &|x| {
                            let (x, w, bias, low_rank) = operands(x);
                            flat(crate::projection::<3>(x, w, bias, low_rank))
                        },
                        portable: &|x| {
                            let (x, w, bias, low_rank) = operands(x);
                            flat(portable::projection::<3>(x, w, bias, low_rank))
                        },
                    };
                    #[cfg(all(feature = "cube", feature = "flex"))]
                    case.check_within(&shard);
                    #[cfg(not(all(feature = "cube", feature = "flex")))]
                    case.check_on_cpus();
                    #[cfg(feature = "flex")]
                    if rows == 5 {
                        case.check_halves(&[DType::BF16]);
                    }
                }
            }
        }
    }
}

#[test]
fn a_further_low_rank_change() {
    let (rows, k, n, rank) = (70, 33, 17, 4);
    let operands = |x: &[Tensor<1>]| {
        let low_rank = LowRank {
            a: x[2].clone().reshape([k, rank]),
            b: x[3].clone().reshape([rank, n]),
            scale: 0.7,
        };
        (
            x[0].clone().reshape([rows, n]),
            x[1].clone().reshape([rows, k]),
            low_rank,
        )
    };
    let case = Case {
        name: "add_low_rank",
        sizes: &[rows * n, rows * k, k * rank, rank * n],
        ours: &|x| {
            let (y, x, low_rank) = operands(x);
            flat(crate::add_low_rank::<2>(y, x, low_rank))
        },
        portable: &|x| {
            let (y, x, low_rank) = operands(x);
            flat(portable::add_low_rank::<2>(y, x, low_rank))
        },
    };
    case.check();
}

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

/// The devices of all kinds.
fn all_devices() -> Vec<Device> {
    #[cfg(feature = "cube")]
    let gpus = gpus();
    #[cfg(not(feature = "cube"))]
    let gpus = Vec::new();
    [devices(), gpus].concat()
}

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

#[test]
fn no_rows_have_gradients_of_zero() {
    // With overflow checks, burn-cubecl 0.22.1 panics where it looks whether a tensor without rows has gaps.
    let all = match cfg!(debug_assertions) {
        true => devices(),
        false => all_devices(),
    };
    for device in all {
        let x = Tensor::<2>::zeros([0, 40], &device).require_grad();
        let weight = Tensor::<1>::ones([40], &device).require_grad();
        let matrix = Tensor::<2>::ones([40, 3], &device).require_grad();
        let bias = Tensor::<1>::ones([3], &device).require_grad();
        let y = crate::rms_norm(x.clone(), weight.clone(), 1e-5);
        let y = crate::projection(y, matrix.clone(), Some(bias.clone()), None);
        assert_eq!(y.dims(), [0, 3]);
        let grads = crate::silu_mul(y.clone(), y).sum().backward();
        let zero = |grad: Option<Tensor<1>>, size: usize| {
            close(
                &grad.expect("tracked"),
                &Tensor::zeros([size], &device),
                0.0,
            );
        };
        zero(weight.grad(&grads), 40);
        zero(bias.grad(&grads), 3);
        zero(matrix.grad(&grads).map(flat), 120);
    }
}

/// Parameters of several sizes, with gradients and moments that they could have.
#[cfg(all(feature = "cube", feature = "flex"))]
fn optimizer_operands() -> Vec<[Tensor<1>; 4]> {
    let cpu = Device::flex();
    let sizes = (0..21).map(|i| [1, 33, 4096, 20_001][i % 4]);
    let operands = sizes.map(|size| {
        let [p, g, m, v] = [(); 4].map(|()| random(size, &cpu));
        [p, g, m, v.square()]
    });
    operands.collect()
}

#[cfg(all(feature = "cube", feature = "flex"))]
#[test]
fn adamw_on_gpus() {
    for gpu in gpus() {
        let gpu = gpu.inner();
        let there = |x: &Tensor<1>| Tensor::<1>::from_data(x.to_data(), (&gpu, DType::F32));
        let step = |time| crate::AdamWStep {
            learning_rate: 1e-2,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.1,
            time,
        };
        let operands = optimizer_operands();
        let ours: Vec<_> = operands
            .iter()
            .map(|each| each.each_ref().map(there))
            .collect();
        // Of every third one somebody keeps the old values.
        let kept: Vec<_> = ours.iter().step_by(3).map(|each| each[0].clone()).collect();
        let run = |all: Vec<[Tensor<1>; 4]>, time| -> Vec<[Tensor<1>; 4]> {
            crate::adamw_together(|| {
                let each = |[p, g, m, v]: [Tensor<1>; 4]| {
                    let (p, [m, v]) = crate::adamw(p, g.clone(), [m, v], &step(time));
                    [p, g, m, v]
                };
                all.into_iter().map(each).collect()
            })
        };
        let ours = run(run(ours, 1), 2);
        for ([p, g, m, v], ours) in operands.iter().cloned().zip(&ours) {
            let (p, moments) = portable::adamw(p, g.clone(), [m, v], &step(1));
            let (p, [m, v]) = portable::adamw(p, g, moments, &step(2));
            near(&ours[0], &p, 1e-5, "parameter");
            near(&ours[2], &m, 1e-5, "first moment");
            near(&ours[3], &v, 1e-5, "second moment");
        }
        for (kept, old) in kept.iter().zip(operands.iter().step_by(3)) {
            kept.to_data().assert_eq(&old[0].to_data(), true);
        }
    }
}

#[cfg(all(feature = "cube", feature = "flex"))]
#[test]
fn clipping_on_gpus() {
    for gpu in gpus() {
        let gpu = gpu.inner();
        let gradients: Vec<_> = optimizer_operands()
            .into_iter()
            .map(|[_, g, _, _]| g)
            .collect();
        for max_norm in [Some(1.0), Some(1e4), None] {
            let there = |x: &Tensor<1>| Tensor::<1>::from_data(x.to_data(), (&gpu, DType::F32));
            let ours = crate::clip_norm(gradients.iter().map(there).collect(), max_norm);
            let expected = portable::clip_norm(gradients.clone(), max_norm);
            for (ours, expected) in ours.gradients.iter().zip(&expected.gradients) {
                near(ours, expected, 1e-5, "gradient");
            }
            let [ours, expected] = [ours, expected].map(|clipped| clipped.norm.expect("gradients"));
            near(&ours, &expected, 1e-5, "norm");
        }
    }
}

/// Factors in `f32` beside a weight in half precision, as they are trained.
#[cfg(all(feature = "cube", feature = "flex"))]
#[test]
fn wide_factors_of_a_narrow_weight() {
    for gpu in gpus() {
        for dtype in [DType::BF16, DType::F16] {
            if !has(&gpu, dtype) {
                continue;
            }
            let cpu = Device::flex().autodiff();
            let (rows, k, n) = (70, 64, 96);
            for rank in [8, 40] {
                let sizes = [rows * k, k * n, k * rank, rank * n];
                let round = |x: Tensor<1>| x.cast(dtype).cast(DType::F32);
                let operands: Vec<_> = sizes.map(|size| round(random(size, &cpu))).to_vec();
                let low_rank = |x: &[Tensor<1>]| LowRank {
                    a: x[2].clone().reshape([k, rank]),
                    b: x[3].clone().reshape([rank, n]),
                    scale: 0.5,
                };
                let wide = |x: &[Tensor<1>]| {
                    let (input, weight) = (x[0].clone().reshape([rows, k]), x[1].clone());
                    let weight = weight.reshape([k, n]);
                    flat(portable::projection::<2>(
                        input,
                        weight,
                        None,
                        Some(low_rank(x)),
                    ))
                };
                let narrow = |x: &[Tensor<1>]| {
                    let input = x[0].clone().cast(dtype).reshape([rows, k]);
                    let weight = x[1].clone().cast(dtype).reshape([k, n]);
                    let y = crate::projection::<2>(input, weight, None, Some(low_rank(x)));
                    assert_eq!(y.dtype(), dtype);
                    flat(y).cast(DType::F32)
                };
                let tracked = [true, false, true, true];
                let weights = round(random(rows * n, &cpu));
                let (_, y, grads) = run(&wide, &operands, &tracked, Some(&weights));
                let there = |x: &Tensor<1>| Tensor::<1>::from_data(x.to_data(), (&gpu, DType::F32));
                let operands: Vec<_> = operands.iter().map(there).collect();
                let (_, ours, ours_grads) =
                    run(&narrow, &operands, &tracked, Some(&there(&weights)));
                near(&ours, &y, 1e-2, "result");
                for (index, (ours, grad)) in ours_grads.iter().zip(&grads).enumerate() {
                    assert_eq!(ours.is_some(), tracked[index]);
                    if let (Some(ours), Some(grad)) = (ours, grad) {
                        near(
                            ours,
                            grad,
                            1e-2,
                            &format!("gradient {index} of rank {rank}"),
                        );
                    }
                }
            }
        }
    }
}
