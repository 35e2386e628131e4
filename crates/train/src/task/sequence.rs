use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_lora_data::{LabelledExample, Target};
use burn_lora_transformer::{DecoderClassifier, EncoderBatch, SequenceClassifier};

use super::inputs::{ModelLimits, class_losses, culprits, encoder_batch, row_counts};
use super::{Counts, Notes, Task, Told};
use crate::config::TrainConfig;
use crate::measures::{accuracy, binary_f1, macro_f1, matthews, pearson, spearman};

/// A model that gives a sequence labels, or a number.
pub trait SequenceModel: Module + 'static {
    /// The logits of the labels.
    ///
    /// # Shapes
    /// - output: `[batch, num_labels]`
    fn logits(&self, inputs: &EncoderBatch) -> Tensor<2>;

    /// Labels that it knows; 1 where it makes a number.
    fn num_labels(&self) -> usize;

    /// What it takes.
    fn limits(&self) -> ModelLimits;
}

impl SequenceModel for SequenceClassifier {
    fn logits(&self, inputs: &EncoderBatch) -> Tensor<2> {
        self.forward(inputs)
    }

    fn num_labels(&self) -> usize {
        self.config().num_labels()
    }

    fn limits(&self) -> ModelLimits {
        let config = self.config();
        ModelLimits {
            positions: config.max_positions(),
            vocab_size: config.vocab_size(),
            segments: config.segments(),
        }
    }
}

impl SequenceModel for DecoderClassifier {
    fn logits(&self, inputs: &EncoderBatch) -> Tensor<2> {
        self.forward(inputs.ids.clone(), &inputs.lengths)
    }

    fn num_labels(&self) -> usize {
        DecoderClassifier::num_labels(self)
    }

    fn limits(&self) -> ModelLimits {
        let config = self.config();
        ModelLimits {
            positions: config.max_positions(),
            vocab_size: config.vocab_size(),
            segments: 0,
        }
    }
}

/// One label of each text, or of each pair of texts: cross-entropy.
///
/// Measured are accuracy, Matthews' correlation, and F1: of the class 1 where there are two, otherwise the mean of all classes'.
#[derive(Clone, Debug)]
pub struct Classification {
    saved: Vec<String>,
    labels: usize,
}

/// A number for each text, or for each pair of texts: the squared error.
///
/// Measured are Pearson's and Spearman's correlation.
#[derive(Clone, Debug)]
pub struct Regression {
    saved: Vec<String>,
}

/// The names that PEFT gives to heads that classify, whichever of them a model has.
pub(crate) fn peft_heads() -> Vec<String> {
    ["classifier", "score"].map(String::from).to_vec()
}

/// The modules of a head: PEFT's names, and those of the [fresh](SequenceClassifier::fresh) parameters that these leave out,
/// which would otherwise stay as they were drawn.
pub(crate) fn head_modules(fresh: &[String]) -> Vec<String> {
    let mut names = peft_heads();
    for parameter in fresh {
        if !lies_in(parameter, &names)
            && let Some((module, _)) = parameter.rsplit_once('.')
        {
            names.push(module.to_string());
        }
    }
    names
}

/// Whether a parameter lies in a module whose path ends with one of the names, PEFT's rule for `modules_to_save`.
pub(crate) fn lies_in(parameter: &str, names: &[String]) -> bool {
    let modules = parameter
        .match_indices('.')
        .map(|(end, _)| &parameter[..end]);
    let mut named = modules.filter(|path| names.iter().any(|name| path.ends_with(name.as_str())));
    named.next().is_some()
}

impl Classification {
    /// With so many labels, and the parameters of the model that its folder did not hold.
    pub fn new(labels: usize, fresh: &[String]) -> Self {
        Self {
            saved: head_modules(fresh),
            labels,
        }
    }

    /// The modules of the head, which are trained as a whole beside the adapter: [`LoraConfig::modules_to_save`].
    ///
    /// [`LoraConfig::modules_to_save`]: burn_lora_adapter::LoraConfig::modules_to_save
    pub fn head_modules(&self) -> Vec<String> {
        self.saved.clone()
    }
}

