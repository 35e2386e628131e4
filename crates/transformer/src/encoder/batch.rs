use burn::tensor::{Device, Int, Tensor, TensorData};
use thiserror::Error;

use super::spec::Spec;

/// What a row may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) vocab_size: usize,
    pub(crate) max_length: usize,
    /// Kinds of segments; 0 where there are none to be wrong.
    pub(crate) segments: usize,
}

/// Sequences for an encoder, padded behind to one length.
#[derive(Debug, Clone)]
pub struct EncoderBatch {
    /// `[batch, seq]`; what stands at padding may be any token.
    pub ids: Tensor<2, Int>,
    /// The tokens of each row that are no padding.
    pub lengths: Vec<usize>,
    /// The segment of each token, `[batch, seq]`; the first where nothing stands. Encoders that know no segments pass
    /// over them.
    pub segments: Option<Tensor<2, Int>>,
}

/// Rows that an encoder cannot take.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("the rows do not fit the encoder:{}", .problems.iter().map(|line| format!("\n  {line}")).collect::<String>())]
pub struct BatchError {
    /// One line for each row and what is wrong with it.
    pub problems: Vec<String>,
}

impl EncoderBatch {
    /// A batch of one segment.
    pub fn new(ids: Tensor<2, Int>, lengths: impl Into<Vec<usize>>) -> Self {
        Self {
            ids,
            lengths: lengths.into(),
            segments: None,
        }
    }

    /// With the segment of each token, `[batch, seq]`.
    pub fn with_segments(mut self, segments: Tensor<2, Int>) -> Self {
        self.segments = Some(segments);
        self
    }

    /// 1 at tokens and 0 at padding, `[batch, seq]` in f32, unless there is no padding.
    pub(crate) fn mask(&self) -> Option<Tensor<2>> {
        let [batch, seq] = self.ids.dims();
        if self.lengths.iter().all(|length| *length >= seq) {
            return None;
        }
        let row = |length: &usize| {
            let length = *length;
            (0..seq).map(move |at| if at < length { 1.0f32 } else { 0.0 })
        };
        let values: Vec<f32> = self.lengths.iter().flat_map(row).collect();
        let device = self.ids.device().without_autodiff();
        Some(Tensor::from_data(
            TensorData::new(values, [batch, seq]),
            &device,
        ))
    }

    /// # Panics
    ///
    /// If the shapes are no batch for this encoder.
    pub(crate) fn assert_fits(&self, spec: &Spec) {
        let (seq, limit) = (self.ids.dims()[1], spec.max_length);
        assert!(seq <= limit, "{seq} tokens do not fit {limit} positions");
        self.assert_rows();
    }

    /// # Panics
    ///
    /// If the shapes are no batch.
    pub(crate) fn assert_rows(&self) {
        let [batch, seq] = self.ids.dims();
        let fits = |length: &usize| (1..=seq).contains(length);
        assert!(
            self.lengths.len() == batch && self.lengths.iter().all(fits),
            "the lengths {:?} are not those of {batch} rows of up to {seq} tokens",
            self.lengths
        );
        if let Some(segments) = &self.segments {
            assert_eq!(
                segments.dims(),
                [batch, seq],
                "not one segment for each token"
            );
        }
    }

    /// Pads rows to the longest and puts them on a device.
    ///
    /// # Errors
    ///
    /// Every row that is empty or too long, holds tokens or segments that the encoder does not know, or has not one
    /// segment for each token.
    pub(crate) fn from_rows(
        rows: &[Vec<u32>],
        segments: Option<&[Vec<u32>]>,
        limits: Limits,
        device: &Device,
    ) -> Result<Self, BatchError> {
        let problems = problems(rows, segments, limits);
        match problems.is_empty() {
            true => Ok(Self::padded(rows, segments, device)),
            false => Err(BatchError { problems }),
        }
    }

    /// As [`Self::from_rows`], of rows that were looked at before.
    pub(crate) fn padded(
        rows: &[Vec<u32>],
        segments: Option<&[Vec<u32>]>,
        device: &Device,
    ) -> Self {
        let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
        let seq = lengths.iter().copied().max().unwrap_or(0);
        let tensor = |rows: &[Vec<u32>]| -> Tensor<2, Int> {
            let padded = rows.iter().flat_map(|row| {
                let padding = std::iter::repeat_n(0, seq - row.len());
                row.iter().map(|id| *id as i32).chain(padding)
            });
            let values: Vec<i32> = padded.collect();
            Tensor::from_data(TensorData::new(values, [rows.len(), seq]), device)
        };
        Self {
            ids: tensor(rows),
            lengths,
            segments: segments.map(tensor),
        }
    }
}

fn problems(rows: &[Vec<u32>], segments: Option<&[Vec<u32>]>, limits: Limits) -> Vec<String> {
    let mut problems = Vec::new();
    if rows.is_empty() {
        problems.push("there is no row".into());
    }
    for (at, row) in rows.iter().enumerate() {
        if row.is_empty() {
            problems.push(format!("row {at} has no token"));
        }
        if row.len() > limits.max_length {
            let (length, limit) = (row.len(), limits.max_length);
            problems.push(format!(
                "row {at} has {length} tokens, the model {limit} positions"
            ));
        }
        if let Some(id) = row.iter().find(|id| **id as usize >= limits.vocab_size) {
            let known = limits.vocab_size;
            problems.push(format!(
                "row {at} has the token {id}; the model knows those below {known}"
            ));
        }
    }
    let Some(segments) = segments else {
        return problems;
    };
    if segments.len() != rows.len() {
        let (found, expected) = (segments.len(), rows.len());
        problems.push(format!("{found} rows of segments for {expected} rows"));
    }
    for (at, (segments, row)) in segments.iter().zip(rows).enumerate() {
        if segments.len() != row.len() {
            let (found, expected) = (segments.len(), row.len());
            problems.push(format!(
                "row {at} has {found} segments for {expected} tokens"
            ));
        }
        // An encoder without segments passes over them.
        let unknown = |id: &&u32| limits.segments > 0 && **id as usize >= limits.segments;
        if let Some(id) = segments.iter().find(unknown) {
            let known = limits.segments;
            problems.push(format!(
                "row {at} has the segment {id}; the model knows those below {known}"
            ));
        }
    }
    problems
}
