use std::sync::{Arc, OnceLock};

use burn::tensor::{DType, Device, Tensor};

#[cfg(feature = "cube")]
use crate::cube;
#[cfg(feature = "host")]
use crate::host;
use crate::portable::RotationTensors;
use crate::rope_scaling::RopeScaling;

/// Rotary position embedding (arXiv:2104.09864) on split halves, as Hugging Face's Llama stores its weights.
///
/// With `x = [x1, x2]` in two halves and `angle_i = position * theta^(-2i / d)`:
/// `y = [x1 cos - x2 sin, x2 cos + x1 sin]`.
///
/// Heads may be wider than what is rotated; the coordinates behind it stay as they are.
#[derive(Debug, Clone)]
pub struct Rope {
    /// How many coordinates are rotated.
    d: usize,
    theta: f64,
    scaling: RopeScaling,
}

impl Rope {
    /// The rotation of the first `d` coordinates of a head.
    pub fn new(d: usize, theta: f64, scaling: RopeScaling) -> Self {
        Self { d, theta, scaling }
    }

    /// The rotations for these positions: `rows` sequences of equal length, one after the other.
    ///
    /// `rows` is 1 when all sequences of a batch have the same positions. The angles are computed on the host in `f32`:
    /// a GPU's own sine may be far off for the large angles of long contexts. A scaling that depends on the length is that
    /// of sequences which end at the largest position.
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
        let length = positions.iter().max().map_or(0, |last| last + 1);
        self.tables_within(length, positions, rows, dtype, device)
    }

    /// [`tables`](Self::tables) of a part of sequences of this length.
    ///
    /// # Panics
    ///
    /// As [`tables`](Self::tables).
    pub fn tables_within(
        &self,
        length: usize,
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
        let frequencies = self.scaling.frequencies(self.d, self.theta, length);
        let amplitude = self.scaling.amplitude();
        let table = |function: fn(f32) -> f32| {
            let row = |position: &usize| {
                let position = *position as f32;
                let frequencies = frequencies.iter();
                frequencies.map(move |f| function(position * f) * amplitude)
            };
            positions.iter().flat_map(row).collect()
        };
        let angles = Angles {
            cos: table(f32::cos),
            sin: table(f32::sin),
            rows,
            seq: positions.len() / rows.max(1),
            half: frequencies.len(),
        };
        RopeTables {
            angles: Arc::new(angles),
            tensors: Arc::default(),
            dtype,
            device: device.clone().without_autodiff(),
            #[cfg(feature = "cube")]
            on_gpu: cube::DeviceAngles::default(),
        }
    }
}

/// Cosine and sine of every angle of a batch, times the amplitude of the scaling.
#[derive(Debug)]
pub(crate) struct Angles {
    /// `[rows, seq, half]`
    pub(crate) cos: Vec<f32>,
    /// `[rows, seq, half]`
    pub(crate) sin: Vec<f32>,
    /// 1 where all rows of the batch have the same positions.
    pub(crate) rows: usize,
    pub(crate) seq: usize,
    /// Half of the coordinates that are rotated.
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
    #[cfg(feature = "cube")]
    on_gpu: cube::DeviceAngles,
}

impl RopeTables {
    /// Rotates each head by its position.
    ///
    /// # Shapes
    ///
    /// - x: `[batch, seq, heads, d]`, at least as wide as what is rotated
    /// - output: `[batch, seq, heads, d]`
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        #[cfg(feature = "host")]
        if host::takes(&x) {
            return host::rotate(x, self.angles.clone());
        }
        #[cfg(feature = "cube")]
        if cube::takes(&x) {
            return cube::rotate(x, self.angles.clone(), &self.on_gpu);
        }
        self.apply_portable(x)
    }

    /// What kernels need of it.
    #[cfg(feature = "cube")]
    pub(crate) fn on_gpu(&self) -> (Arc<Angles>, &cube::DeviceAngles) {
        (self.angles.clone(), &self.on_gpu)
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
    fn coordinates_behind_the_rotated_ones_stay() {
        let device = device();
        let tables = Rope::new(2, 100.0, RopeScaling::None).tables(&[3], 1, DType::F32, &device);
        let x = Tensor::<4>::from_floats([[[[1.0, 2.0, 3.0]]]], &device);
        let (sin, cos) = 3.0f32.sin_cos();
        assert_values(tables.apply(x), &[cos - 2.0 * sin, 2.0 * cos + sin, 3.0]);
    }
}
