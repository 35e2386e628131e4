use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use burn_lora_kernels::LowRank;

use super::AdapterMethod;
use super::config::AdaLoraConfig;

/// A singular value decomposition whose singular values are given away as training goes on (Zhang et al., 2023, "AdaLoRA",
/// arXiv:2303.10512).
///
/// `W' = W + s (A diag(e)) B` with `s = alpha / (r + 1e-5)`, r the rank at the start. A penalty keeps A and B near
/// orthogonal; see [`budget`](crate::budget).
#[derive(Module, Debug)]
pub struct AdaLora {
    /// Right singular vectors, `[d_in, rank]`.
    pub a: Param<Tensor<2>>,
    /// Singular values, `[1, rank]`; start at 0, and are 0 where the budget took them.
    pub e: Param<Tensor<2>>,
    /// Left singular vectors, `[rank, d_out]`.
    pub b: Param<Tensor<2>>,
    /// What the product is multiplied by.
    pub scale: f64,
    /// Probability that an input of the adapter is dropped while it is trained.
    pub dropout: f64,
    /// How the rank is given away.
    #[module(skip)]
    pub config: Arc<AdaLoraConfig>,
}

impl AdaLora {
    fn factors(&self) -> LowRank {
        LowRank {
            a: self.a.val() * self.e.val(),
            b: self.b.val(),
            scale: self.scale,
        }
    }

    /// Which singular values are not 0.
    pub fn kept(&self) -> Vec<bool> {
        let values = self.e.val().into_data();
        values.iter::<f32>().map(|value| value != 0.0).collect()
    }

    /// Sets the singular values to 0 that are not kept.
    pub(crate) fn with_kept(mut self, kept: &[bool]) -> Self {
        self.e = self.e.map(|e| {
            let (device, dtype, is_trained) = (e.device(), e.dtype(), e.is_require_grad());
            let values = e.into_data();
            let values = values.iter::<f32>().zip(kept);
            let values: Vec<f32> = values
                .map(|(value, kept)| if *kept { value } else { 0.0 })
                .collect();
            let data = TensorData::new(values, [1, kept.len()]);
            Tensor::from_data(data, (&device, dtype)).set_require_grad(is_trained)
        });
        self
    }

    /// How far A and B are from orthogonal: `(||A^T A - I|| + ||B B^T - I||) / 2`, Frobenius norms.
    ///
    /// # Shapes
    /// - output: `[1]`
    pub fn orthogonality_penalty(&self) -> Tensor<1> {
        let distance = |matrix: Tensor<2>| {
            let [n, _] = matrix.dims();
            let gap = matrix.clone() - Tensor::eye(n, &matrix.device());
            gap.powi_scalar(2).sum().sqrt()
        };
        let (a, b) = (self.a.val(), self.b.val());
        let sum =
            distance(a.clone().transpose().matmul(a)) + distance(b.clone().matmul(b.transpose()));
        sum.div_scalar(2.0)
    }
}

impl AdapterMethod for AdaLora {
    fn parameters(&self) -> Vec<&Param<Tensor<2>>> {
        vec![&self.a, &self.e, &self.b]
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
        Some(self.e.lazy_shape()[1])
    }
}
