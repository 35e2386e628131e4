use burn::tensor::{DType, Int, Tensor};
use burn_cubecl::kernel::cast;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::apply::primitive;
use super::elementwise::{add, times_scalar};
use super::memory::{
    buffer, contiguous, cubes, elem, empty, rows, rows_of, transposed, vector_size, width,
};
use super::product::{product, product_into};
use super::reduce::{Team, cube_max, cube_sum};
use super::softcap::{bounded, slope_of};
use super::{OnDevice, Operation, Saved, apply};

/// Logits that exist at a time, in `f32`: few in tests, so that small ones have more than one chunk.
const CHUNK_BYTES: usize = if cfg!(test) { 8 << 20 } else { 128 << 20 };

/// Numbers in `f32` that are written at a time, at most.
const WIDEST: usize = 4;

/// Fewer rows at a time would not fill a GPU.
const FEWEST_ROWS: usize = if cfg!(test) { 128 } else { 512 };

/// `targets` and `weights` have one number for each row of `hidden`. A target outside of the vocabulary makes the loss
/// NaN: to look at them first would wait for the device.
pub(crate) fn cross_entropy(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
    softcap: Option<f64>,
) -> Tensor<1> {
    let op = CrossEntropy {
        targets: contiguous(primitive(targets)),
        weights: contiguous(cast(primitive(weights), DType::F32)),
        softcap: softcap.map(|cap| cap as f32),
    };
    let inputs = [hidden.into_dispatch(), weight.into_dispatch()];
    apply(op, inputs, DType::F32)
}

#[derive(Clone, Debug)]
struct CrossEntropy {
    targets: CubeTensor,
    weights: CubeTensor,
    softcap: Option<f32>,
}

impl Operation<OnDevice> for CrossEntropy {
    /// The loss has one gradient but for a factor, so the forward computes it while it has the logits: they never exist
    /// again, and never all at once (Hsu et al., 2024, arXiv:2410.10989). Logits are not rounded to the dtype of the model:
    /// where they are large, half a unit of its last place is some percent of a probability.
    fn forward(&self, inputs: &[CubeTensor], tracked: &[bool]) -> (CubeTensor, Saved) {
        let hidden = contiguous(inputs[0].clone());
        let weight = inputs[1].clone();
        let [n, vocab] = [rows(&hidden), weight.meta.shape()[1]];
        let by_columns = weight.meta.strides()[0] == 1 && weight.meta.strides()[1] != 1;
        let losses = empty(&hidden, &[n], DType::F32);
        let mut d_hidden: Option<CubeTensor> = None;
        let mut d_weight: Option<CubeTensor> = None;

        let step = CHUNK_BYTES / (vocab * DType::F32.size());
        let step = (step / FEWEST_ROWS * FEWEST_ROWS).max(FEWEST_ROWS);
        for from in (0..n).step_by(step) {
            let count = step.min(n - from);
            let part = rows_of(&hidden, from, count);
            let logits = product(part.clone(), weight.clone(), DType::F32);
            let wanted = tracked.contains(&true).then_some(hidden.dtype);
            let Some(d_logits) = self.lose(logits, &losses, from, wanted) else {
                continue;
            };
            if tracked[0] {
                let (d_logits, turned) = (d_logits.clone(), transposed(weight.clone()));
                if count == n {
                    d_hidden = Some(product(d_logits, turned, hidden.dtype));
                } else {
                    let all = || empty(&hidden, hidden.meta.shape(), hidden.dtype);
                    let all = d_hidden.get_or_insert_with(all);
                    product_into(d_logits, turned, &rows_of(all, from, count));
                }
            }
            if tracked[1] {
                // In the layout of the weight, and its sum over the chunks in f32.
                let more = match by_columns {
                    true => product(transposed(d_logits), part, DType::F32),
                    false => product(transposed(part), d_logits, DType::F32),
                };
                d_weight = Some(match d_weight {
                    Some(sum) => add(sum, &more),
                    None => more,
                });
            }
        }

        let loss = empty(&hidden, &[1], DType::F32);
        let team = Team::new(&hidden.client, n);
        // SAFETY: one cube, each unit of which looks where the rows end.
        unsafe {
            sum_all::launch_unchecked(
                &hidden.client,
                CubeCount::Static(1, 1, 1),
                team.dim(),
                buffer(&losses),
                buffer(&loss),
                n,
                team,
            );
        }
        let mut saved = Saved::default();
        if tracked.contains(&true) {
            saved.inputs = vec![
                d_hidden,
                d_weight.map(|sum| match by_columns {
                    true => transposed(sum),
                    false => sum,
                }),
            ];
        }
        (loss, saved)
    }

    fn backward(&self, saved: Saved, grad: CubeTensor, _: &[bool]) -> Vec<Option<CubeTensor>> {
        let scaled = |numbers: CubeTensor| times_scalar(numbers, &grad);
        let gradients = saved.inputs.into_iter();
        gradients.map(|numbers| numbers.map(scaled)).collect()
    }
}

