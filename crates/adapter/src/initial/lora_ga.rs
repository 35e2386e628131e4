//! LoRA-GA (Wang et al., 2024, "LoRA-GA: Low-Rank Adaptation with Gradient Approximation").
//!
//! With the weight's gradient `G = U S V^T` in the layout `[out, in]`, A takes `r` of the first `2 r` right vectors and B others of the
//! left, so that the first step of LoRA is near that of full fine-tuning; the base becomes `W - s A B`. PEFT: `lora_ga`, with its
//! `lora_ga_config`.

use burn_lora_linalg::{Matrix, Normal, randomized_svd};

use super::{Begun, Layer};

/// Which of the singular vectors become A and which B (`direction`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// `ArBr`: A the second, fourth, ..., B the first, third, ....
    ArBr,
    /// `A2rBr`: A the second half, B the first.
    A2rBr,
    /// `ArB2r`: A the first half, B the second.
    #[default]
    ArB2r,
    /// `random`: the same for both, drawn from all.
    Random,
}

/// What B, which has the gradient's singular values, is multiplied by (`scale`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GradientScale {
    /// `stable`: `d_out^1/4 / gamma^1/2`.
    Stable {
        /// `stable_gamma`
        gamma: f64,
    },
    /// `weight_svd`: the weight's largest singular value over B's.
    WeightSvd,
    /// `gd_scale`: both factors are divided by the adapter's scale.
    GradientDescent,
    /// `unit`: nothing.
    Unit,
}

/// Settings of LoRA-GA, with PEFT's defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraGa {
    /// Which vectors.
    pub direction: Direction,
    /// How large.
    pub scale: GradientScale,
}

impl Default for LoraGa {
    fn default() -> Self {
        Self {
            direction: Direction::default(),
            scale: GradientScale::Stable { gamma: 16.0 },
        }
    }
}

/// Power iterations of the sketches.
const ITERATIONS: usize = 4;

/// `gradient` is `[d_in, d_out]`, as the weight.
pub(super) fn begin(layer: &Layer<'_>, gradient: &Matrix, settings: &LoraGa) -> Begun {
    let r = layer.rank;
    let seed = layer.seed.wrapping_add(layer.index);
    let found = randomized_svd(gradient, 2 * r, ITERATIONS, seed)?;
    let (for_a, for_b): (Vec<usize>, Vec<usize>) = match settings.direction {
        Direction::ArBr => (
            (1..2 * r).step_by(2).collect(),
            (0..2 * r).step_by(2).collect(),
        ),
        Direction::A2rBr => ((r..2 * r).collect(), (0..r).collect()),
        Direction::ArB2r => ((0..r).collect(), (r..2 * r).collect()),
        Direction::Random => {
            let drawn = drawn(r, layer);
            (drawn.clone(), drawn)
        }
    };
    // Our layout turns the gradient around: its left vectors are of the inputs.
    let a = found.u.pick_columns(&for_a); // [d_in, r]
    let s: Vec<f64> = for_b.iter().map(|index| found.s[*index]).collect();
    let b = found.v.pick_columns(&for_b).scaled_columns(&s).transpose(); // [r, d_out]
    let d_out = layer.weight.columns() as f64;
    let (a, b) = match settings.scale {
        GradientScale::Stable { gamma } => (a, b.scaled(d_out.powf(0.25) / gamma.sqrt())),
        GradientScale::WeightSvd => {
            let largest = randomized_svd(layer.weight, r, ITERATIONS, seed)?.s[0];
            let factor = if s[0] > 0.0 { largest / s[0] } else { 1.0 };
            (a, b.scaled(factor))
        }
        GradientScale::GradientDescent => {
            (a.scaled(1.0 / layer.scale), b.scaled(1.0 / layer.scale))
        }
        GradientScale::Unit => (a, b),
    };
    Ok(layer.taken_out(a, b))
}

/// `r` of the numbers below `2 r`, in the order in which they come up.
fn drawn(r: usize, layer: &Layer<'_>) -> Vec<usize> {
    let mut normal = Normal::new(layer.seed, layer.index);
    let mut keyed: Vec<(f64, usize)> = (0..2 * r).map(|index| (normal.draw(), index)).collect();
    keyed.sort_by(|(x, _), (y, _)| x.total_cmp(y));
    keyed.into_iter().take(r).map(|(_, index)| index).collect()
}
