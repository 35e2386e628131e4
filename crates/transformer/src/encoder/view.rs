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
            // As good as the whole sequence.
            Some(reach) if reach + 1 < seq => {
                AttentionMask::from_bias(window(seq, reach, &batch.lengths, &device))
            }
            _ => AttentionMask::right_padded(seq, &batch.lengths, &device),
        };
        let rope = view.theta.map(|theta| {
            let d_head = spec.hidden_size / spec.n_heads;
            let positions: Vec<usize> = (0..seq).collect();
            Rope::new(d_head, theta, RopeScaling::None).tables(&positions, 1, dtype, &device)
        });
        Self { mask, rope }
    }
}

/// Blocks what is further away than `reach`, and padding. `[batch or 1, 1, seq, seq]`
fn window(seq: usize, reach: usize, lengths: &[usize], device: &Device) -> Tensor<4> {
    let padded = lengths.iter().any(|length| *length < seq);
    let lengths = if padded { lengths } else { &lengths[..1] };
    let mut bias = vec![BLOCKED; lengths.len() * seq * seq];
    for (at, scores) in bias.chunks_mut(seq).enumerate() {
        let (length, query) = (lengths[at / seq], at % seq);
        let end = (query + reach + 1).min(length);
        scores[query.saturating_sub(reach).min(end)..end].fill(0.0);
    }
    on(bias, [lengths.len(), 1, seq, seq], device)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_ends_at_its_reach_and_at_padding() {
        let bias = window(4, 1, &[4, 2], &Device::flex());
        let seen: Vec<bool> = bias.into_data().iter::<f32>().map(|x| x == 0.0).collect();
        let rows: Vec<Vec<usize>> = seen
            .chunks(4)
            .map(|row| (0..4).filter(|at| row[*at]).collect())
            .collect();
        let whole: [&[usize]; 4] = [&[0, 1], &[0, 1, 2], &[1, 2, 3], &[2, 3]];
        let short: [&[usize]; 4] = [&[0, 1], &[0, 1], &[1], &[]];
        assert_eq!(rows[..4], whole);
        assert_eq!(rows[4..], short);
    }
}
