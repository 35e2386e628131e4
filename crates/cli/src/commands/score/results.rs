//! From tensors to the columns of the file.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::file::ScoreFile;
use super::rows::Row;
use crate::failure::{Failure, Kind};

/// The logits that are on the host at once.
const CHUNK: usize = 1 << 24;

/// The numbers of a tensor in f32.
pub fn host<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, Failure> {
    let failed =
        |error: String| Failure::new(Kind::Device, format!("cannot read the logits: {error}"));
    let data = tensor.cast(DType::F32).try_into_data();
    let data = data.map_err(|error| failed(error.to_string()))?;
    data.try_to_vec()
        .map_err(|error| failed(format!("{error:?}")))
}

/// Writes the logits of a row, and shows each vector of them with its position.
///
/// `states` are the hidden states of the row's tokens, `[1, seq, hidden]`.
pub fn write_logits(
    file: &mut ScoreFile,
    row: usize,
    states: &Tensor<3>,
    width: usize,
    logits_of: impl Fn(Tensor<3>) -> Tensor<3>,
    mut each: impl FnMut(usize, &[f32]),
) -> Result<(), Failure> {
    let seq = states.dims()[1];
    let step = (CHUNK / width.max(1)).max(1);
    for start in (0..seq).step_by(step) {
        let end = (start + step).min(seq);
        let logits = host(logits_of(states.clone().slice([0..1, start..end])))?;
        file.floats("logits", row, start * width, &logits)?;
        for (position, logits) in (start..end).zip(logits.chunks_exact(width)) {
            each(position, logits);
        }
    }
    Ok(())
}

/// Writes what goes into the model, padded behind with 0.
pub fn write_inputs(file: &mut ScoreFile, row: usize, content: &Row) -> Result<(), Failure> {
    for (at, sequence) in content.sequences.iter().enumerate() {
        let ids: Vec<i64> = sequence.ids.iter().map(|id| i64::from(*id)).collect();
        file.ints("input_ids", row, at, &ids)?;
        file.ints("attention_mask", row, at, &vec![1; ids.len()])?;
        let segments = sequence.segments.iter().map(|id| i64::from(*id));
        file.ints("token_type_ids", row, at, &segments.collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Rows padded behind to the longest.
pub fn padded(rows: &[&[u32]], pad: u32, device: &Device) -> Tensor<2, Int> {
    let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let values = rows.iter().flat_map(|row| {
        let padding = std::iter::repeat_n(&pad, longest - row.len());
        row.iter().chain(padding).map(|id| i64::from(*id))
    });
    let data = TensorData::new(values.collect::<Vec<_>>(), [rows.len(), longest]);
    Tensor::from_data(data, device)
}