impl CrossEntropy {
    /// Writes the weighted losses of some rows, and gives if wanted, in this dtype, the gradient of their logits,
    /// `weight (softmax(z) - target)`; logits bounded by `c tanh(z / c)` have the further factor `1 - tanh(z / c)^2`.
    fn lose(
        &self,
        logits: CubeTensor,
        losses: &CubeTensor,
        first: usize,
        wanted: Option<DType>,
    ) -> Option<CubeTensor> {
        let (count, vocab) = (rows(&logits), width(&logits));
        let shape = match wanted {
            Some(_) => vec![count, vocab],
            // Never written, but WebGPU wants it to hold what is written at a time.
            None => vec![WIDEST],
        };
        let gradient = empty(&logits, &shape, wanted.unwrap_or(DType::F32));
        let size = vector_size(&[&logits, &gradient], vocab);
        let vectors = vocab / size;
        let team = Team::new(&logits.client, vectors);
        // SAFETY: a cube stays in its row, and those beyond the last one write nothing.
        unsafe {
            lose::launch_unchecked(
                &logits.client,
                cubes(&logits.client, count),
                team.dim(),
                size,
                buffer(&logits),
                buffer(&gradient),
                buffer(&self.targets),
                buffer(&self.weights),
                buffer(losses),
                first,
                count,
                vectors,
                self.softcap.unwrap_or(1.0),
                // Given, as WGSL has no NaN that a compiler could write.
                f32::NAN,
                self.softcap.is_some(),
                wanted.is_some(),
                team,
                [elem(&gradient), elem(&self.targets)],
            );
        }
        wanted.map(|_| gradient)
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn lose<X: Float, I: Numeric, N: Size>(
    logits: &[Vector<f32, N>],
    gradients: &mut [Vector<X, N>],
    targets: &[I],
    weights: &[f32],
    losses: &mut [f32],
    first: usize,
    count: usize,
    vectors: usize,
    cap: f32,
    nan: f32,
    #[comptime] capped: bool,
    #[comptime] gradient: bool,
    #[comptime] team: Team,
    #[define(X, I)] _types: [ElemType; 2],
) {
    let exists = CUBE_POS < count;
    let row = min(CUBE_POS, count - 1);
    let from = row * vectors;
    let unit = UNIT_POS as usize;
    let units = comptime!(team.units as usize);
    let lanes = Vector::<f32, N>::new(0.0f32).vector_size();

    // One read: the largest so far, and the sum of exponentials around it, in each lane.
    let lowest = Vector::<f32, N>::new(-3.0e38f32);
    let mut largest = lowest;
    let mut sums = Vector::<f32, N>::new(0.0f32);
    for i in range_stepped(unit, vectors, units) {
        let z = bounded::<N>(logits[from + i], cap, capped);
        let larger = max(largest, z);
        sums = sums * (largest - larger).exp() + (z - larger).exp();
        largest = larger;
    }
    let mut own = largest.extract(0usize);
    #[unroll]
    for lane in 1..lanes {
        own = max(own, largest.extract(lane));
    }
    let top = cube_max(own, team);
    let total = cube_sum(
        Vector::vector_sum(sums * (largest - Vector::new(top)).exp()),
        team,
    );

    let target = usize::cast_from(targets[first + row]);
    let weight = weights[first + row];
    let place = min(target / lanes, vectors - 1);
    let z = bounded::<N>(logits[from + place], cap, capped);
    let hit = target % lanes;
    let mut chosen = z.extract(0usize);
    #[unroll]
    for lane in 1..lanes {
        if hit == lane {
            chosen = z.extract(lane);
        }
    }

    if exists {
        if unit == 0 {
            let mut loss = weight * (top + total.ln() - chosen);
            if weight == 0.0f32 {
                loss = 0.0f32;
            }
            if target >= vectors * lanes {
                loss = nan;
            }
            losses[first + row] = loss;
        }
        if comptime!(gradient) {
            let factor = weight / total;
            for i in range_stepped(unit, vectors, units) {
                let raw = logits[from + i];
                let z = bounded::<N>(raw, cap, capped);
                let mut d = (z - Vector::new(top)).exp() * Vector::new(factor);
                if i == place {
                    #[unroll]
                    for lane in 0..lanes {
                        if hit == lane {
                            let own = d.extract(lane) - weight;
                            d.insert(lane, own);
                        }
                    }
                }
                if comptime!(capped) {
                    d *= slope_of::<N>(raw, cap);
                }
                gradients[from + i] = Vector::cast_from(d);
            }
        }
    }
}

#[cube(launch_unchecked)]
fn sum_all(numbers: &[f32], total: &mut [f32], count: usize, #[comptime] team: Team) {
    let mut sum = 0.0f32;
    for i in range_stepped(UNIT_POS as usize, count, comptime!(team.units as usize)) {
        sum += numbers[i];
    }
    let sum = cube_sum(sum, team);
    if UNIT_POS == 0 {
        total[0] = sum;
    }
}
