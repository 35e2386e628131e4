//! What decoders say.

use burn_lora::transformer::{Decoder, DecoderClassifier};

use super::file::ScoreFile;
use super::log_probs::{Totals, log_prob};
use super::results::{host, padded, write_inputs, write_logits};
use super::rows::Row;
use crate::failure::Failure;

/// The tokens of each row, which is one text.
fn ids(batch: &[Row]) -> Vec<&[u32]> {
    let sequences = batch.iter().flat_map(|row| &row.sequences);
    sequences.map(|sequence| sequence.ids.as_slice()).collect()
}

/// The token after each.
pub fn score(
    decoder: &Decoder,
    batch: &[Row],
    first: usize,
    file: &mut ScoreFile,
    totals: &mut Totals,
) -> Result<(), Failure> {
    let rows = ids(batch);
    // No token sees the padding behind it.
    let hidden = decoder.hidden(padded(&rows, 0, &decoder.device()), None); // [batch, seq, hidden]
    for (at, ids) in rows.iter().enumerate() {
        let row = first + at;
        write_inputs(file, row, &batch[at])?;
        let states = hidden.clone().slice([at..at + 1, 0..ids.len()]); // [1, tokens, hidden]
        let mut log_probs = vec![0.0; ids.len()];
        let logits_of = |states| decoder.logits_of(states);
        let width = decoder.vocab_size();
        write_logits(file, row, &states, width, logits_of, |position, logits| {
            // The logits at a position are those of the token that follows.
            if let Some(next) = ids.get(position + 1) {
                log_probs[position + 1] = log_prob(logits, *next as usize);
            }
        })?;
        file.floats("log_probs", row, 0, &log_probs)?;
        totals.add_tokens(ids.len(), &[]);
        totals.add_predicted(&log_probs[1..]);
    }
    Ok(())
}

/// The labels of each row.
pub fn label(
    model: &DecoderClassifier,
    batch: &[Row],
    first: usize,
    file: &mut ScoreFile,
    totals: &mut Totals,
) -> Result<(), Failure> {
    let rows = ids(batch);
    let lengths: Vec<usize> = rows.iter().map(|ids| ids.len()).collect();
    let logits = host(model.forward(padded(&rows, 0, &model.device()), &lengths))?;
    for (at, logits) in logits.chunks_exact(model.num_labels()).enumerate() {
        write_inputs(file, first + at, &batch[at])?;
        file.floats("logits", first + at, 0, logits)?;
        totals.add_tokens(lengths[at], logits);
    }
    Ok(())
}
