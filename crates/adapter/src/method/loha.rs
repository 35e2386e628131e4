use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::{AdapterMethod, add_dense};

/// An elementwise product of two low-rank matrices (Hyeon-Woo et al., 2021, "FedPara", arXiv:2108.06098; Yeh et al., 2023,
/// LyCORIS, arXiv:2309.14859).
///
/// `W' = W + s (A1 B1) * (A2 B2)`, of a rank up to `r^2`, with `s = alpha / r`.
#[derive(Module, Debug)]
pub struct LoHa {
    /// Up-projection of the first matrix, `[rank, d_out]`.
    pub b1: Param<Tensor<2>>,
    /// Down-projection of the first matrix, `[d_in, rank]`.
    pub a1: Param<Tensor<2>>,
    /// Up-projection of the second matrix, `[rank, d_out]`.
    pub b2: Param<Tensor<2>>,
    /// Down-projection of the second matrix, `[d_in, rank]`; starts at 0.
    pub a2: Param<Tensor<2>>,
    /// What the product is multiplied by.
    pub scale: f64,
}

impl LoHa {
    fn delta(&self) -> Tensor<2> {
        let first = self.a1.val().matmul(self.b1.val());
        let second = self.a2.val().matmul(self.b2.val());
        (first * second).mul_scalar(self.scale)
    }
}

impl AdapterMethod for LoHa {
    fn parameters(&self) -> Vec<&Param<Tensor<2>>> {
        vec![&self.b1, &self.a1, &self.b2, &self.a2]
    }

    fn compose(&self, weight: Tensor<2>, _base: &Tensor<2>) -> Tensor<2> {
        weight + self.delta()
    }

    fn apply(&self, y: Tensor<2>, x: Tensor<2>, _base: &Tensor<2>) -> Tensor<2> {
        add_dense(y, x, self.delta())
    }

    fn scale(&self) -> Option<f64> {
        Some(self.scale)
    }

    fn rank(&self) -> Option<usize> {
        Some(self.b1.lazy_shape()[0])
    }
}
