//! The matrices that the units of a plane hold together, and the devices that multiply them.

use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cmma::{Matrix, MatrixIdent, MatrixLayout};
use cubecl::features::Plane;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;

use super::memory::elem;

/// Planes of a cube.
pub(super) const PLANES: usize = 4;

/// The planes of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Planes {
    /// Units of a plane.
    pub(super) units: usize,
    /// Of the matrices, which are squares.
    pub(super) side: usize,
}

impl Planes {
    /// Those that multiply matrices of a tensor's numbers with sums in `f32`, where a cube can have so many bytes of shared memory.
    ///
    /// A processor has the memory of several cubes: through Vulkan an H200's takes two of 24.5 KiB, and one of more
    /// (docs/measurements.md).
    pub(super) fn of(tensor: &CubeTensor, bytes: impl Fn(Self) -> usize) -> Option<Self> {
        // Others multiply such matrices, too, but no test of ours has seen it.
        if !matches!(tensor.device, CubeDevice::Wgpu(_)) {
            return None;
        }
        let properties = tensor.client.properties();
        let hardware = &properties.hardware;
        let sums = ElemType::Float(FloatKind::F32);
        let multiplies = |side: usize| {
            properties.features.matmul.cmma.iter().any(|config| {
                config.a_type == elem(tensor)
                    && config.b_type == elem(tensor)
                    && config.cd_type == sums
                    && [config.m, config.n, config.k] == [side as u32; 3]
            })
        };
        let units = hardware.plane_size_max as usize;
        let known = hardware.plane_size_min == hardware.plane_size_max;
        let fits = |planes: &Self| {
            let sharers = planes.sharers();
            // Whole rows of a matrix, and whole fours of a row, for each unit.
            known
                && units == sharers * planes.side
                && [1, 2, 4].contains(&sharers)
                && planes.side / 4 >= sharers
                && multiplies(planes.side)
                && properties.features.plane.contains(Plane::Sync)
                // By which units that share a row compare their parts of it.
                && (sharers == 1 || properties.features.plane.contains(Plane::Ops))
                && hardware.max_shared_memory_size >= bytes(*planes)
        };
        let sides = [16, 8].into_iter();
        sides.map(|side| Self { units, side }).find(fits)
    }

    /// Units that share a row of a matrix.
    pub(super) fn sharers(self) -> usize {
        self.units / self.side
    }
}

/// A matrix of sums, which are zeros.
#[cube]
pub(super) fn zero(#[comptime] side: usize) -> Matrix<f32> {
    Matrix::<f32>::from_value(
        MatrixIdent::Accumulator,
        side,
        side,
        side,
        MatrixLayout::Undefined,
        0.0f32,
    )
}

/// So many of them.
#[cube]
pub(super) fn zeros(#[comptime] count: usize, #[comptime] side: usize) -> Sequence<Matrix<f32>> {
    let mut sums = Sequence::<Matrix<f32>>::new();
    #[unroll]
    for _ in 0..count {
        sums.push(zero(side));
    }
    sums
}
