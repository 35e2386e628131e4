use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use burn_lora_kernels::{add_low_rank, projection};

use super::AdapterMethod;
use crate::lora::{Lora, cast, drop_inputs, is_trained};

/// LoRA under a trained magnitude for each output (Liu et al., 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation",
/// arXiv:2402.09353).
///
/// `W' = m / ||W + s A B|| (W + s A B)`, the norm over each column. As the paper's section 4.3 has it, no gradient passes
/// through the norm.
#[derive(Module, Debug)]
pub struct Dora {
    /// The direction.
    pub lora: Lora,
    /// The magnitude of each output, `[1, d_out]`.
    pub magnitude: Param<Tensor<2>>,
}

impl Dora {
    /// What each column is multiplied by, `[1, d_out]`, f32.
    fn factor(&self, base: &Tensor<2>) -> Tensor<2> {
        let direction = cast(base.clone(), DType::F32) + cast(self.lora.delta(), DType::F32);
        self.magnitude.val() / column_norms(direction.detach())
    }
}

/// The length of each column, `[1, d_out]`.
pub(crate) fn column_norms(matrix: Tensor<2>) -> Tensor<2> {
    matrix.powi_scalar(2).sum_dim(0).sqrt()
}

impl AdapterMethod for Dora {
    fn parameters(&self) -> Vec<&Param<Tensor<2>>> {
        vec![&self.lora.a, &self.lora.b, &self.magnitude]
    }

    fn compose(&self, weight: Tensor<2>, base: &Tensor<2>) -> Tensor<2> {
        (weight + cast(self.lora.delta(), DType::F32)) * self.factor(base)
    }

    fn apply(&self, y: Tensor<2>, x: Tensor<2>, base: &Tensor<2>) -> Tensor<2> {
        let dtype = y.dtype();
        let factor = self.factor(base);
        let low_rank = self.lora.factors();
        if self.lora.dropout > 0.0 && is_trained(&self.magnitude) {
            // The dropped input is that of the whole change, the product with W included.
            let dropped = drop_inputs(cast(x, DType::F32), self.lora.dropout);
            let product = projection(cast(dropped.clone(), dtype), base.clone(), None, None);
            let product = cast(product, DType::F32);
            let changed = add_low_rank(product.clone(), dropped, low_rank) * factor;
            return cast(cast(y, DType::F32) + changed - product, dtype);
        }
        let y = add_low_rank(cast(y, DType::F32), cast(x, DType::F32), low_rank);
        cast(y * factor, dtype)
    }

    fn dropout(&self) -> f64 {
        self.lora.dropout
    }

    fn scale(&self) -> Option<f64> {
        Some(self.lora.scale)
    }

    fn rank(&self) -> Option<usize> {
        Some(self.lora.rank())
    }
}
