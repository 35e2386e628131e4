use std::sync::{Arc, OnceLock};

use burn::tensor::{DType, Device, Tensor};

#[cfg(feature = "host")]
use crate::host;
use crate::portable::RotationTensors;

/// How the rotation frequencies are stretched for contexts longer than those of pretraining.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum RopeScaling {
    /// As in pretraining.
    #[default]
    None,
    /// All frequencies divided by one factor (arXiv:2306.15595).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths divided by the factor, short ones kept, those between interpolated.
    Llama3 {
        /// The divisor of long wavelengths.
        factor: f64,
        /// A wavelength above `original_positions / low_freq_factor` is long.
        low_freq_factor: f64,
        /// A wavelength below `original_positions / high_freq_factor` is short.
        high_freq_factor: f64,
        /// The context length of pretraining.
        original_positions: usize,
    },
}

impl RopeScaling {
    fn apply(self, frequency: f64) -> f64 {
        match self {
            RopeScaling::None => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_positions,
            } => {
                let turns = original_positions as f64 * frequency / std::f64::consts::TAU;
                let kept = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                let kept = kept.clamp(0.0, 1.0);
                kept * frequency + (1.0 - kept) * frequency / factor
            }
        }
    }
}

/// Rotary position embedding (arXiv:2104.09864) on split halves, as Hugging Face's Llama stores its weights.
///
/// With `x = [x1, x2]` in two halves and `angle_i = position * theta^(-2i / d)`:
/// `y = [x1 cos - x2 sin, x2 cos + x1 sin]`.
#[derive(Debug, Clone)]
pub struct Rope {
    /// One frequency for each pair of coordinates.
    frequencies: Vec<f32>,
}

impl Rope {
    /// The frequencies for heads of width `d_head`.
    pub fn new(d_head: usize, theta: f64, scaling: RopeScaling) -> Self {
        let frequencies = (0..d_head / 2)
            .map(|i| scaling.apply(theta.powf(-2.0 * i as f64 / d_head as f64)) as f32)
            .collect();
        Self { frequencies }
    }

    /// The rotations for these positions: `rows` sequences of equal length, one after the other.
    ///
    /// `rows` is 1 when all sequences of a batch have the same positions. The angles are computed on the host in `f32`:
    /// a GPU's own sine may be far off for the large angles of long contexts.
    ///
    /// # Panics
    ///
    /// If `positions` does not divide into `rows`.
    pub fn tables(
        &self,
        positions: &[usize],
        rows: usize,
        dtype: DType,
        device: &Device,
    ) -> RopeTables {
        assert_eq!(
            positions.len() % rows.max(1),
            0,
            "positions do not fill the rows"
        );
        let angles = |position: &usize| {
            let position = *position as f32;
            self.frequencies.iter().map(move |f| position * f)
        };
        let angles = Angles {
            cos: positions.iter().flat_map(angles).map(f32::cos).collect(),
            sin: positions.iter().flat_map(angles).map(f32::sin).collect(),
            rows,
            seq: positions.len() / rows.max(1),
            half: self.frequencies.len(),
        };
        RopeTables {
            angles: Arc::new(angles),
            tensors: Arc::default(),
            dtype,
            device: device.clone().without_autodiff(),
        }
    }
}

/// Cosine and sine of every angle of a batch.
#[derive(Debug)]
pub(crate) struct Angles {
    /// `[rows, seq, half]`
    pub(crate) cos: Vec<f32>,
    /// `[rows, seq, half]`
    pub(crate) sin: Vec<f32>,
    /// 1 where all rows of the batch have the same positions.
    pub(crate) rows: usize,
    pub(crate) seq: usize,
    /// Half a head's width.
    pub(crate) half: usize,
}

impl Angles {
    /// Cosines and sines for a token of the batch.
    #[cfg(feature = "host")]
    #[inline(always)]
    pub(crate) fn of(&self, row: usize, at: usize) -> (&[f32], &[f32]) {
        let row = if self.rows == 1 { 0 } else { row };
        let from = (row * self.seq + at) * self.half;
        (
            &self.cos[from..][..self.half],
            &self.sin[from..][..self.half],
        )
    }
}

