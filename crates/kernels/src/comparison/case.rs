//! One operation in its two forms, and how near they are to each other and to difference quotients.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

use burn::tensor::{DType, Device, Distribution, Tensor, Tolerance};

use super::devices::devices;
#[cfg(all(feature = "cube", feature = "flex"))]
use super::devices::{Shard, gpus};

/// An operation on flat operands, which it brings into shape.
pub(super) type Operation<'a> = &'a dyn Fn(&[Tensor<1>]) -> Tensor<1>;

pub(super) struct Case<'a> {
    pub(super) name: &'a str,
    /// Elements of each operand.
    pub(super) sizes: &'a [usize],
    pub(super) ours: Operation<'a>,
    pub(super) portable: Operation<'a>,
}

/// The same numbers for every device and in every run: each test is a thread, and its draws have the seeds 0, 1, 2 and so on.
pub(super) fn random(size: usize, device: &Device) -> Tensor<1> {
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
pub(super) fn run(
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

pub(super) fn close(a: &Tensor<1>, b: &Tensor<1>, tolerance: f32) {
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
pub(super) fn run_untracked(
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
pub(super) fn worst_error(a: &Tensor<1>, b: &Tensor<1>) -> (f64, String) {
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
pub(super) fn numbers(x: &Tensor<1>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

impl Case<'_> {
    pub(super) fn check(&self) {
        #[cfg(all(feature = "cube", feature = "flex"))]
        for device in gpus() {
            self.check_on_gpu(&device);
        }
        self.check_on_cpus();
    }

    pub(super) fn check_on_cpus(&self) {
        for device in devices() {
            self.check_on(&device);
        }
    }

    /// On the GPUs only where the shard has it.
    #[cfg(all(feature = "cube", feature = "flex"))]
    pub(super) fn check_within(&self, shard: &Shard) {
        self.check_on_cpus();
        if shard.has_next() {
            for device in gpus() {
                self.check_on_gpu(&device);
            }
        }
    }

    /// In each dtype that the GPU has, of operands that have it.
    #[cfg(all(feature = "cube", feature = "flex"))]
    pub(super) fn check_on_gpu(&self, gpu: &Device) {
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
    pub(super) fn check_dtype_on_gpu(&self, gpu: &Device, dtype: DType, tolerance: f32) {
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

    pub(super) fn check_on(&self, device: &Device) {
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
    pub(super) fn check_halves(&self, dtypes: &[DType]) {
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

pub(super) fn set(operands: &[Tensor<1>], tracked: &[bool]) -> Vec<Tensor<1>> {
    let pairs = operands.iter().zip(tracked);
    pairs
        .map(|(x, tracked)| x.clone().detach().set_require_grad(*tracked))
        .collect()
}

pub(super) fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    x.flatten(0, D - 1)
}

pub(super) const HALVES: &[DType] = &[DType::BF16, DType::F16];
