use burn::tensor::{Device, Tensor};

/// Pages are at least this share of what is loaded before the first step, and within these bounds.
const SHARE: u64 = 8;
const LEAST_BYTES: u64 = 32 << 20;
const MOST_BYTES: u64 = 512 << 20;

/// Keeps a GPU's allocator from holding the memory of a step twice.
///
/// CubeCL carves tensors out of pages that are a little larger than the largest tensor so far. When a larger one comes, as
/// logits do behind the first forward, all that follows goes to larger pages, and the empty ones of the old size stay
/// reserved until somebody asks for a cleanup. So pages are made large before the first step, and cleaned up after the steps
/// 1, 2, 4, 8 and so on, since batches differ in length.
///
/// On devices without such an allocator it does nothing.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    steps: usize,
}

impl Pages {
    /// To be called when the model is on its device, and before the first step.
    pub fn new(device: &Device) -> Self {
        let device = device.clone().without_autodiff();
        let loaded = device
            .memory_pool_usage()
            .map_or(0, |usage| usage.bytes_in_use);
        let wanted = page_bytes(loaded);
        if wanted > 0 {
            drop(Tensor::<1>::empty(
                [wanted as usize / size_of::<f32>()],
                &device,
            ));
        }
        Self::default()
    }

    /// To be called after every step.
    pub fn stepped(&mut self, device: &Device) {
        self.steps += 1;
        if self.steps.is_power_of_two() {
            device.memory_cleanup();
        }
    }
}

/// A power of two, of which tensors of a model's usual sizes leave little over; or 0 for a small model.
fn page_bytes(loaded: u64) -> u64 {
    match loaded / SHARE {
        ..LEAST_BYTES => 0,
        share => 1 << share.min(MOST_BYTES).ilog2(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_grow_with_the_model_up_to_a_bound() {
        assert_eq!(page_bytes(100 << 20), 0);
        assert_eq!(page_bytes(256 << 20), 32 << 20);
        assert_eq!(page_bytes(2200 << 20), 256 << 20);
        assert_eq!(page_bytes(16 << 30), 512 << 20);
    }
}
