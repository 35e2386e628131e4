use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use burn_lora_data::{SourceTarget, Tokenizer};
use burn_lora_transformer::{EncoderBatch, GenerateOptions, T5, generate};

use super::inputs::{ModelLimits, culprits, encoder_batch};
use super::{Counts, Notes, Task, Told};
use crate::config::TrainConfig;
use crate::measures::{bleu, exact_match, rouge_l};

/// A text written for another, by an encoder-decoder: cross-entropy of its tokens, its end included.
///
/// With a tokenizer, the texts are also written greedily and compared: exact match, BLEU and ROUGE-L.
#[derive(Clone, Debug, Default)]
pub struct Seq2Seq {
    /// Reads what is written.
    pub tokenizer: Option<Arc<Tokenizer>>,
}

/// Texts on a device, with what is to be written for each.
#[derive(Debug)]
pub struct Seq2SeqBatch {
    inputs: EncoderBatch,
    sources: Vec<Vec<u32>>,
    targets: Vec<Vec<u32>>,
}

impl Task<T5> for Seq2Seq {
    type Example = SourceTarget;
    type Batch = Seq2SeqBatch;

    /// The longer of the two, which bounds both.
    fn length(&self, example: &SourceTarget) -> usize {
        example.source.len().max(example.target.len())
    }

    fn faults(&self, model: &T5, _config: &TrainConfig, examples: &[&SourceTarget]) -> Vec<String> {
        let limits = ModelLimits {
            positions: usize::MAX,
            vocab_size: model.config().vocab_size,
            segments: 0,
        };
        let sources = examples.iter().map(|example| &example.source[..]);
        let targets = examples.iter().map(|example| &example.target[..]);
        let mut faults = limits.faults(sources);
        let empty = examples.iter().enumerate();
        let empty = empty.filter(|(_, example)| example.target.is_empty());
        let empty: Vec<usize> = empty.map(|(at, _)| at).collect();
        faults.extend(culprits("have no target", &empty));
        faults.extend(super::causal::unknown_token(
            targets.flatten(),
            limits.vocab_size,
        ));
        faults
    }

    fn batch(&self, rows: &[Vec<&SourceTarget>], _draw: u64, device: &Device) -> Seq2SeqBatch {
        let examples = || rows.iter().flatten();
        let ids: Vec<&[u32]> = examples().map(|example| &example.source[..]).collect();
        Seq2SeqBatch {
            inputs: encoder_batch(&ids, None, device),
            sources: examples().map(|example| example.source.clone()).collect(),
            targets: examples().map(|example| example.target.clone()).collect(),
        }
    }

    fn counts(&self, batch: &Seq2SeqBatch) -> Counts {
        let written = batch.targets.iter().map(Vec::len).sum();
        let read: usize = batch.inputs.lengths.iter().sum();
        Counts {
            learned: written,
            tokens: read + written,
        }
    }

    fn loss_sum(&self, model: &T5, batch: &Seq2SeqBatch) -> Tensor<1> {
        let learned = Task::<T5>::counts(self, batch).learned;
        let mean = model.loss(&batch.inputs, &batch.targets);
        mean.expect("`faults` has seen all targets") * learned as f64
    }

    fn judge(&self, model: &T5, batch: &Seq2SeqBatch) -> (Tensor<1>, Option<Notes>) {
        let notes = self.tokenizer.as_deref();
        let notes = notes.map(|tokenizer| Notes::Texts(written(model, batch, tokenizer)));
        (self.loss_sum(model, batch), notes)
    }

    fn is_language(&self) -> bool {
        true
    }

    fn metrics(&self) -> Vec<&'static str> {
        match self.tokenizer {
            Some(_) => vec!["exact_match", "bleu", "rouge_l"],
            None => Vec::new(),
        }
    }

    fn measure(&self, told: &[Arc<Told>]) -> Vec<f64> {
        if self.tokenizer.is_none() {
            return Vec::new();
        }
        let pairs: Vec<[String; 2]> = told.iter().flat_map(|told| told.texts().to_vec()).collect();
        vec![exact_match(&pairs), bleu(&pairs), rouge_l(&pairs)]
    }
}

/// What the model writes for each row, and what is wanted.
fn written(model: &T5, batch: &Seq2SeqBatch, tokenizer: &Tokenizer) -> Vec<[String; 2]> {
    // What is longer than the longest one wanted is wrong already.
    let longest = batch.targets.iter().map(Vec::len).max().unwrap_or(0);
    let options = GenerateOptions {
        max_new_tokens: longest,
        eos: tokenizer.stop_ids().to_vec(),
        ..GenerateOptions::default()
    };
    let text = |ids: &[u32]| tokenizer.decode(ids).unwrap_or_default();
    // A batch of which nothing can be written counts as wrong: the loss tells of a failed device.
    let made = generate(model, &batch.sources, &options);
    let mut made = made.unwrap_or_default().into_iter();
    let wanted = batch.targets.iter();
    wanted
        .map(|wanted| [text(&made.next().unwrap_or_default()), text(wanted)])
        .collect()
}
