use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::config::LoKrConfig;
use super::delta_dropout::DeltaDropout;
use super::{AdapterMethod, through_core};

/// A Kronecker product of a small matrix and a large one, which may be low-rank itself (Edalati et al., 2022, "KronA",
/// arXiv:2212.10650; Yeh et al., 2023, LyCORIS, arXiv:2309.14859).
///
/// `W' = W + s (C x D)^T` with `s = alpha / r`, C `[out_l, in_m]` and D `[out_k, in_n]`, in PyTorch's orientation as the
/// files have them; D, and C where both are asked to be, is `D1 D2` of rank r where that is smaller. Of a convolution, the
/// factors of D may meet in a core for each place of the kernel, as those of [`LoHa`](crate::LoHa).
#[derive(Module, Debug)]
pub struct LoKr {
    /// The factors of C: C itself, or `[out_l, rank]` and `[rank, in_m]`; starts at 0.
    pub w1: Vec<Param<Tensor<2>>>,
    /// The factors of D: D itself; or `[out_k, rank]` and `[rank, in_n x kernel]`; or `[rank, out_k]`, `[rank, in_n]` and the
    /// core, `[rank, rank x kernel]`.
    pub w2: Vec<Param<Tensor<2>>>,
    /// The rank that was asked for.
    pub rank: usize,
    /// What the product is multiplied by.
    pub scale: f64,
    /// The kernel of a `Conv1d` under a D that is whole. PEFT then multiplies a matrix by a tensor of three dimensions, which
    /// PyTorch lines up at the last ones: the product comes out as `[out_k, out_l in_n, in_m kernel]` and is read as the kernel.
    pub line_kernel: Option<usize>,
    #[module(skip)]
    pub(crate) dropout: DeltaDropout,
}

fn multiplied(factors: &[Param<Tensor<2>>]) -> Tensor<2> {
    match factors {
        [outputs, inputs, core] => {
            let inputs = through_core(inputs.val().transpose(), core.val()); // [in_n x kernel, rank]
            inputs.matmul(outputs.val()).transpose()
        }
        [first, second] => first.val().matmul(second.val()),
        // There is always one: the builder puts one, two or three.
        _ => factors[0].val(),
    }
}

impl AdapterMethod for LoKr {
    fn parameters(&self) -> Vec<&Param<Tensor<2>>> {
        self.w1.iter().chain(&self.w2).collect()
    }

    fn delta(&self) -> Option<Tensor<2>> {
        let (c, d) = (multiplied(&self.w1), multiplied(&self.w2));
        let [[l, m], [k, n]] = [c.dims(), d.dims()];
        let product: Tensor<2> = match self.line_kernel {
            None => {
                let product = c.reshape([l, 1, m, 1]) * d.reshape([1, k, 1, n]); // [out_l, out_k, in_m, in_n]
                product.reshape([l * k, m * n])
            }
            Some(kernel) => {
                let d = d.reshape([k, 1, n / kernel, 1, kernel]);
                let product = c.reshape([1, l, 1, m, 1]) * d; // [out_k, out_l, in_n, in_m, kernel]
                product.reshape([l * k, m * n])
            }
        };
        Some(product.transpose().mul_scalar(self.scale))
    }

    fn delta_dropout(&self) -> Option<&DeltaDropout> {
        Some(&self.dropout)
    }

    fn scale(&self) -> Option<f64> {
        Some(self.scale)
    }

    fn rank(&self) -> Option<usize> {
        Some(self.rank)
    }
}

/// How a weight is cut into the two matrices.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoKrShape {
    /// `[out_l, out_k]`
    pub(crate) outputs: [usize; 2],
    /// `[in_m, in_n]`
    pub(crate) inputs: [usize; 2],
    pub(crate) split_first: bool,
    pub(crate) second: Second,
}

/// What the second matrix is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Second {
    Whole,
    Factors,
    /// Factors that meet in a core.
    Core,
}

impl LoKrShape {
    /// PEFT's choice for a layer of so many channels and so large a kernel.
    pub(crate) fn new(
        [channels, kernel, d_out]: [usize; 3],
        rank: usize,
        config: &LoKrConfig,
    ) -> Self {
        let inputs = factorization(channels, config.decompose_factor);
        let outputs = factorization(d_out, config.decompose_factor);
        // Half of a width of 5 is 2.5 there.
        let is_small = |a: usize, b: usize| 2 * rank < a.max(b);
        Self {
            split_first: config.decompose_both && is_small(outputs[0], inputs[0]),
            second: match is_small(outputs[1], inputs[1]) {
                true if config.use_effective_conv2d && kernel > 1 => Second::Core,
                true => Second::Factors,
                false => Second::Whole,
            },
            outputs,
            inputs,
        }
    }
}

/// Two numbers whose product is `dimension`, the first the smaller: near `factor` if one is given, else near the root.
fn factorization(dimension: usize, factor: Option<usize>) -> [usize; 2] {
    if let Some(factor) = factor.filter(|factor| *factor > 0)
        && dimension.is_multiple_of(factor)
    {
        return [factor, dimension / factor];
    }
    let limit = factor.unwrap_or(dimension);
    let (mut small, mut large) = (1, dimension);
    while small < large {
        let Some(next) = (small + 1..=dimension).find(|next| dimension.is_multiple_of(*next))
        else {
            break;
        };
        let other = dimension / next;
        if next + other > dimension + 1 || next > limit {
            break;
        }
        (small, large) = (next, other);
    }
    [small.min(large), small.max(large)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_are_cut_as_peft_documents() {
        for (dimension, factor, expected) in [
            (256, None, [16, 16]),
            (128, None, [8, 16]),
            (127, None, [1, 127]),
            (128, Some(4), [4, 32]),
        ] {
            assert_eq!(factorization(dimension, factor), expected);
        }
    }
}
