//! How fast a device multiplies.

use std::time::Instant;

use burn::tensor::{DType, Device, Distribution, Tensor};

use crate::error::TrainError;

/// What [`measure_rate`] found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasuredRate {
    /// Floating-point operations per second of one large product, the best of a few.
    pub flops_per_second: f64,
    /// Width of the square matrices.
    pub size: usize,
}

/// Widths that are tried, until a product takes long enough to be timed.
const SIZES: [usize; 4] = [512, 1024, 2048, 4096];
/// Seconds that are enough.
const ENOUGH: f64 = 0.02;
const ROUNDS: usize = 4;

/// Multiplies square matrices on a device. It takes a second or two, and some 100 MB.
///
/// # Errors
/// [`TrainError::Evaluation`] when the device fails.
pub fn measure_rate(device: &Device, dtype: DType) -> Result<MeasuredRate, TrainError> {
    let failed = |error: String| TrainError::Evaluation(error);
    let mut best = MeasuredRate {
        flops_per_second: 0.0,
        size: 0,
    };
    for size in SIZES {
        let random = || {
            let matrix =
                Tensor::<2>::random([size, size], Distribution::Uniform(-1.0, 1.0), device);
            matrix.cast(dtype)
        };
        let (a, b) = (random(), random());
        let mut fastest = f64::INFINITY;
        // The first round compiles.
        for _ in 0..ROUNDS {
            device.sync().map_err(|error| failed(error.to_string()))?;
            let started = Instant::now();
            let product = a.clone().matmul(b.clone());
            device.sync().map_err(|error| failed(error.to_string()))?;
            fastest = fastest.min(started.elapsed().as_secs_f64());
            drop(product);
        }
        let rate = 2.0 * (size as f64).powi(3) / fastest;
        if rate > best.flops_per_second {
            best = MeasuredRate {
                flops_per_second: rate,
                size,
            };
        }
        if fastest > ENOUGH {
            break;
        }
    }
    Ok(best)
}
