use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_lora_kernels::LowRank;

use super::AdapterMethod;
use super::mersenne::MersenneTwister;

/// Two trained vectors between random projections that all layers share (Kopiczko et al., 2023, "VeRA: Vector-based Random
/// Matrix Adaptation", arXiv:2310.11454).
///
/// `W' = W + (A diag(d)) (B diag(b))`. A and B are frozen; a layer takes the first rows of A and the first columns of B.
#[derive(Module, Debug)]
pub struct Vera {
    /// Scale of each output, `[1, d_out]`; starts at 0.
    pub lambda_b: Param<Tensor<2>>,
    /// Scale of each of the inner dimensions, `[1, rank]`.
    pub lambda_d: Param<Tensor<2>>,
    /// This layer's part of A, `[d_in, rank]`; frozen and no parameter.
    pub a: Tensor<2>,
    /// This layer's part of B, `[rank, d_out]`; frozen and no parameter.
    pub b: Tensor<2>,
    /// Probability that an input of the adapter is dropped while it is trained.
    pub dropout: f64,
}

impl Vera {
    fn factors(&self) -> LowRank {
        LowRank {
            a: self.a.clone() * self.lambda_d.val(),
            b: self.b.clone() * self.lambda_b.val(),
            scale: 1.0,
        }
    }
}

impl AdapterMethod for Vera {
    fn parameters(&self) -> Vec<&Param<Tensor<2>>> {
        vec![&self.lambda_b, &self.lambda_d]
    }

    fn low_rank(&self) -> Option<LowRank> {
        Some(self.factors())
    }

    fn dropout(&self) -> f64 {
        self.dropout
    }

    fn rank(&self) -> Option<usize> {
        Some(self.lambda_d.lazy_shape()[1])
    }
}

/// The projections that the layers of an adapter share, in PEFT's layout and large enough for the widest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Projections {
    /// `[rank, widest input]`
    pub(crate) a: Vec<f32>,
    /// `[widest output, rank]`
    pub(crate) b: Vec<f32>,
    pub(crate) rank: usize,
    pub(crate) widths: [usize; 2],
}

impl Projections {
    /// A layer's part of both, in Burn's layout.
    pub(crate) fn of(&self, [d_in, d_out]: [usize; 2], device: &Device) -> [Tensor<2>; 2] {
        let rank = self.rank;
        let a = (0..d_in).flat_map(|i| (0..rank).map(move |k| self.a[k * self.widths[0] + i]));
        let b = (0..rank).flat_map(|k| (0..d_out).map(move |o| self.b[o * rank + k]));
        let tensor = |values: Vec<f32>, shape: [usize; 2]| {
            Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
        };
        [
            tensor(a.collect(), [d_in, rank]),
            tensor(b.collect(), [rank, d_out]),
        ]
    }
}

/// The projections that PEFT draws for a `projection_prng_key`: Kaiming-uniform by PyTorch's generator.
pub(crate) fn random_projections(key: u64, rank: usize, widths: [usize; 2]) -> Projections {
    let mut generator = MersenneTwister::new(key);
    let mut uniform = |count: usize, fan_in: usize| {
        // As there: a standard deviation of sqrt(2 / fan_in), whose uniform distribution ends at sqrt(3) times it.
        let bound = 3.0_f64.sqrt() * (2.0_f64.sqrt() / (fan_in as f64).sqrt());
        let (from, to) = (-bound as f32, bound as f32);
        let draw = |_| generator.next_f32() * (to - from) + from;
        (0..count).map(draw).collect::<Vec<f32>>()
    };
    Projections {
        a: uniform(rank * widths[0], widths[0]),
        b: uniform(widths[1] * rank, rank),
        rank,
        widths,
    }
}
