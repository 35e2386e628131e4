use burn::tensor::{DType, Tensor};
use burn_cubecl::kernel::cast;
use burn_cubecl::tensor::CubeTensor;

use super::apply::array;
use super::columns::{Window, column_sums};
use super::elementwise::casts;
use super::memory::{contiguous, empty, part_of, reshaped, rows, transposed, width};
use super::place::{Placed, place};
use super::product::{Outer, outers, product, product_plus, product_times};
use super::{OnDevice, Operation, Saved, apply, side_by_side};
use crate::projection::{Branch, LowRank};

pub(crate) fn projection<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    low_rank: Option<LowRank>,
) -> Tensor<D> {
    let dtype = weight.dtype();
    let columns = weight.dims()[1];
    let block = low_rank
        .as_ref()
        .map(|change| Block::new(0, columns, change));
    let op = Projection {
        bias: bias.is_some(),
        scale: low_rank.as_ref().map_or(1.0, |change| change.scale as f32),
        blocks: block.into_iter().collect(),
    };
    op.of(x, weight, bias, low_rank.into_iter().collect(), dtype)
}

/// See [`crate::projections`]; `None` where they are not one product.
pub(crate) fn projections<const D: usize>(x: &Tensor<D>, branches: &[Branch]) -> Option<Tensor<D>> {
    let first = branches.first()?;
    let dtype = first.weight.dtype();
    let mut changes = branches
        .iter()
        .filter_map(|branch| branch.low_rank.as_ref());
    let scale = changes.next().map_or(1.0, |change| change.scale);
    let of_factors = |branch: &Branch| {
        let change = branch.low_rank.as_ref()?;
        Some((change.a.dtype(), change.scale))
    };
    let like = branches.iter().find_map(of_factors);
    let fits = branches.iter().all(|branch| {
        let like_first = of_factors(branch).is_none_or(|own| Some(own) == like);
        let b_dtype = branch.low_rank.as_ref().map(|change| change.b.dtype());
        like_first
            && b_dtype.is_none_or(|dtype| Some(dtype) == like.map(|(dtype, _)| dtype))
            && !branch.weight.is_tracked()
            && branch
                .bias
                .as_ref()
                .is_none_or(|bias| !bias.is_tracked() && bias.dtype() == dtype)
            && branch.bias.is_some() == first.bias.is_some()
    });
    let changed = branches.iter().filter(|branch| branch.low_rank.is_some());
    if branches.len() < 2 || !fits || changed.count() > MOST_BLOCKS {
        return None;
    }
    let weights: Vec<Tensor<2>> = branches
        .iter()
        .map(|branch| branch.weight.clone())
        .collect();
    let joined = side_by_side::joined(&weights)?;

    let mut blocks = Vec::new();
    let mut from = 0;
    for branch in branches {
        let columns = branch.weight.dims()[1];
        if let Some(change) = &branch.low_rank {
            blocks.push(Block::new(from, columns, change));
        }
        from += columns;
    }
    if Block::total(&blocks) > MOST_RANKS {
        return None;
    }
    let bias: Option<Vec<Tensor<1>>> = branches.iter().map(|branch| branch.bias.clone()).collect();
    let op = Projection {
        bias: bias.is_some(),
        scale: scale as f32,
        blocks,
    };
    let context = first.weight.clone().into_dispatch().autodiff;
    let constant = |joined| side_by_side::constant(joined, context);
    let weight = Tensor::from_dispatch(constant(joined));
    let changes = branches.iter().filter_map(|branch| branch.low_rank.clone());
    let bias = bias.map(|parts| match side_by_side::joined(&parts) {
        Some(joined) => Tensor::from_dispatch(constant(joined)),
        None => Tensor::cat(parts, 0),
    });
    Some(op.of(x.clone(), weight, bias, changes.collect(), dtype))
}

/// More adapted ones than that are no one product.
const MOST_BLOCKS: usize = 3;

/// The highest rank of all together: each product has the ranks of all.
const MOST_RANKS: usize = 128;

/// Factors take memory in pieces of so many halves.
const PIECE: usize = 8;

/// The columns of the result that a pair of factors changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    from: usize,
    columns: usize,
    rank: usize,
}

impl Block {
    fn new(from: usize, columns: usize, change: &LowRank) -> Self {
        let rank = change.a.dims()[1];
        Self {
            from,
            columns,
            rank,
        }
    }

