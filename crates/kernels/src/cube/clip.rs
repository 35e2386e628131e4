//! The common norm of gradients, and their clipping by it, without anybody waiting for a number.

use burn::backend::{BackendTensor, Cube, DispatchAutodiffContext, DispatchTensor};
use burn::tensor::{DType, Tensor};
use burn_cubecl::kernel::cast;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::apply::{primitive, same};
use super::many::{batches, buffers, cubes_for_longest, lengths, stride, vector_size};
use super::memory::{UNITS, contiguous, empty};
use super::reduce::{Team, cube_sum};
use crate::clip::Clipped;
use crate::packed::Packed;

/// Cubes that add up the squares of one tensor.
const PARTS: usize = 32;

/// The gradients times `min(1, max_norm / (norm + tiny))`, where the norm is that of all together; as they are without a
/// `max_norm`.
pub(crate) fn clip(gradients: Vec<Tensor<1>>, max_norm: Option<f32>, tiny: f32) -> Clipped {
    let given = max_norm.is_none().then(|| gradients.clone());
    let gradients: Vec<_> = gradients
        .into_iter()
        .map(|gradient| contiguous(cast(primitive(gradient), DType::F32)))
        .collect();
    let Some(first) = gradients.first() else {
        return Clipped {
            gradients: Vec::new(),
            norm: None,
        };
    };
    let client = first.client.clone();
    let sums = empty(first, &[gradients.len() * PARTS], DType::F32);
    let factor = empty(first, &[1], DType::F32);
    let norm = empty(first, &[1], DType::F32);
    let step = batches(&client, 1);
    for (index, part) in gradients.chunks(step).enumerate() {
        let part: Vec<&CubeTensor> = part.iter().collect();
        let size = vector_size(&part);
        let team = Team::new(&client, UNITS as usize);
        // SAFETY: every unit looks where its tensor ends.
        unsafe {
            squares::launch_unchecked(
                &client,
                CubeCount::Static(PARTS as u32, part.len() as u32, 1),
                team.dim(),
                size,
                buffers(&part),
                lengths(&part, size),
                super::memory::buffer(&sums),
                index * step,
                part.len(),
                team,
            );
        }
    }
    let team = Team::new(&client, gradients.len() * PARTS);
    // SAFETY: one cube, each unit of which looks where the sums end.
    unsafe {
        factor_of::launch_unchecked(
            &client,
            CubeCount::Static(1, 1, 1),
            team.dim(),
            super::memory::buffer(&sums),
            super::memory::buffer(&factor),
            super::memory::buffer(&norm),
            gradients.len() * PARTS,
            max_norm.unwrap_or(f32::INFINITY),
            tiny,
            team,
        );
    }
    let tensor = |target: CubeTensor| {
        Tensor::from_dispatch(DispatchTensor {
            kind: Cube::pack(BackendTensor::Float(same(target))),
            autodiff: DispatchAutodiffContext::Disabled,
        })
    };
    let norm = Some(tensor(norm));
    if let Some(gradients) = given {
        return Clipped { gradients, norm };
    }
    // Nobody else has what was copied; what somebody has is left as it is.
    let targets: Vec<CubeTensor> = gradients
        .into_iter()
        .map(|gradient| match gradient.can_mut() {
            true => gradient,
            false => gradient.copy(),
        })
        .collect();
    for part in targets.chunks(step) {
        let part: Vec<&CubeTensor> = part.iter().collect();
        let size = vector_size(&part);
        // SAFETY: every unit looks first whether its place exists.
        unsafe {
            scale::launch_unchecked(
                &client,
                cubes_for_longest(&part, size),
                CubeDim::new_1d(UNITS),
                size,
                buffers(&part),
                lengths(&part, size),
                super::memory::buffer(&factor),
                part.len(),
            );
        }
    }
    Clipped {
        gradients: targets.into_iter().map(tensor).collect(),
        norm,
    }
}

#[cube(launch_unchecked)]
fn squares<N: Size>(
    gradients: &Sequence<Box<[Vector<f32, N>]>>,
    lengths: &Sequence<usize>,
    sums: &mut [f32],
    first: usize,
    #[comptime] tensors: usize,
    #[comptime] team: Team,
) {
    let which = CUBE_POS_Y as usize;
    let part = CUBE_POS_X as usize;
    let from = part * comptime!(team.units as usize) + UNIT_POS as usize;
    let stride = comptime!(PARTS * team.units as usize);
    let mut own = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for t in 0..tensors {
        if which == t {
            let gradient = gradients.index(t);
            for i in range_stepped(from, lengths[t], stride) {
                let g = gradient[i];
                own += g * g;
            }
        }
    }
    let sum = cube_sum(Vector::vector_sum(own), team);
    if UNIT_POS == 0 {
        sums[(first + which) * comptime!(PARTS) + part] = sum;
    }
}

#[cube(launch_unchecked)]
fn factor_of(
    sums: &[f32],
    factor: &mut [f32],
    norm: &mut [f32],
    count: usize,
    max_norm: f32,
    tiny: f32,
    #[comptime] team: Team,
) {
    let mut own = 0.0f32;
    for i in range_stepped(UNIT_POS as usize, count, comptime!(team.units as usize)) {
        own += sums[i];
    }
    let sum = cube_sum(own, team);
    if UNIT_POS == 0 {
        norm[0] = sum.sqrt();
        factor[0] = min(max_norm / (sum.sqrt() + tiny), 1.0f32);
    }
}

#[cube(launch_unchecked)]
fn scale<N: Size>(
    gradients: &mut Sequence<Box<[Vector<f32, N>]>>,
    lengths: &Sequence<usize>,
    factor: &[f32],
    #[comptime] tensors: usize,
) {
    let which = CUBE_POS_Y as usize;
    #[unroll]
    for t in 0..tensors {
        if which == t {
            let gradient = gradients.index_mut(t);
            for at in range_stepped(ABSOLUTE_POS_X as usize, lengths[t], stride()) {
                gradient[at] *= Vector::new(factor[0]);
            }
        }
    }
}
