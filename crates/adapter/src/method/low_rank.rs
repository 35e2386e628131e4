//! LoRA itself, as one of the methods; its formula is on [`Lora`].

use burn::module::Param;
use burn::tensor::{DType, Tensor};
use burn_lora_kernels::{LowRank, add_low_rank};

use super::AdapterMethod;
use crate::lora::{Lora, cast};

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

    fn compose(&self, weight: Tensor<2>, _base: &Tensor<2>) -> Tensor<2> {
        weight + cast(self.delta(), DType::F32)
    }

    fn low_rank(&self) -> Option<LowRank> {
        Some(self.factors())
    }

    fn apply(&self, y: Tensor<2>, x: Tensor<2>, _base: &Tensor<2>) -> Tensor<2> {
        add_low_rank(y, x, self.factors())
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
