//! LoRA itself, as one of the methods; its formula is on [`Lora`].

use burn::module::Param;
use burn::tensor::Tensor;
use burn_lora_kernels::LowRank;

use super::AdapterMethod;
use crate::lora::Lora;

impl Lora {
    /// The change as the kernels take it.
    pub(crate) fn factors(&self) -> LowRank {
        LowRank {
            a: self.a.val(),
            b: self.b.val(),
            scale: self.scale,
        }
    }
}

impl AdapterMethod for Lora {
    fn parameters(&self) -> Vec<&Param<Tensor<2>>> {
        vec![&self.a, &self.b]
    }

    fn low_rank(&self) -> Option<LowRank> {
        Some(self.factors())
    }

    fn dropout(&self) -> f64 {
        self.dropout
    }

    fn scale(&self) -> Option<f64> {
        Some(self.scale)
    }

    fn rank(&self) -> Option<usize> {
        Some(self.rank())
    }
}
