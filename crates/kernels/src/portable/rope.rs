use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::rope::Angles;

/// The angles of a batch as tensors.
#[derive(Debug)]
pub(crate) struct RotationTensors {
    /// `[rows, seq, 1, 2, d / 2]`
    cos: Tensor<5>,
    /// `[rows, seq, 1, 2, d / 2]`, the first half negated, so that swapping the halves of `x` suffices.
    sin: Tensor<5>,
}

impl RotationTensors {
    pub(crate) fn new(angles: &Angles, dtype: DType, device: &Device) -> Self {
        let (half, count) = (angles.half.max(1), angles.cos.len());
        let mut cos = Vec::with_capacity(2 * count);
        let mut sin = Vec::with_capacity(2 * count);
        for (c, s) in angles.cos.chunks(half).zip(angles.sin.chunks(half)) {
            cos.extend(c.iter().chain(c));
            sin.extend(s.iter().map(|s| -s).chain(s.iter().copied()));
        }
        let shape = [angles.rows, angles.seq, 1, 2, angles.half];
        let tensor = |values: Vec<f32>| {
            Tensor::<5>::from_data(TensorData::new(values, shape), (device, DType::F32)).cast(dtype)
        };
        Self {
            cos: tensor(cos),
            sin: tensor(sin),
        }
    }

    /// `[batch, seq, heads, d]`, as the result.
    pub(crate) fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, seq, heads, d] = x.dims();
        let rotated = 2 * self.cos.dims()[4];
        if rotated < d {
            let kept = x.clone().narrow(3, rotated, d - rotated);
            return Tensor::cat(vec![self.rotate(x.narrow(3, 0, rotated)), kept], 3);
        }
        let x = x.reshape([batch, seq, heads, 2, d / 2]);
        // A flip of the pair of halves swaps them; its backward is a flip again, where slices would need zeroed copies.
        let swapped = x.clone().flip([3]);
        let y = x * self.cos.clone() + swapped * self.sin.clone();
        y.reshape([batch, seq, heads, d])
    }
}
