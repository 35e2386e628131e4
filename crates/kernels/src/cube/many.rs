//! Several tensors in one launch: each row of cubes has one of them.

use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::prelude::*;

use super::memory::{UNITS, buffer};

/// More tensors at a time would make the kernel long, and save little.
const MOST: usize = 16;

/// How many tensors a kernel may have at a time that takes so many buffers for each.
pub(super) fn batches(client: &Client, each: usize) -> usize {
    let bindings = client.properties().hardware.max_bindings as usize;
    // One is the results', one the sizes'.
    (bindings.saturating_sub(2) / each).clamp(1, MOST)
}

/// How many numbers a kernel may read at a time, of each of these tensors without gaps.
pub(super) fn vector_size(tensors: &[&CubeTensor]) -> usize {
    let sizes = tensors.iter().map(|tensor| {
        let total = tensor.meta.num_elements();
        super::memory::vector_size(&[tensor], total)
    });
    sizes.min().unwrap_or(1)
}

/// Whether a row of cubes can have as many units as a tensor has numbers.
pub(super) fn fits(tensor: &CubeTensor) -> bool {
    let most = tensor.client.properties().hardware.max_cube_count.0;
    tensor.meta.num_elements().div_ceil(UNITS as usize) <= most as usize
}

pub(super) fn buffers<T: LaunchArg<RuntimeArg = BufferArg>>(
    tensors: &[&CubeTensor],
) -> SequenceArg<T> {
    let mut all = SequenceArg::new();
    tensors.iter().for_each(|tensor| all.push(buffer(tensor)));
    all
}

/// Each tensor's number of vectors.
pub(super) fn lengths(tensors: &[&CubeTensor], size: usize) -> SequenceArg<usize> {
    let mut all = SequenceArg::new();
    let sizes = tensors
        .iter()
        .map(|tensor| tensor.meta.num_elements() / size);
    sizes.for_each(|size| all.push(size));
    all
}

pub(super) fn cubes_for_longest(tensors: &[&CubeTensor], size: usize) -> CubeCount {
    let sizes = tensors
        .iter()
        .map(|tensor| tensor.meta.num_elements() / size);
    let longest = sizes.max().unwrap_or(1);
    let cubes = longest.div_ceil(UNITS as usize).max(1);
    CubeCount::Static(cubes as u32, tensors.len() as u32, 1)
}
