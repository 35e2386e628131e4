use burn::tensor::{Device, Tensor};

/// Pages are at least this share of what is loaded before the first step, and within these bounds.
const SHARE: u64 = 8;
const LEAST_BYTES: u64 = 32 << 20;
const MOST_BYTES: u64 = 512 << 20;

/// What is reserved has grown if it is so much of itself more.
const GROWN: u64 = 8;

/// Keeps a GPU's allocator from holding the memory of a step twice.
///
/// CubeCL carves tensors out of pages that are a little larger than the largest tensor so far. When a larger one comes, as
/// logits do behind the first forward, all that follows goes to larger pages, and the empty ones of the old size stay
/// reserved until somebody asks for a cleanup. So pages are made large before the first step, and cleaned up after it. Since batches
/// differ in length, they are cleaned up again after the steps 4, 8, 16 and so on if more has been reserved since: not
/// otherwise, for the step after a cleanup asks the driver for all of its memory again, which takes as long as a step or two.
///
/// On devices without such an allocator it does nothing.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    steps: usize,
    /// What was reserved after the first step behind the last cleanup.
    settled: Option<u64>,
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
        let reserved = || {
            let usage = device.memory_pool_usage();
            usage.map_or(0, |usage| usage.bytes_reserved)
        };
        if self.wants_cleanup(reserved) {
            device.memory_cleanup();
        }
    }

    /// Whether to clean up after this step, with these bytes reserved.
    fn wants_cleanup(&mut self, reserved: impl Fn() -> u64) -> bool {
        self.steps += 1;
        let wants = match self.settled {
            _ if self.steps == 1 => true,
            None => {
                self.settled = Some(reserved());
                false
            }
            Some(settled) => self.steps.is_power_of_two() && reserved() > settled + settled / GROWN,
        };
        if wants {
            self.settled = None;
        }
        wants
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

    #[test]
    fn pages_are_cleaned_up_after_the_first_step_and_where_they_have_grown() {
        let cleaned = |reserved: &dyn Fn(usize) -> u64| -> Vec<usize> {
            let mut pages = Pages::default();
            let wants = |step: &usize| pages.wants_cleanup(|| reserved(*step));
            (1..=64).filter(wants).collect()
        };
        assert_eq!(cleaned(&|_| 900), [1]);
        // A longer batch in step 6, and what follows has its pages until the next cleanup.
        assert_eq!(cleaned(&|step| if step < 6 { 900 } else { 1900 }), [1, 8]);
        // A little more is no growth.
        assert_eq!(cleaned(&|step| 900 + step as u64), [1]);
        // Ever longer ones.
        assert_eq!(cleaned(&|step| 1 << step.min(40)), [1, 4, 8, 16, 32, 64]);
        assert_eq!(cleaned(&|_| 0), [1]);
    }
}
