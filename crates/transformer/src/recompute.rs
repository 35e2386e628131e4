use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use burn_lora_adapter::drops_inputs;
use burn_lora_kernels::recompute;

/// How the blocks of one forward are run: as usual, or keeping only what goes into them (PyTorch's and PEFT's "gradient
/// checkpointing").
pub(crate) struct Recomputation {
    /// How many blocks are computed again. The first ones: their backward comes last, when what the others kept is gone.
    blocks: usize,
    /// Where blocks draw random numbers, what the second forward needs to draw the same ones.
    seed: Option<u64>,
}

impl Recomputation {
    /// Draws its seed from the device, so that a run that seeds the device repeats itself. This is the one number that is
    /// read back from it, and only where there is dropout.
    pub(crate) fn new<M: Module>(blocks: usize, model: &M, device: &Device) -> Self {
        let seed = (blocks > 0 && drops_inputs(model)).then(|| {
            let range = Distribution::Uniform(0.0, (1 << 24) as f64);
            Tensor::<1>::random([1], range, device).into_scalar::<f32>() as u64
        });
        Self { blocks, seed }
    }

    /// Whether the block of this index is computed again.
    pub(crate) fn has(&self, index: usize) -> bool {
        index < self.blocks
    }

    /// The block of this index.
    pub(crate) fn run<M: Module + 'static, const D: usize>(
        &self,
        index: usize,
        block: &M,
        x: Tensor<D>,
        forward: impl Fn(&M, Tensor<D>) -> Tensor<D> + Send + 'static,
    ) -> Tensor<D> {
        if !self.has(index) {
            return forward(block, x);
        }
        // Seeds of neighbouring blocks are far apart.
        let seed = self.seed.map(|seed| seed << 24 | index as u64);
        recompute(block, x, seed, forward)
    }
}
