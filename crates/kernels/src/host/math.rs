//! Arithmetic on slices that compiles to the machine's vector instructions.
//!
//! The functions are written as plain loops and always inlined, so that inside [`vectorized`] they are compiled for the
//! widest instruction set that the machine has (AVX-512, AVX2, NEON), chosen at run time.

/// Numbers that a reduction carries side by side: two AVX-512 registers.
const LANES: usize = 32;

/// Runs a closure compiled for the machine's own vector instructions.
#[inline]
pub(crate) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// `sum_i f(x_i, y_i)`
#[inline(always)]
fn reduce2(x: &[f32], y: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (x_tail, y_tail) = (xs.remainder(), ys.remainder());
    for (x, y) in xs.zip(ys) {
        for lane in 0..LANES {
            lanes[lane] = f(lanes[lane], x[lane], y[lane]);
        }
    }
    let tail = x_tail
        .iter()
        .zip(y_tail)
        .fold(0.0, |sum, (x, y)| f(sum, *x, *y));
    lanes.iter().sum::<f32>() + tail
}

/// `sum_i x_i`
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    reduce2(x, x, |sum, x, _| sum + x)
}

/// `sum_i x_i y_i`
#[inline(always)]
pub(crate) fn dot(x: &[f32], y: &[f32]) -> f32 {
    reduce2(x, y, |sum, x, y| sum + x * y)
}

/// `sum_i (x_i - mean)^2`
#[inline(always)]
pub(crate) fn sum_of_squares_around(x: &[f32], mean: f32) -> f32 {
    reduce2(x, x, |sum, x, _| sum + (x - mean) * (x - mean))
}

/// The largest element; minus infinity of none, NaN if there is one.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    // The comparison is written so that NaN wins and stays.
    #[inline(always)]
    fn larger(a: f32, b: f32) -> f32 {
        if a >= b || a.is_nan() { a } else { b }
    }
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let tail = chunks.remainder();
    for x in chunks {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], x[lane]);
        }
    }
    let all = lanes.iter().chain(tail);
    all.fold(f32::NEG_INFINITY, |max, x| larger(max, *x))
}

/// `e^x` within 2 units in the last place; 0 stands for results below the normal numbers, NaN stays.
///
/// `e^x = 2^n e^r` with `n = round(x / ln 2)`, and a polynomial for `e^r` (S. Moshier's Cephes, `expf`).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const SMALLEST: f32 = -87.336_54; // of the normal results
    const LARGEST: f32 = 88.722_83;
    // Adding and subtracting it rounds to an integer, which then stands in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23
    // ln 2 in two parts, the first exact in a product with n.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;

    // Comparisons rather than `clamp`, `min` and `max`: NaN falls through them.
    let clamped = if x > LARGEST { LARGEST } else { x };
    let clamped = if clamped < SMALLEST {
        SMALLEST
    } else {
        clamped
    };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    // 2^n in two halves: for the largest x, 2^n alone would overflow.
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = exponent >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    let y = y * power(half) * power(exponent.wrapping_sub(half));
    let y = if x < SMALLEST { 0.0 } else { y };
    if x > LARGEST { f32::INFINITY } else { y }
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `tanh(x)`, within `2e-7`.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// [`tanh`] with a small relative error near 0 as well, where the difference of two numbers near 1 has lost it.
#[inline(always)]
pub(crate) fn tanh_near_zero(x: f32) -> f32 {
    // The series up to x^9: at 0.3 what is left out is below 2e-8.
    let square = x * x;
    let p = 62.0 / 2835.0;
    let p = p * square - 17.0 / 315.0;
    let p = p * square + 2.0 / 15.0;
    let p = p * square - 1.0 / 3.0;
    let near = x + x * square * p;
    if x.abs() < 0.3 { near } else { tanh(x) }
}

/// The error function, within `3e-7`, and `e^(-x^2)`, which its derivative needs.
///
/// `erf(x) = 1 - t P(t) e^(-x^2)`, `t = 1 / (1 + p x)` (Abramowitz and Stegun, 1964, formula 7.1.26).
#[inline(always)]
pub(crate) fn erf(x: f32) -> (f32, f32) {
    let magnitude = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * magnitude);
    let p = 1.061_405_4;
    let p = p * t - 1.453_152;
    let p = p * t + 1.421_413_8;
    let p = p * t - 0.284_496_74;
    let p = p * t + 0.254_829_6;
    let bell = exp(-x * x);
    ((1.0 - t * p * bell).copysign(x), bell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_library_everywhere() {
        let mut worst = 0.0f64;
        for i in -870_000..887_000 {
            let x = i as f32 * 1e-4;
            let expected = (x as f64).exp();
            worst = worst.max((exp(x) as f64 / expected - 1.0).abs());
        }
        assert!(worst < 2.5e-7, "{worst}");
    }

    #[test]
    fn exp_keeps_infinities_and_nan() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e9), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn tanh_sigmoid_and_erf_agree_with_series() {
        for i in -1000..=1000 {
            let x = i as f32 * 0.01;
            let wide = x as f64;
            assert!((tanh(x) as f64 - wide.tanh()).abs() < 3e-7, "tanh {x}");
            let error = (tanh_near_zero(x) as f64 - wide.tanh()).abs();
            assert!(error <= 1.2e-6 * wide.tanh().abs(), "tanh {x}");
            let expected = 1.0 / (1.0 + (-wide).exp());
            assert!((sigmoid(x) as f64 - expected).abs() < 2e-7, "sigmoid {x}");
        }
        // Table 7.1 of the same book.
        for (x, expected) in [
            (0.0, 0.0),
            (0.5, 0.520_499_9),
            (1.0, 0.842_700_8),
            (2.0, 0.995_322_3),
        ] {
            assert!((erf(x).0 - expected).abs() < 4e-7, "erf {x}");
            assert_eq!(erf(-x).0, -erf(x).0);
        }
    }

    #[test]
    fn reductions_take_every_element_once() {
        for n in [0, 1, 31, 32, 33, 100] {
            let x: Vec<f32> = (0..n).map(|i| i as f32 - 3.0).collect();
            let ones = vec![1.0; n];
            let expected: f32 = x.iter().sum();
            assert_eq!(sum(&x), expected);
            assert_eq!(dot(&x, &ones), expected);
            let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(max(&x), largest);
        }
        assert!(max(&[1.0, f32::NAN, 2.0]).is_nan());
    }
}
