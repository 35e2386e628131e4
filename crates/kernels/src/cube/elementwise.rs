//! Numbers of one tensor after the other, with nothing between them.

use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::memory::{UNITS, buffer, cubes_for, elem, empty, vector_size};

/// How many vectors a tensor's memory has, and of what size.
fn split(tensors: &[&CubeTensor]) -> (usize, usize) {
    let total = tensors[0].meta.num_elements();
    let size = vector_size(tensors, total);
    (total / size, size)
}

/// The memory for a result in the form of an operand: its own where nobody else has it.
fn place_for(numbers: &CubeTensor) -> CubeTensor {
    match numbers.can_mut() {
        true => numbers.clone(),
        false => CubeTensor {
            meta: numbers.meta.clone(),
            ..empty(numbers, numbers.meta.shape(), numbers.dtype)
        },
    }
}

/// Numbers times a number.
pub(super) fn times(numbers: CubeTensor, factor: f32) -> CubeTensor {
    scale(&numbers, None, factor)
}

/// Numbers times a number that stays on the device.
pub(super) fn times_scalar(numbers: CubeTensor, factor: &CubeTensor) -> CubeTensor {
    scale(&numbers, Some(factor), 1.0)
}

fn scale(numbers: &CubeTensor, scalar: Option<&CubeTensor>, factor: f32) -> CubeTensor {
    let target = place_for(numbers);
    let (count, size) = split(&[numbers]);
    let first = scalar.unwrap_or(numbers);
    // SAFETY: every unit looks first whether its place exists.
    unsafe {
        scale_all::launch_unchecked(
            &numbers.client,
            cubes_for(&numbers.client, count),
            CubeDim::new_1d(UNITS),
            size,
            buffer(numbers),
            buffer(first),
            buffer(&target),
            count,
            factor,
            scalar.is_some(),
            [elem(numbers), elem(first)],
        );
    }
    target
}

#[cube(launch_unchecked)]
fn scale_all<X: Float, F: Float, N: Size>(
    numbers: &[Vector<X, N>],
    scalar: &[F],
    target: &mut [Vector<X, N>],
    count: usize,
    factor: f32,
    #[comptime] by_scalar: bool,
    #[define(X, F)] _types: [ElemType; 2],
) {
    if ABSOLUTE_POS < count {
        let mut factor = factor;
        if comptime!(by_scalar) {
            factor = f32::cast_from(scalar[0]);
        }
        let x = Vector::<f32, N>::cast_from(numbers[ABSOLUTE_POS]);
        target[ABSOLUTE_POS] = Vector::cast_from(x * Vector::new(factor));
    }
}

/// Adds `f32` numbers to others where they lie.
pub(super) fn add(sum: CubeTensor, more: &CubeTensor) -> CubeTensor {
    let (count, size) = split(&[&sum, more]);
    // SAFETY: every unit looks first whether its place exists.
    unsafe {
        add_all::launch_unchecked(
            &sum.client,
            cubes_for(&sum.client, count),
            CubeDim::new_1d(UNITS),
            size,
            buffer(&sum),
            buffer(more),
            count,
        );
    }
    sum
}

#[cube(launch_unchecked)]
fn add_all<N: Size>(sum: &mut [Vector<f32, N>], more: &[Vector<f32, N>], count: usize) {
    if ABSOLUTE_POS < count {
        sum[ABSOLUTE_POS] += more[ABSOLUTE_POS];
    }
}
