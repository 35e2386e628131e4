//! What encoder-decoders say of what is to be written.

use burn_lora::transformer::T5;

use super::file::ScoreFile;
use super::log_probs::{Totals, log_prob};
use super::results::{padded, write_inputs, write_logits};
use super::rows::Row;
use crate::failure::{Failure, Kind};

/// Transformers passes over such a label.
const IGNORED: i64 = -100;

/// Each token of the target, after the source and the tokens before it.
pub fn score(
    model: &T5,
    batch: &[Row],
    first: usize,
    file: &mut ScoreFile,
    totals: &mut Totals,
) -> Result<(), Failure> {
    let texts = batch.iter().flat_map(|row| &row.sequences);
    let sources: Vec<Vec<u32>> = texts.map(|text| text.ids.clone()).collect();
    let sources = model.batch(&sources);
    let sources = sources.map_err(|error| Failure::new(Kind::Data, error))?;

    let config = model.config();
    let before: Vec<Vec<u32>> = batch
        .iter()
        .map(|row| {
            let known = &row.target[..row.target.len() - 1];
            [&[config.decoder_start_token_id], known].concat()
        })
        .collect();
    let ids: Vec<&[u32]> = before.iter().map(Vec::as_slice).collect();
    let ids = padded(&ids, config.pad_token_id, &model.device());
    let hidden = model.decode(ids, &model.encode(&sources)); // [batch, written, d_model]
    for (at, content) in batch.iter().enumerate() {
        let (row, target) = (first + at, &content.target);
        write_inputs(file, row, content)?;
        let pad = i64::from(config.pad_token_id);
        file.filled("decoder_input_ids", row, &before[at], pad)?;
        file.filled("labels", row, target, IGNORED)?;
        let states = hidden.clone().slice([at..at + 1, 0..target.len()]); // [1, tokens, d_model]
        let mut log_probs = vec![0.0; target.len()];
        let logits_of = |states| model.logits_of(states);
        let width = config.vocab_size;
        write_logits(file, row, &states, width, logits_of, |position, logits| {
            log_probs[position] = log_prob(logits, target[position] as usize);
        })?;
        file.floats("log_probs", row, 0, &log_probs)?;
        let source: usize = content.sequences.iter().map(|text| text.ids.len()).sum();
        totals.add_tokens(source + target.len(), &[]);
        totals.add_predicted(&log_probs);
    }
    Ok(())
}