    /// The ranks of all, and some of none up to a whole piece.
    fn total(blocks: &[Self]) -> usize {
        let ranks = blocks.iter().map(|block| block.rank);
        ranks.sum::<usize>().next_multiple_of(PIECE)
    }
}

/// `y = x W + bias + s (x A) B`; the operands are `x`, `W`, the bias if there is one, and an `A` and a `B` for each block.
///
/// With several blocks, `A` has the columns of all and `B` their rows, each at the columns of its block and 0 elsewhere.
/// The products are in the dtype of W, and so are the factors in them, which are `f32` as a rule.
#[derive(Clone, Debug)]
struct Projection {
    bias: bool,
    scale: f32,
    blocks: Vec<Block>,
}

/// What is kept for the backward, by its place: x, W, and A and B as the products take them; beside them `s (x A)`.
const X: usize = 0;
const W: usize = 1;
const A: usize = 2;
const B: usize = 3;

impl Projection {
    fn of<const D: usize>(
        self,
        x: Tensor<D>,
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
        low_rank: Vec<LowRank>,
        dtype: DType,
    ) -> Tensor<D> {
        let mut inputs = vec![x.into_dispatch(), weight.into_dispatch()];
        inputs.extend(bias.map(Tensor::into_dispatch));
        for change in low_rank {
            inputs.extend([change.a.into_dispatch(), change.b.into_dispatch()]);
        }
        match inputs.len() {
            2 => apply(self, array::<_, 2>(inputs), dtype),
            3 => apply(self, array::<_, 3>(inputs), dtype),
            4 => apply(self, array::<_, 4>(inputs), dtype),
            5 => apply(self, array::<_, 5>(inputs), dtype),
            6 => apply(self, array::<_, 6>(inputs), dtype),
            7 => apply(self, array::<_, 7>(inputs), dtype),
            8 => apply(self, array::<_, 8>(inputs), dtype),
            _ => apply(self, array::<_, 9>(inputs), dtype),
        }
    }

    /// The places of each block's A and B among the operands.
    fn factors(&self) -> impl Iterator<Item = (&Block, usize, usize)> {
        let first = if self.bias { 3 } else { 2 };
        let blocks = self.blocks.iter().enumerate();
        blocks.map(move |(index, block)| (block, first + 2 * index, first + 2 * index + 1))
    }

    /// A and B as the products take them.
    fn in_products(
        &self,
        inputs: &[CubeTensor],
        n: usize,
        dtype: DType,
    ) -> Option<[CubeTensor; 2]> {
        let (_, a_at, b_at) = self.factors().next()?;
        if self.blocks.len() == 1 && self.blocks[0].columns == n {
            return Some(casts([&inputs[a_at], &inputs[b_at]], dtype));
        }
        let pairs = self.factors().map(|(block, a_at, b_at)| {
            let [a, b] = [a_at, b_at].map(|at| contiguous(inputs[at].clone()));
            (*block, a, b)
        });
        let pairs: Vec<(Block, CubeTensor, CubeTensor)> = pairs.collect();
        let d = rows(&pairs[0].1);
        let total = Block::total(&self.blocks);
        let alignment = pairs[0].1.client.properties().memory.alignment as usize;
        // B begins where a kernel can begin.
        let start = (d * total).next_multiple_of(alignment.max(16) / dtype.size());
        let both = empty(&pairs[0].1, &[start + total * n], dtype);
        let mut all = Vec::new();
        let mut rank = 0;
        for (index, (block, a, b)) in pairs.iter().enumerate() {
            // The last has what is behind it, too.
            let ranks = match index + 1 == pairs.len() {
                true => total - rank,
                false => block.rank,
            };
            all.push(Placed {
                matrix: a,
                start: rank,
                pitch: total,
                written: [d, ranks],
                from: 0,
            });
            all.push(Placed {
                matrix: b,
                start: start + rank * n,
                pitch: n,
                written: [ranks, n],
                from: block.from,
            });
            rank += block.rank;
        }
        place(&all, &both);
        let b = part_of(&both, start, [total, n]);
        Some([part_of(&both, 0, [d, total]), b])
    }
}

