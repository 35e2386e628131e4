//! The devices that the comparisons run on, and which of them a process takes.

#[cfg(all(feature = "cube", feature = "flex"))]
use std::cell::Cell;

use burn::tensor::Device;

pub(super) fn devices() -> Vec<Device> {
    vec![
        #[cfg(feature = "flex")]
        wanted("flex", || Device::flex().autodiff()),
        #[cfg(feature = "ndarray")]
        #[expect(deprecated, reason = "so Burn 0.22 calls it, and still has it")]
        wanted("ndarray", || Device::ndarray().autodiff()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A device, if the tests are to run on it.
pub(super) fn wanted(name: &str, device: impl Fn() -> Device) -> Option<Device> {
    let on_cpu = ["flex", "ndarray"].contains(&name);
    let named = match std::env::var("BURN_LORA_TEST_DEVICES") {
        Ok(names) => names.split(',').any(|each| each.trim() == name),
        Err(_) => on_cpu,
    };
    named.then(device)
}

/// The GPUs that the tests are to run on.
#[cfg(feature = "cube")]
pub(crate) fn gpus() -> Vec<Device> {
    vec![
        #[cfg(feature = "cuda")]
        wanted("cuda", || Device::cuda(0).autodiff()),
        #[cfg(feature = "vulkan")]
        wanted("vulkan", || {
            Device::vulkan(burn::tensor::DeviceKind::DefaultDevice).autodiff()
        }),
        #[cfg(feature = "wgpu")]
        wanted("wgpu", || {
            Device::wgpu(burn::tensor::DeviceKind::DefaultDevice).autodiff()
        }),
        // WGSL, whatever other compilers are built in.
        #[cfg(feature = "wgpu")]
        wanted("gl", || {
            use burn::backend::{WgpuBackend, WgpuDevice, WgpuDeviceKind};
            let device = WgpuDevice::new(WgpuDeviceKind::DefaultDevice);
            Device::new(device.on(WgpuBackend::Gl)).autodiff()
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The cases of a test that this process runs on a GPU.
#[cfg(all(feature = "cube", feature = "flex"))]
#[derive(Default)]
pub(crate) struct Shard(Cell<usize>);

#[cfg(all(feature = "cube", feature = "flex"))]
impl Shard {
    /// Whether the next case is one of them.
    pub(crate) fn has_next(&self) -> bool {
        let index = self.0.replace(self.0.get() + 1);
        let Ok(shard) = std::env::var("BURN_LORA_TEST_SHARD") else {
            return true;
        };
        let numbers = shard
            .split_once('/')
            .map(|(own, all)| (own.parse(), all.parse()));
        let Some((Ok(own), Ok(all))) = numbers else {
            panic!("BURN_LORA_TEST_SHARD is \"{shard}\", not as \"2/8\"");
        };
        let (own, all): (usize, usize) = (own, all);
        index % all == own % all
    }
}

/// The devices of all kinds.
pub(super) fn all_devices() -> Vec<Device> {
    #[cfg(feature = "cube")]
    let gpus = gpus();
    #[cfg(not(feature = "cube"))]
    let gpus = Vec::new();
    [devices(), gpus].concat()
}
