//! What encoders say.

use burn_lora::transformer::{
    Encoder, EncoderBatch, MaskedLm, MultipleChoice, SentenceEncoder, SequenceClassifier,
    TokenClassifier,
};

use super::file::ScoreFile;
use super::log_probs::{Totals, log_prob};
use super::results::{host, write_inputs, write_logits};
use super::rows::{Row, Sequence};
use crate::failure::{Failure, Kind};

fn sequences_of(batch: &[Row]) -> impl Iterator<Item = &Sequence> {
    batch.iter().flat_map(|row| &row.sequences)
}

/// The texts of all rows, one after the other.
fn encoded(encoder: &Encoder, batch: &[Row]) -> Result<EncoderBatch, Failure> {
    let ids: Vec<Vec<u32>> = sequences_of(batch).map(|text| text.ids.clone()).collect();
    let segments = sequences_of(batch).map(|text| match text.segments.is_empty() {
        true => vec![0; text.ids.len()],
        false => text.segments.clone(),
    });
    let segments: Vec<Vec<u32>> = segments.collect();
    let batch = encoder.batch(&ids, Some(&segments));
    batch.map_err(|error| Failure::new(Kind::Data, error))
}

/// Writes one vector for each row.
fn write_vectors(
    name: &str,
    vectors: &[f32],
    batch: &[Row],
    first: usize,
    file: &mut ScoreFile,
    totals: &mut Totals,
) -> Result<(), Failure> {
    let width = vectors.len() / batch.len();
    for (at, vector) in vectors.chunks_exact(width).enumerate() {
        write_inputs(file, first + at, &batch[at])?;
        file.floats(name, first + at, 0, vector)?;
        let tokens = batch[at].sequences.iter().map(|text| text.ids.len());
        totals.add_tokens(tokens.sum(), vector);
    }
    Ok(())
}

/// The labels of each row.
pub fn sequences(
    model: &SequenceClassifier,
    batch: &[Row],
    first: usize,
    file: &mut ScoreFile,
    totals: &mut Totals,
) -> Result<(), Failure> {
    let logits = host(model.forward(&encoded(&model.encoder, batch)?))?;
    write_vectors("logits", &logits, batch, first, file, totals)
}

/// How likely each choice is.
pub fn choices(
    model: &MultipleChoice,
    batch: &[Row],
    first: usize,
    file: &mut ScoreFile,
    totals: &mut Totals,
) -> Result<(), Failure> {
    let texts = encoded(&model.encoder, batch)?;
    let choices = texts.lengths.len() / batch.len();
    let logits = host(model.forward(&texts, choices))?;
    write_vectors("logits", &logits, batch, first, file, totals)
}

/// One vector of each row.
pub fn embeddings(
    model: &SentenceEncoder,
    batch: &[Row],
    first: usize,
    file: &mut ScoreFile,
    totals: &mut Totals,
) -> Result<(), Failure> {
    let vectors = host(model.forward(&encoded(&model.encoder, batch)?))?;
    write_vectors("embeddings", &vectors, batch, first, file, totals)
}

/// The labels of each token.
pub fn tokens(
    model: &TokenClassifier,
    batch: &[Row],
    first: usize,
    file: &mut ScoreFile,
    totals: &mut Totals,
) -> Result<(), Failure> {
    let logits = model.forward(&encoded(&model.encoder, batch)?); // [batch, seq, labels]
    for (at, text) in sequences_of(batch).enumerate() {
        let of_row = logits.clone().slice([at..at + 1, 0..text.ids.len()]);
        let numbers = host(of_row)?;
        write_inputs(file, first + at, &batch[at])?;
        file.floats("logits", first + at, 0, &numbers)?;
        totals.add_tokens(text.ids.len(), &numbers);
    }
    Ok(())
}

/// The token at each place, seen from both sides, itself included.
pub fn masked(
    model: &MaskedLm,
    batch: &[Row],
    first: usize,
    file: &mut ScoreFile,
    totals: &mut Totals,
) -> Result<(), Failure> {
    let hidden = model.encoder.hidden(&encoded(&model.encoder, batch)?); // [batch, seq, hidden]
    let width = model.config().vocab_size();
    for (at, text) in sequences_of(batch).enumerate() {
        let row = first + at;
        write_inputs(file, row, &batch[at])?;
        let states = hidden.clone().slice([at..at + 1, 0..text.ids.len()]); // [1, tokens, hidden]
        let mut log_probs = vec![0.0; text.ids.len()];
        let logits_of = |states| model.logits_of(states);
        write_logits(file, row, &states, width, logits_of, |position, logits| {
            log_probs[position] = log_prob(logits, text.ids[position] as usize);
        })?;
        file.floats("log_probs", row, 0, &log_probs)?;
        totals.add_tokens(text.ids.len(), &[]);
        totals.add_predicted(&log_probs);
    }
    Ok(())
}
