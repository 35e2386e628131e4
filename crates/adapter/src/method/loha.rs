use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::delta_dropout::DeltaDropout;
use super::{AdapterMethod, through_core};

/// An elementwise product of two low-rank matrices (Hyeon-Woo et al., 2021, "FedPara", arXiv:2108.06098; Yeh et al., 2023,
/// LyCORIS, arXiv:2309.14859).
///
/// `W' = W + s (A1 B1) * (A2 B2)`, of a rank up to `r^2`, with `s = alpha / r`. Of a convolution, the factors may meet in a core
/// T for each place of the kernel (Proposition 3 of FedPara): `A B` becomes `sum_ij T[i, j, place] A[channel, j] B[i, output]`.
#[derive(Module, Debug)]
pub struct LoHa {
    /// Up-projection of the first matrix, `[rank, d_out]`.
    pub b1: Param<Tensor<2>>,
    /// Down-projection of the first matrix, `[d_in, rank]`; `[channels_in, rank]` where there is a core.
    pub a1: Param<Tensor<2>>,
    /// Up-projection of the second matrix, `[rank, d_out]`.
    pub b2: Param<Tensor<2>>,
    /// Down-projection of the second matrix, as the first; starts at 0.
    pub a2: Param<Tensor<2>>,
    /// The core of the first matrix, `[rank, rank x kernel]`.
    pub t1: Option<Param<Tensor<2>>>,
    /// The core of the second matrix, `[rank, rank x kernel]`.
    pub t2: Option<Param<Tensor<2>>>,
    /// What the product is multiplied by.
    pub scale: f64,
    #[module(skip)]
    pub(crate) dropout: DeltaDropout,
}

/// One of the two matrices, `[d_in, d_out]`.
fn product(
    a: &Param<Tensor<2>>,
    core: Option<&Param<Tensor<2>>>,
    b: &Param<Tensor<2>>,
) -> Tensor<2> {
    let a = match core {
        Some(core) => through_core(a.val(), core.val()),
        None => a.val(),
    };
    a.matmul(b.val())
}

impl AdapterMethod for LoHa {
    fn parameters(&self) -> Vec<&Param<Tensor<2>>> {
        let factors = [&self.b1, &self.a1, &self.b2, &self.a2];
        let cores = self.t1.iter().chain(&self.t2);
        factors.into_iter().chain(cores).collect()
    }

    fn delta(&self) -> Option<Tensor<2>> {
        let first = product(&self.a1, self.t1.as_ref(), &self.b1);
        let second = product(&self.a2, self.t2.as_ref(), &self.b2);
        Some((first * second).mul_scalar(self.scale))
    }

    fn delta_dropout(&self) -> Option<&DeltaDropout> {
        Some(&self.dropout)
    }

    fn scale(&self) -> Option<f64> {
        Some(self.scale)
    }

    fn rank(&self) -> Option<usize> {
        Some(self.b1.lazy_shape()[0])
    }
}