impl Regression {
    /// With the parameters of the model that its folder did not hold.
    pub fn new(fresh: &[String]) -> Self {
        Self {
            saved: head_modules(fresh),
        }
    }

    /// The modules of the head, which are trained as a whole beside the adapter: [`LoraConfig::modules_to_save`].
    ///
    /// [`LoraConfig::modules_to_save`]: burn_lora_adapter::LoraConfig::modules_to_save
    pub fn head_modules(&self) -> Vec<String> {
        self.saved.clone()
    }
}

/// Texts on a device, with what is wanted of each.
#[derive(Debug)]
pub struct SequenceBatch<W> {
    inputs: EncoderBatch,
    wanted: Vec<W>,
}

fn batch_of<W>(
    rows: &[Vec<&LabelledExample>],
    device: &Device,
    wanted: impl Fn(&LabelledExample) -> W,
) -> SequenceBatch<W> {
    let examples = || rows.iter().flatten();
    let ids: Vec<&[u32]> = examples().map(|example| &example.ids[..]).collect();
    let segments: Vec<&[u32]> = examples().map(|example| &example.type_ids[..]).collect();
    SequenceBatch {
        inputs: encoder_batch(&ids, Some(&segments), device),
        wanted: examples().map(|example| wanted(example)).collect(),
    }
}

/// What is wrong with the texts, and those whose target is none of the task's.
fn faults<M: SequenceModel>(
    model: &M,
    examples: &[&LabelledExample],
    what: &str,
    fits: impl Fn(&Target) -> bool,
) -> Vec<String> {
    let limits = model.limits();
    let mut faults = limits.faults(examples.iter().map(|example| &example.ids[..]));
    let numbered = || examples.iter().enumerate();
    let unknown = |example: &LabelledExample| {
        let known = limits.segments;
        known > 0 && example.type_ids.iter().any(|id| *id as usize >= known)
    };
    let wrong: Vec<usize> = numbered()
        .filter(|(_, example)| unknown(example))
        .map(|(at, _)| at)
        .collect();
    faults.extend(culprits(
        "have segments that the model does not know",
        &wrong,
    ));
    let wrong: Vec<usize> = numbered()
        .filter(|(_, example)| !fits(&example.target))
        .map(|(at, _)| at)
        .collect();
    faults.extend(culprits(what, &wrong));
    faults
}

impl<M: SequenceModel> Task<M> for Classification {
    type Example = LabelledExample;
    type Batch = SequenceBatch<usize>;

    fn length(&self, example: &LabelledExample) -> usize {
        example.ids.len()
    }

    fn faults(
        &self,
        model: &M,
        _config: &TrainConfig,
        examples: &[&LabelledExample],
    ) -> Vec<String> {
        let known = model.num_labels();
        let what = format!("have no class below {known}, the labels of the model");
        faults(
            model,
            examples,
            &what,
            |target| matches!(target, Target::Class(class) if *class < known),
        )
    }

    fn batch(
        &self,
        rows: &[Vec<&LabelledExample>],
        _draw: u64,
        device: &Device,
    ) -> SequenceBatch<usize> {
        batch_of(rows, device, |example| match example.target {
            Target::Class(class) => class,
            // Refused by `faults`.
            Target::Value(value) => value as usize,
        })
    }

    fn counts(&self, batch: &SequenceBatch<usize>) -> Counts {
        row_counts(batch.wanted.len(), &batch.inputs)
    }

    fn loss_sum(&self, model: &M, batch: &SequenceBatch<usize>) -> Tensor<1> {
        class_losses(model.logits(&batch.inputs), &batch.wanted)
    }

    fn judge(&self, model: &M, batch: &SequenceBatch<usize>) -> (Tensor<1>, Option<Notes>) {
        let logits = model.logits(&batch.inputs);
        let notes = Notes::Numbers {
            made: logits.clone().cast(DType::F32),
            wanted: batch.wanted.iter().map(|class| *class as f32).collect(),
        };
        (class_losses(logits, &batch.wanted), Some(notes))
    }

