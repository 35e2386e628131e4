//! Numbers of one tensor after the other, with nothing between them.

use burn::tensor::DType;
use burn_cubecl::kernel::cast;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::many::{self, batches, buffers, cubes_for_longest, lengths, stride};
use super::memory::{UNITS, buffer, contiguous, cubes_for, elem, empty, vector_size};

/// How many vectors a tensor's memory has, and of what size.
fn split(tensors: &[&CubeTensor]) -> (usize, usize) {
    let total = tensors[0].meta.num_elements();
    let size = vector_size(tensors, total);
    (total / size, size)
}

/// Numbers times a number, in this dtype.
pub(super) fn times(numbers: CubeTensor, factor: f32, dtype: DType) -> CubeTensor {
    if factor == 1.0 {
        return cast(numbers, dtype);
    }
    let target = CubeTensor {
        meta: numbers.meta.clone(),
        ..empty(&numbers, numbers.meta.shape(), dtype)
    };
    scale(&numbers, None, factor, &target);
    target
}

/// Numbers times a number that stays on the device, in their own memory where nobody else has it.
pub(super) fn times_scalar(numbers: CubeTensor, factor: &CubeTensor) -> CubeTensor {
    let target = match numbers.can_mut() {
        true => numbers.clone(),
        false => CubeTensor {
            meta: numbers.meta.clone(),
            ..empty(&numbers, numbers.meta.shape(), numbers.dtype)
        },
    };
    scale(&numbers, Some(factor), 1.0, &target);
    target
}

/// Tensors in this dtype without gaps; those of one other dtype by one launch.
pub(super) fn casts<const N: usize>(tensors: [&CubeTensor; N], dtype: DType) -> [CubeTensor; N] {
    let mut all = tensors.map(|tensor| contiguous(tensor.clone()));
    let other = all
        .iter()
        .map(|tensor| tensor.dtype)
        .find(|own| *own != dtype);
    let others = all.iter_mut().filter(|tensor| tensor.dtype != dtype);
    let (mut alike, rest): (Vec<_>, Vec<_>) =
        others.partition(|tensor| Some(tensor.dtype) == other);
    for tensor in rest {
        *tensor = cast(tensor.clone(), dtype);
    }
    let step = (alike.first()).map_or(1, |first| batches(&first.client, 2));
    for alike in alike.chunks_mut(step) {
        let numbers: Vec<&CubeTensor> = alike.iter().map(|tensor| &**tensor).collect();
        let new: Vec<CubeTensor> = (numbers.iter())
            .map(|tensor| empty(tensor, tensor.meta.shape(), dtype))
            .collect();
        let targets: Vec<&CubeTensor> = new.iter().collect();
        let size = many::vector_size(&numbers);
        // SAFETY: every unit looks first whether its place exists.
        unsafe {
            cast_all::launch_unchecked(
                &new[0].client,
                cubes_for_longest(&numbers, size),
                CubeDim::new_1d(UNITS),
                size,
                buffers(&numbers),
                buffers(&targets),
                lengths(&numbers, size),
                numbers.len(),
                [elem(numbers[0]), elem(targets[0])],
            );
        }
        for (tensor, new) in alike.iter_mut().zip(new) {
            **tensor = new;
        }
    }
    all
}

#[cube(launch_unchecked)]
fn cast_all<X: Float, Y: Float, N: Size>(
    numbers: &Sequence<Box<[Vector<X, N>]>>,
    targets: &mut Sequence<Box<[Vector<Y, N>]>>,
    lengths: &Sequence<usize>,
    #[comptime] tensors: usize,
    #[define(X, Y)] _types: [ElemType; 2],
) {
    let which = CUBE_POS_Y as usize;
    #[unroll]
    for t in 0..tensors {
        if which == t {
            let (from, target) = (numbers.index(t), targets.index_mut(t));
            for at in range_stepped(ABSOLUTE_POS_X as usize, lengths[t], stride()) {
                target[at] = Vector::cast_from(from[at]);
            }
        }
    }
}

/// Writes numbers to another tensor of as many.
#[cfg(feature = "cuda")]
pub(super) fn copy(numbers: &CubeTensor, target: &CubeTensor) {
    scale(numbers, None, 1.0, target);
}

fn scale(numbers: &CubeTensor, scalar: Option<&CubeTensor>, factor: f32, target: &CubeTensor) {
    let (count, size) = split(&[numbers, target]);
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
            buffer(target),
            count,
            factor,
            scalar.is_some(),
            [elem(numbers), elem(first), elem(target)],
        );
    }
}

#[cube(launch_unchecked)]
fn scale_all<X: Float, F: Float, Y: Float, N: Size>(
    numbers: &[Vector<X, N>],
    scalar: &[F],
    target: &mut [Vector<Y, N>],
    count: usize,
    factor: f32,
    #[comptime] by_scalar: bool,
    #[define(X, F, Y)] _types: [ElemType; 3],
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