impl Operation<OnDevice> for Projection {
    fn forward(&self, inputs: &[CubeTensor], tracked: &[bool]) -> (CubeTensor, Saved) {
        let weight = inputs[1].clone();
        let dtype = weight.dtype;
        let x = cast(contiguous(inputs[0].clone()), dtype);
        let mut shape = x.meta.shape().to_vec();
        let x = as_matrix(x);

        let factors = self.in_products(inputs, width(&weight), dtype);
        // s (x A): [m, rank]
        let low = factors
            .as_ref()
            .map(|[a, _]| product_times(x.clone(), a.clone(), self.scale, dtype));
        let bias = self.bias.then(|| inputs[2].clone());
        let change = low.clone().zip(factors.as_ref().map(|[_, b]| b.clone()));
        let y = product_plus(x.clone(), weight.clone(), change, bias);

        if let Some(last) = shape.last_mut() {
            *last = width(&y);
        }
        let mut saved = Saved::default();
        if tracked.contains(&true) {
            let wants = |at: usize| tracked[at];
            let wants_a = self.factors().any(|(_, a_at, _)| wants(a_at));
            let wants_b = self.factors().any(|(_, _, b_at)| wants(b_at));
            let [a, b] = factors.map_or([None, None], |[a, b]| [Some(a), Some(b)]);
            saved.inputs = vec![
                (tracked[1] || wants_a).then_some(x),
                tracked[0].then_some(weight),
                a.filter(|_| tracked[0]),
                b.filter(|_| tracked[0] || wants_a),
            ];
            saved.extra = low.filter(|_| wants_b).into_iter().collect();
        }
        (reshaped(y, &shape), saved)
    }

    /// `dx = g W^T + s (g B^T) A^T`, `dA = s x^T (g B^T)`, `dB = s (x A)^T g`, `dW = x^T g`, `dbias = sum over rows of g`.
    fn backward(
        &self,
        saved: Saved,
        grad: CubeTensor,
        tracked: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let grad = contiguous(grad);
        let mut shape = grad.meta.shape().to_vec();
        let g = as_matrix(grad); // [m, n]
        let mut grads: Vec<Option<CubeTensor>> = tracked.iter().map(|_| None).collect();
        if tracked[1] {
            grads[1] = Some(product(
                transposed(saved.input(X).clone()),
                g.clone(),
                g.dtype,
            ));
        }
        if self.bias && tracked[2] {
            grads[2] = Some(column_sums(&g, None));
        }

        // s (g B^T): [m, rank]
        let d_low = saved.inputs[B].as_ref().map(|b| {
            let b = transposed(b.clone());
            product_times(g.clone(), b, self.scale, g.dtype)
        });
        let mut of_a = Vec::new();
        let mut of_b = Vec::new();
        let mut rank = 0;
        for (block, a_at, b_at) in self.factors() {
            if tracked[a_at] {
                let size = [width(saved.input(X)), block.rank];
                let from = [0, rank];
                of_a.push((a_at, Window { from, size }));
            }
            if tracked[b_at] {
                let size = [block.rank, block.columns];
                let from = [rank, block.from];
                of_b.push((b_at, Window { from, size }));
            }
            rank += block.rank;
        }
        let mut products = Vec::new();
        let windows = |of: &[(usize, Window)]| of.iter().map(|(_, window)| *window).collect();
        if let Some(d) = d_low.as_ref().filter(|_| !of_a.is_empty()) {
            products.push(Outer {
                x: saved.input(X),
                d,
                transpose: false,
                windows: windows(&of_a),
            });
        }
        if let Some(d) = saved.extra.first() {
            products.push(Outer {
                x: &g,
                d,
                transpose: true,
                windows: windows(&of_b),
            });
        }
        let places = of_a.iter().chain(&of_b).map(|(at, _)| *at);
        for (place, factor) in places.zip(outers(&products)) {
            grads[place] = Some(factor);
        }
        if tracked[0] {
            let weight = transposed(saved.input(W).clone());
            let a = saved.inputs[A].clone().map(transposed);
            let dx = product_plus(g, weight, d_low.zip(a), None);
            if let Some(last) = shape.last_mut() {
                *last = width(&dx);
            }
            grads[0] = Some(reshaped(dx, &shape));
        }
        grads
    }
}

fn as_matrix(x: CubeTensor) -> CubeTensor {
    let shape = [rows(&x), width(&x)];
    reshaped(x, &shape)
}