    fn metrics(&self) -> Vec<&'static str> {
        let f1 = if self.labels == 2 { "f1" } else { "f1_macro" };
        vec!["accuracy", f1, "matthews_correlation"]
    }

    fn measure(&self, told: &[Arc<Told>]) -> Vec<f64> {
        let (mut made, mut wanted) = (Vec::new(), Vec::new());
        for told in told {
            made.extend(told.rows().map(largest));
            wanted.extend(told.wanted().iter().map(|class| *class as usize));
        }
        let f1 = if self.labels == 2 {
            binary_f1
        } else {
            macro_f1
        };
        vec![
            accuracy(&made, &wanted),
            f1(&made, &wanted),
            matthews(&made, &wanted),
        ]
    }

    fn saved_modules(&self) -> &[String] {
        &self.saved
    }
}

/// The place of the largest of some numbers, the first of equal ones.
pub(crate) fn largest(numbers: &[f32]) -> usize {
    let mut best = 0;
    for (at, number) in numbers.iter().enumerate() {
        if *number > numbers[best] {
            best = at;
        }
    }
    best
}

impl<M: SequenceModel> Task<M> for Regression {
    type Example = LabelledExample;
    type Batch = SequenceBatch<f32>;

    fn length(&self, example: &LabelledExample) -> usize {
        example.ids.len()
    }

    fn faults(
        &self,
        model: &M,
        _config: &TrainConfig,
        examples: &[&LabelledExample],
    ) -> Vec<String> {
        let mut faults = faults(
            model,
            examples,
            "have no finite value",
            |target| matches!(target, Target::Value(value) if value.is_finite()),
        );
        let labels = model.num_labels();
        if labels != 1 {
            faults.push(format!(
                "the head makes {labels} numbers; regression is of one"
            ));
        }
        faults
    }

    fn batch(
        &self,
        rows: &[Vec<&LabelledExample>],
        _draw: u64,
        device: &Device,
    ) -> SequenceBatch<f32> {
        batch_of(rows, device, |example| match example.target {
            Target::Value(value) => value as f32,
            // Refused by `faults`.
            Target::Class(class) => class as f32,
        })
    }

    fn counts(&self, batch: &SequenceBatch<f32>) -> Counts {
        row_counts(batch.wanted.len(), &batch.inputs)
    }

    fn loss_sum(&self, model: &M, batch: &SequenceBatch<f32>) -> Tensor<1> {
        squares(model.logits(&batch.inputs).cast(DType::F32), &batch.wanted)
    }

    fn judge(&self, model: &M, batch: &SequenceBatch<f32>) -> (Tensor<1>, Option<Notes>) {
        let values = model.logits(&batch.inputs).cast(DType::F32);
        let notes = Notes::Numbers {
            made: values.clone(),
            wanted: batch.wanted.clone(),
        };
        (squares(values, &batch.wanted), Some(notes))
    }

    fn metrics(&self) -> Vec<&'static str> {
        vec!["pearson", "spearmanr"]
    }

    fn measure(&self, told: &[Arc<Told>]) -> Vec<f64> {
        let (mut made, mut wanted) = (Vec::new(), Vec::new());
        for told in told {
            made.extend(told.rows().map(|row| f64::from(row[0])));
            wanted.extend(told.wanted().iter().copied().map(f64::from));
        }
        vec![pearson(&made, &wanted), spearman(&made, &wanted)]
    }

    fn saved_modules(&self) -> &[String] {
        &self.saved
    }
}

/// The sum of the squared errors. Shape `[1]`.
///
/// # Shapes
/// - values: `[rows, 1]`
fn squares(values: Tensor<2>, wanted: &[f32]) -> Tensor<1> {
    let device = values.device().without_autodiff();
    let wanted = TensorData::new(wanted.to_vec(), [wanted.len(), 1]);
    (values - Tensor::from_data(wanted, &device)).square().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fresh_is_trained_once() {
        let fresh = [
            "classifier.weight",
            "classifier.dense.bias",
            "pooler.dense.weight",
            "pooler.dense.bias",
        ];
        let fresh = fresh.map(String::from);
        assert_eq!(
            head_modules(&fresh),
            ["classifier", "score", "pooler.dense"]
        );
        assert!(lies_in("bert.pooler.dense.bias", &["pooler".into()]));
        assert!(!lies_in("bert.pooler.dense.bias", &["bias".into()]));
    }
}
