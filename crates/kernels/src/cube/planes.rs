//! The matrices that the units of a plane hold together, and the devices that multiply them.

use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;
use cubecl::features::Plane;
use cubecl::ir::{ElemType, FloatKind};

use super::memory::elem;

/// Their side.
pub(super) const SIDE: usize = 16;

/// Planes of a cube.
pub(super) const PLANES: usize = 4;

/// The units of a plane, where the device multiplies such matrices of a tensor's numbers with sums in `f32`, and a cube can have
/// so many bytes of shared memory. A processor has that of several cubes: through Vulkan an H200's takes two of 24.5 KiB, and one of
/// more (docs/measurements.md).
pub(super) fn plane_of(tensor: &CubeTensor, bytes: usize) -> Option<usize> {
    let properties = tensor.client.properties();
    let hardware = &properties.hardware;
    let plane = hardware.plane_size_max;
    let sums = ElemType::Float(FloatKind::F32);
    // Others multiply them too, but no test of ours has seen it.
    let tested = matches!(tensor.device, CubeDevice::Wgpu(_));
    let fits = tested
        && hardware.plane_size_min == plane
        && [16, 32, 64].contains(&plane)
        && properties.features.plane.contains(Plane::Ops)
        && properties.features.plane.contains(Plane::Sync)
        && hardware.max_shared_memory_size >= bytes
        && properties.features.matmul.cmma.iter().any(|config| {
            config.a_type == elem(tensor)
                && config.b_type == elem(tensor)
                && config.cd_type == sums
                && [config.m, config.n, config.k] == [SIDE as u32; 3]
        });
    fits.then_some(plane as usize)
}
