use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor};
use burn_lora_data::TaggedExample;
use burn_lora_transformer::{EncoderBatch, TokenClassifier};

use super::inputs::{class_losses, culprits, encoder_batch, row_counts, states_at};
use super::sequence::{head_modules, largest};
use super::{Counts, ModelLimits, Notes, Task, Told};
use crate::config::TrainConfig;
use crate::measures::{accuracy, entity_scores, is_bio, macro_f1};

/// A tag for each word, learned at its first token: cross-entropy.
///
/// Where the tags are of the scheme BIO, precision, recall and F1 of whole entities are measured, and the accuracy of single
/// tags; otherwise the accuracy and the mean of the tags' F1.
#[derive(Clone, Debug)]
pub struct Tagging {
    saved: Vec<String>,
    tags: Vec<String>,
}

impl Tagging {
    /// With the names of the tags, and the parameters of the model that its folder did not hold.
    pub fn new(tags: Vec<String>, fresh: &[String]) -> Self {
        Self {
            saved: head_modules(fresh),
            tags,
        }
    }

    /// The modules of the head, which are trained as a whole beside the adapter: [`LoraConfig::modules_to_save`].
    ///
    /// [`LoraConfig::modules_to_save`]: burn_lora_adapter::LoraConfig::modules_to_save
    pub fn head_modules(&self) -> Vec<String> {
        self.saved.clone()
    }
}

/// Words on a device, with their tags.
#[derive(Debug)]
pub struct TaggingBatch {
    inputs: EncoderBatch,
    /// Where a word begins.
    places: Vec<u32>,
    tags: Vec<usize>,
    /// Words of each row.
    words: Vec<usize>,
}

impl Task<TokenClassifier> for Tagging {
    type Example = TaggedExample;
    type Batch = TaggingBatch;

    fn length(&self, example: &TaggedExample) -> usize {
        example.ids.len()
    }

    fn faults(
        &self,
        model: &TokenClassifier,
        _config: &TrainConfig,
        examples: &[&TaggedExample],
    ) -> Vec<String> {
        let config = model.config();
        let limits = ModelLimits {
            positions: config.max_positions(),
            vocab_size: config.vocab_size(),
            segments: config.segments(),
        };
        let mut faults = limits.faults(examples.iter().map(|example| &example.ids[..]));
        let known = config.num_labels();
        let numbers = |wrong: &dyn Fn(&TaggedExample) -> bool| -> Vec<usize> {
            let numbered = examples.iter().enumerate();
            let wrong = numbered.filter(|(_, example)| wrong(example));
            wrong.map(|(at, _)| at).collect()
        };
        let wrong = numbers(&|example| example.tags.iter().flatten().any(|tag| *tag >= known));
        let what = format!("have tags that are not below {known}, the labels of the model");
        faults.extend(culprits(&what, &wrong));
        let wrong = numbers(&|example| example.tags.iter().flatten().next().is_none());
        faults.extend(culprits("have no tag within their length", &wrong));
        let wrong = numbers(&|example| example.tags.len() != example.ids.len());
        faults.extend(culprits(
            "have not one tag, or none, for each token",
            &wrong,
        ));
        faults
    }

    fn batch(&self, rows: &[Vec<&TaggedExample>], _draw: u64, device: &Device) -> TaggingBatch {
        let ids: Vec<&[u32]> = rows.iter().flatten().map(|one| &one.ids[..]).collect();
        let inputs = encoder_batch(&ids, None, device);
        let seq = inputs.ids.dims()[1];
        let (mut places, mut tags, mut words) = (Vec::new(), Vec::new(), Vec::new());
        for (row, example) in rows.iter().flatten().enumerate() {
            let tagged = example.tags.iter().enumerate();
            let before = tags.len();
            for (at, tag) in tagged {
                let Some(tag) = tag else { continue };
                places.push((row * seq + at) as u32);
                tags.push(*tag);
            }
            words.push(tags.len() - before);
        }
        TaggingBatch {
            inputs,
            places,
            tags,
            words,
        }
    }

    fn counts(&self, batch: &TaggingBatch) -> Counts {
        row_counts(batch.tags.len(), &batch.inputs)
    }

    fn loss_sum(&self, model: &TokenClassifier, batch: &TaggingBatch) -> Tensor<1> {
        class_losses(logits(model, batch), &batch.tags)
    }

    fn judge(&self, model: &TokenClassifier, batch: &TaggingBatch) -> (Tensor<1>, Option<Notes>) {
        let logits = logits(model, batch);
        // Each word with its tag, and whether it is the first of a row.
        let first = batch
            .words
            .iter()
            .flat_map(|words| (0..*words).map(|at| at == 0));
        let tags = batch.tags.iter().zip(first);
        let notes = Notes::Numbers {
            made: logits.clone().cast(DType::F32),
            wanted: tags
                .flat_map(|(tag, first)| [*tag as f32, f32::from(u8::from(first))])
                .collect(),
        };
        (class_losses(logits, &batch.tags), Some(notes))
    }

    fn metrics(&self) -> Vec<&'static str> {
        match is_bio(&self.tags) {
            true => vec!["precision", "recall", "f1", "accuracy"],
            false => vec!["accuracy", "f1_macro"],
        }
    }

    fn measure(&self, told: &[Arc<Told>]) -> Vec<f64> {
        // By rows, since no entity reaches from one into the next.
        let (mut made, mut wanted): (Vec<Vec<usize>>, Vec<Vec<usize>>) = Default::default();
        for told in told {
            let words = told.wanted().chunks_exact(2);
            for (logits, word) in told.rows().zip(words) {
                if word[1] > 0.0 {
                    made.push(Vec::new());
                    wanted.push(Vec::new());
                }
                if let (Some(made), Some(wanted)) = (made.last_mut(), wanted.last_mut()) {
                    made.push(largest(logits));
                    wanted.push(word[0] as usize);
                }
            }
        }
        let (flat_made, flat_wanted) = (made.concat(), wanted.concat());
        let accuracy = accuracy(&flat_made, &flat_wanted);
        if !is_bio(&self.tags) {
            return vec![accuracy, macro_f1(&flat_made, &flat_wanted)];
        }
        let names = |rows: Vec<Vec<usize>>| -> Vec<Vec<&str>> {
            let name = |tag: usize| self.tags.get(tag).map_or("O", String::as_str);
            let row = |row: Vec<usize>| row.into_iter().map(name).collect();
            rows.into_iter().map(row).collect()
        };
        let scores = entity_scores(&names(made), &names(wanted));
        vec![scores.precision, scores.recall, scores.f1, accuracy]
    }

    fn saved_modules(&self) -> &[String] {
        &self.saved
    }
}

/// The logits of the words, `[words, tags]`.
fn logits(model: &TokenClassifier, batch: &TaggingBatch) -> Tensor<2> {
    states_at(model.forward(&batch.inputs), &batch.places)
}
