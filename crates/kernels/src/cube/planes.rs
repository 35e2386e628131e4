//! The matrices that the units of a plane hold together, and the devices that multiply them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use burn::tensor::DType;
use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cmma::{self, Matrix, MatrixIdent, MatrixLayout};
use cubecl::features::Plane;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;

use super::memory::{buffer, elem, empty};

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

/// Whether the units of a plane of 32 hold a matrix of 16 x 16 sums as on NVIDIA's tensor cores, and compute with each number where
/// it is: two rows, eight apart, are four units', of which each has two columns next to each other and those eight behind.
///
/// No property says so, so that a kernel asks the device, once. It is not asked where matrices of whole cubes are unknown:
/// functions of single numbers came with these (`VK_NV_cooperative_matrix2`).
pub(super) fn holds_pairs(tensor: &CubeTensor, planes: Planes) -> bool {
    static KNOWN: Mutex<Option<HashMap<CubeDevice, bool>>> = Mutex::new(None);
    let fits = planes.units == 32 && planes.side == 16;
    if !fits
        || tensor
            .client
            .properties()
            .features
            .matmul
            .cube_mma
            .is_empty()
    {
        return false;
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_with(HashMap::new);
    *known
        .entry(tensor.device.clone())
        .or_insert_with(|| ask_for_pairs(tensor))
}

fn ask_for_pairs(tensor: &CubeTensor) -> bool {
    let owners = empty(tensor, &[16, 16], DType::F32);
    // SAFETY: one plane writes all of the matrix.
    unsafe {
        owners_of_numbers::launch_unchecked(
            &owners.client,
            CubeCount::Static(1, 1, 1),
            CubeDim::new_1d(32),
            buffer(&owners),
        );
    }
    let Ok(bytes) = owners.client.read_one(owners.handle.clone()) else {
        return false;
    };
    let expected = (0..256).map(|at| {
        let (row, column) = (at / 16, at % 16);
        let unit = row % 8 * 4 + column % 8 / 2;
        (unit * 256 + at) as f32
    });
    f32::from_bytes(&bytes).iter().copied().eq(expected)
}

/// For each number of a matrix its unit, times 256, and its place, as the function of numbers is told.
#[cube(launch_unchecked)]
fn owners_of_numbers(owners: &mut [f32]) {
    let matrix = zero(16usize);
    let unit = UNIT_POS_X;
    cmma::execute_elementwise_op(&matrix, &matrix, |row, column, _number| {
        f32::cast_from(unit * 256 + row * 16 + column)
    });
    cmma::store(owners, &matrix, 16u32, MatrixLayout::RowMajor);
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
