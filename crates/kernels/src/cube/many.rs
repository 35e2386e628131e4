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

/// A row of cubes for each tensor, as long as the longest of them needs, or as a device can have it: units go on by
/// [`stride`].
pub(super) fn cubes_for_longest(tensors: &[&CubeTensor], size: usize) -> CubeCount {
    let sizes = tensors
        .iter()
        .map(|tensor| tensor.meta.num_elements() / size);
    let longest = sizes.max().unwrap_or(1);
    rows_of_cubes(&tensors[0].client, longest, tensors.len())
}

/// So many rows of cubes, for so many pieces of work or less in each.
pub(super) fn rows_of_cubes(client: &Client, pieces: usize, rows: usize) -> CubeCount {
    // Few in tests, so that units of theirs go on, too.
    let wanted = if cfg!(test) { 3 } else { u32::MAX };
    let most = client.properties().hardware.max_cube_count.0.min(wanted);
    let cubes = pieces.div_ceil(UNITS as usize).max(1);
    CubeCount::Static(cubes.min(most as usize) as u32, rows as u32, 1)
}

/// From one piece of a unit's work to its next.
#[cube]
pub(super) fn stride() -> usize {
    (CUBE_COUNT_X * CUBE_DIM_X) as usize
}
