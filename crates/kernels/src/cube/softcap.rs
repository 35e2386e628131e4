//! Numbers bounded by `c tanh(z / c)`.

use cubecl::prelude::*;

/// `c tanh(z / c)`, or z itself.
#[cube]
pub(super) fn bounded<N: Size>(
    z: Vector<f32, N>,
    cap: f32,
    #[comptime] capped: bool,
) -> Vector<f32, N> {
    if comptime!(capped) {
        tanh_of::<N>(z, cap) * Vector::new(cap)
    } else {
        z
    }
}

/// `tanh(z / c)`, by an exponential that is at most 1: not every device's own is right for large numbers.
#[cube]
fn tanh_of<N: Size>(z: Vector<f32, N>, cap: f32) -> Vector<f32, N> {
    let one = Vector::<f32, N>::new(1.0f32);
    let zero = Vector::<f32, N>::new(0.0f32);
    let x = z / Vector::new(cap);
    let e = (x.abs() * Vector::new(-2.0f32)).exp();
    let size = (one - e) / (one + e);
    // With the sign of x; NaN stays NaN.
    max(min(x * Vector::new(1.0e30f32), size), zero - size)
}

/// `1 - tanh(z / c)^2`, without the difference of two numbers near 1.
#[cube]
pub(super) fn slope_of<N: Size>(z: Vector<f32, N>, cap: f32) -> Vector<f32, N> {
    let one = Vector::<f32, N>::new(1.0f32);
    let x = z / Vector::new(cap);
    let e = (x.abs() * Vector::new(-2.0f32)).exp();
    let sum = one + e;
    Vector::new(4.0f32) * e / (sum * sum)
}
