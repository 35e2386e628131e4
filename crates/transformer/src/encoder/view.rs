use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_lora_kernels::{AttentionMask, Rope, RopeScaling, RopeTables};

use super::batch::EncoderBatch;
use super::spec::{Spec, ViewSpec};

/// Added to a score that must not count: finite, so that a row in which none counts stays a number.
pub(crate) const BLOCKED: f32 = -1e9;

/// What layers of one kind see of a batch, made once and shared by them.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) mask: AttentionMask,
    pub(crate) rope: Option<RopeTables>,
}

impl View {
    pub(crate) fn all(spec: &Spec, batch: &EncoderBatch, dtype: DType) -> Vec<Self> {
        let view = |view: &ViewSpec| Self::new(spec, view, batch, dtype);
        spec.views.iter().map(view).collect()
    }

    fn new(spec: &Spec, view: &ViewSpec, batch: &EncoderBatch, dtype: DType) -> Self {
        let ([_, seq], device) = (batch.ids.dims(), batch.ids.device());
        let mask = match view.reach {
            Some(reach) => AttentionMask::local(seq, &batch.lengths, reach, &device),
            None => AttentionMask::right_padded(seq, &batch.lengths, &device),
        };
        let rope = view.theta.map(|theta| {
            let d_head = spec.hidden_size / spec.n_heads;
            let positions: Vec<usize> = (0..seq).collect();
            Rope::new(d_head, theta, RopeScaling::None).tables(&positions, 1, dtype, &device)
        });
        Self { mask, rope }
    }
}

/// Blocks padding, `[batch, 1, 1, seq]`, unless there is none.
pub(crate) fn padding(seq: usize, lengths: &[usize], device: &Device) -> Option<Tensor<4>> {
    if lengths.iter().all(|length| *length >= seq) {
        return None;
    }
    let mut bias = vec![BLOCKED; lengths.len() * seq];
    for (scores, length) in bias.chunks_mut(seq).zip(lengths) {
        scores[..(*length).min(seq)].fill(0.0);
    }
    Some(on(bias, [lengths.len(), 1, 1, seq], device))
}

pub(crate) fn on(bias: Vec<f32>, shape: [usize; 4], device: &Device) -> Tensor<4> {
    let device = device.clone().without_autodiff();
    Tensor::from_data(TensorData::new(bias, shape), (&device, DType::F32))
}