/// The rotations of one batch, shared by all its layers.
#[derive(Debug, Clone)]
pub struct RopeTables {
    angles: Arc<Angles>,
    /// Made when a device first needs them.
    tensors: Arc<OnceLock<RotationTensors>>,
    dtype: DType,
    device: Device,
}

impl RopeTables {
    /// Rotates each head by its position.
    ///
    /// # Shapes
    ///
    /// - x: `[batch, seq, heads, d]`
    /// - output: `[batch, seq, heads, d]`
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        #[cfg(feature = "host")]
        if host::takes(&x) {
            return host::rotate(x, self.angles.clone());
        }
        self.apply_portable(x)
    }

    /// As [`apply`](Self::apply), by tensor operations.
    pub(crate) fn apply_portable(&self, x: Tensor<4>) -> Tensor<4> {
        let tensors = self
            .tensors
            .get_or_init(|| RotationTensors::new(&self.angles, self.dtype, &self.device));
        tensors.rotate(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_values, device};

    #[test]
    fn rotates_split_halves_by_position_times_frequency() {
        let device = device();
        let rope = Rope::new(4, 100.0, RopeScaling::None);
        let x =
            Tensor::<4>::from_floats([[[[1.0, 2.0, 3.0, 4.0]], [[1.0, 2.0, 3.0, 4.0]]]], &device);
        let y = rope.tables(&[0, 3], 1, DType::F32, &device).apply(x);
        // Frequencies 1 and 0.1; coordinate i turns with coordinate i + 2.
        let (a, b) = (3.0f32, 0.3f32);
        assert_values(
            y,
            &[
                1.0,
                2.0,
                3.0,
                4.0,
                a.cos() - 3.0 * a.sin(),
                2.0 * b.cos() - 4.0 * b.sin(),
                3.0 * a.cos() + a.sin(),
                4.0 * b.cos() + 2.0 * b.sin(),
            ],
        );
    }

    #[test]
    fn each_row_may_have_its_own_positions() {
        let device = device();
        let rope = Rope::new(4, 10000.0, RopeScaling::None);
        let x = Tensor::<4>::from_floats(
            [[[[1.0, 2.0, 3.0, 4.0]]], [[[5.0, 6.0, 7.0, 8.0]]]],
            &device,
        );
        let both = rope
            .tables(&[2, 7], 2, DType::F32, &device)
            .apply(x.clone());
        let alone = rope
            .tables(&[7], 1, DType::F32, &device)
            .apply(x.narrow(0, 1, 1));
        let alone = alone.into_data().try_to_vec::<f32>().expect("f32");
        assert_values(both.narrow(0, 1, 1), &alone);
    }

    #[test]
    fn backward_is_the_inverse_rotation() {
        let device = device();
        let tables = Rope::new(4, 100.0, RopeScaling::None).tables(&[5], 1, DType::F32, &device);
        let x = Tensor::<4>::from_floats([[[[1.0, -2.0, 0.5, 3.0]]]], &device).require_grad();
        let y = tables.apply(x.clone());
        // d(|y|^2 / 2) / dx = R^T y = x.
        let grads = (y.square().sum() * 0.5).backward();
        assert_values(
            x.grad(&grads).expect("x is tracked"),
            &[1.0, -2.0, 0.5, 3.0],
        );
    }

    #[test]
    fn llama3_scaling_keeps_short_and_divides_long_wavelengths() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_positions: 8192,
        };
        assert_eq!(scaling.apply(1.0), 1.0);
        assert_eq!(scaling.apply(1e-5), 1e-5 / 8.0);
        // A wavelength of 8192 / 2 turns twice in the original context: a third of the way from long to short.
        let middle = std::f64::consts::TAU * 2.0 / 8192.0;
        let expected = middle / 3.0 + middle * 2.0 / 3.0 / 8.0;
        assert!((scaling.apply(middle) - expected).abs() < 1e-12);
    }

    #[test]
    fn linear_scaling_divides_every_frequency() {
        let plain = Rope::new(8, 10000.0, RopeScaling::None);
        let scaled = Rope::new(8, 10000.0, RopeScaling::Linear { factor: 4.0 });
        for (a, b) in plain.frequencies.iter().zip(&scaled.frequencies) {
            assert!((a / 4.0 - b).abs() < 1e-7);
        }
    }
}
