//! The models that can be scored.

use std::path::Path;

use burn::tensor::{DType, Int, Tensor, TensorData};
use burn_lora::adapter::{DEFAULT_NAME, peft};
use burn_lora::transformer::{Decoder, DecoderConfig, LoadOptions, LoadReport};

use super::file::ScoreFile;
use super::log_probs::{Totals, log_prob};
use super::rows::Rows;
use crate::failure::{Failure, Kind};
use crate::progress::Bar;

/// The logits that are on the host at once.
const CHUNK: usize = 1 << 24;

/// What is known of a model before its weights are read.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub vocab_size: usize,
    pub max_positions: usize,
}

/// A model of any kind that has something to say of a sequence.
pub enum Model {
    /// Predicts the next token.
    Decoder(Decoder),
}

impl Model {
    /// Reads the configuration of a folder.
    pub fn shape(folder: &Path) -> Result<Shape, Failure> {
        let config = DecoderConfig::read(folder)?;
        Ok(Shape {
            vocab_size: config.vocab_size(),
            max_positions: config.max_positions(),
        })
    }

    /// Loads a folder, and an adapter onto it.
    pub fn load(
        folder: &Path,
        options: LoadOptions,
        adapter: Option<&Path>,
    ) -> Result<(Self, LoadReport), Failure> {
        let bar = Bar::bytes("loading");
        let options =
            options.with_progress(move |progress| bar.set(progress.bytes, progress.total_bytes));
        let (mut decoder, report) = Decoder::load_reported(folder, &options)?;
        if let Some(adapter) = adapter {
            decoder = peft::load(decoder, DEFAULT_NAME, adapter)?.0;
        }
        Ok((Self::Decoder(decoder), report))
    }

    /// The logits of a token.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Decoder(decoder) => decoder.vocab_size(),
        }
    }

    /// Computes all rows and writes them.
    pub fn score(
        &self,
        rows: &Rows,
        batch_size: usize,
        file: &mut ScoreFile,
    ) -> Result<Totals, Failure> {
        let bar = Bar::tokens("scoring");
        let mut totals = Totals::default();
        let all: usize = rows.ids().iter().map(Vec::len).sum();
        for (index, batch) in rows.ids().chunks(batch_size).enumerate() {
            let first = index * batch_size;
            match self {
                Self::Decoder(decoder) => score_decoder(decoder, batch, first, file, &mut totals)?,
            }
            bar.set(totals.tokens as u64, all as u64);
        }
        Ok(totals)
    }
}

fn score_decoder(
    decoder: &Decoder,
    batch: &[Vec<u32>],
    first: usize,
    file: &mut ScoreFile,
    totals: &mut Totals,
) -> Result<(), Failure> {
    let hidden = decoder.hidden(padded(batch, decoder), None); // [batch, seq, hidden]
    let vocab = decoder.vocab_size();
    let step = (CHUNK / vocab).max(1);
    for (at, ids) in batch.iter().enumerate() {
        let row = first + at;
        let tokens: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        file.ints("input_ids", row, &tokens)?;
        file.ints("attention_mask", row, &vec![1; ids.len()])?;
        let mut log_probs = vec![0.0; ids.len()];
        for start in (0..ids.len()).step_by(step) {
            let end = (start + step).min(ids.len());
            let states = hidden.clone().slice([at..at + 1, start..end]); // [1, step, hidden]
            let logits = host(decoder.logits_of(states))?;
            file.floats("logits", row, start * vocab, &logits)?;
            // The logits at a position are those of the token that follows.
            for (position, logits) in (start..end).zip(logits.chunks_exact(vocab)) {
                if let Some(next) = ids.get(position + 1) {
                    log_probs[position + 1] = log_prob(logits, *next as usize);
                }
            }
        }
        file.floats("log_probs", row, 0, &log_probs)?;
        totals.add(&log_probs);
    }
    Ok(())
}

/// A batch padded behind with token 0, which no token before it sees.
fn padded(batch: &[Vec<u32>], decoder: &Decoder) -> Tensor<2, Int> {
    let longest = batch.iter().map(Vec::len).max().unwrap_or(0);
    let rows = batch.iter().flat_map(|ids| {
        let ids = ids.iter().map(|id| i64::from(*id));
        ids.chain(std::iter::repeat(0)).take(longest)
    });
    let values: Vec<i64> = rows.collect();
    let data = TensorData::new(values, [batch.len(), longest]);
    Tensor::from_data(data, &decoder.device())
}

/// The numbers of a tensor in f32.
fn host(tensor: Tensor<3>) -> Result<Vec<f32>, Failure> {
    let failed =
        |error: String| Failure::new(Kind::Device, format!("cannot read the logits: {error}"));
    let data = tensor.cast(DType::F32).try_into_data();
    let data = data.map_err(|error| failed(error.to_string()))?;
    data.try_to_vec()
        .map_err(|error| failed(format!("{error:?}")))
}
