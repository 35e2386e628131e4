//! LoftQ (Li et al., 2023, "LoftQ: LoRA-Fine-Tuning-Aware Quantization for Large Language Models").
//!
//! Alternates: `Q = quantized(W - s A B)`, then `s A B` is the rank-`r` SVD of `W - Q`, in equal parts on both factors. The base
//! becomes `Q`, of which the layer differs from `W` by less than `Q` alone does. PEFT: `loftq`; it leaves `s` out and so means `s = 1`.

use burn_lora_linalg::{Matrix, svd};

use super::{Beginning, Begun, Layer};

/// What LoftQ quantizes to, and how often it alternates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoftQ {
    /// The format of the base.
    pub quantizer: Quantizer,
    /// Number of alternations, at least 1.
    pub iterations: usize,
}

impl Default for LoftQ {
    fn default() -> Self {
        Self {
            quantizer: Quantizer::Nf4,
            iterations: 1,
        }
    }
}

/// A simulated quantization: numbers are rounded to what the format holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantizer {
    /// 4 bits: sixteen quantiles of the normal distribution, scaled by the largest magnitude of each block of 64 numbers of a
    /// row-major `[out, in]` weight (Dettmers et al., 2023, "QLoRA"). `loftq_bits` 4.
    Nf4,
    /// 8 bits: 255 equal steps, scaled by the largest magnitude of each output. `loftq_bits` 8.
    Int8,
}

/// The sixteen values of NF4.
const NF4: [f64; 16] = [
    -1.0,
    -0.696_192_800_998_687_7,
    -0.525_073_051_452_636_7,
    -0.394_917_488_098_144_5,
    -0.284_441_381_692_886_35,
    -0.184_773_430_228_233_34,
    -0.091_050_036_251_544_95,
    0.0,
    0.079_580_299_556_255_34,
    0.160_930_201_411_247_25,
    0.246_112_301_945_686_34,
    0.337_915_241_718_292_24,
    0.440_709_829_330_444_34,
    0.562_617_003_917_694_1,
    0.722_956_836_223_602_3,
    1.0,
];

const BLOCK: usize = 64;

impl Quantizer {
    /// The nearest weight that the format holds, `[d_in, d_out]`.
    pub fn rounded(self, weight: &Matrix) -> Matrix {
        let [d_in, d_out] = weight.shape();
        // The order in which PyTorch stores the weight.
        let values: Vec<f64> = weight.transpose().iter().collect();
        let (block, nearest): (usize, fn(f64) -> f64) = match self {
            Self::Nf4 => (BLOCK, nearest_nf4),
            Self::Int8 => (d_in.max(1), |value| (value * 127.0).round() / 127.0),
        };
        let rounded: Vec<f64> = values
            .chunks(block)
            .flat_map(|block| {
                let most = block
                    .iter()
                    .fold(0.0, |most: f64, value| most.max(value.abs()));
                let unit = if most > 0.0 { most } else { 1.0 };
                block.iter().map(move |value| nearest(value / unit) * unit)
            })
            .collect();
        Matrix::from_fn(d_in, d_out, |row, column| rounded[column * d_in + row])
    }
}

fn nearest_nf4(value: f64) -> f64 {
    let distance = |level: &f64| (level - value).abs();
    let nearest = NF4
        .iter()
        .min_by(|x, y| distance(x).total_cmp(&distance(y)));
    nearest.copied().unwrap_or(value)
}

pub(super) fn begin(layer: &Layer<'_>, loftq: &LoftQ) -> Begun {
    let [d_in, d_out] = layer.weight.shape();
    let mut product = Matrix::zeros(d_in, d_out);
    let mut last = None;
    for _ in 0..loftq.iterations {
        let base = loftq.quantizer.rounded(&(layer.weight - &product));
        let found = svd(&(layer.weight - &base))?.truncated(layer.rank);
        let roots = layer.roots(&found.s);
        let a = found.u.scaled_columns(&roots);
        let b = found.v.scaled_columns(&roots).transpose();
        product = found.product();
        last = Some(Beginning {
            base: Some(base),
            ..layer.beside(a, b)
        });
    }
    // Checked to alternate at least once; zero factors over the weight would be right as well.
    let zeros = || {
        layer.beside(
            Matrix::zeros(d_in, layer.rank),
            Matrix::zeros(layer.rank, d_out),
        )
    };
    Ok(last.unwrap_or_else(zeros))
}
