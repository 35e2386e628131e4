use burn::tensor::{DType, Int, Tensor, TensorData, activation};
use burn_lora_kernels::cross_entropy;

use super::head::{MaskedLm, MultipleChoice, SequenceClassifier, TokenClassifier};
use super::labels::{ClassLabels, LabelError, Labels};
use super::{Encoder, EncoderBatch};
use crate::weigh::cast;

impl SequenceClassifier {
    /// The mean loss of a batch: cross-entropy of [classes](Labels::Classes), squared distance from
    /// [values](Labels::Values), binary cross-entropy of [sets](Labels::Sets).
    ///
    /// # Shapes
    ///
    /// - output: `[1]`, f32
    ///
    /// # Errors
    ///
    /// Every label that the model does not have, and labels for more or fewer rows.
    pub fn loss(&self, batch: &EncoderBatch, labels: &Labels) -> Result<Tensor<1>, LabelError> {
        labels.check(batch.lengths.len(), self.config().num_labels())?;
        Ok(sequence_loss(self.forward(batch), labels))
    }
}

impl MultipleChoice {
    /// The mean cross-entropy of the right choices.
    ///
    /// # Shapes
    ///
    /// - output: `[1]`, f32
    ///
    /// # Errors
    ///
    /// Every choice that is not below `choices`, and answers to more or fewer questions.
    pub fn loss(
        &self,
        batch: &EncoderBatch,
        choices: usize,
        right: &[usize],
    ) -> Result<Tensor<1>, LabelError> {
        let rows = batch.lengths.len();
        if choices == 0 || !rows.is_multiple_of(choices) {
            return Err(LabelError {
                problems: vec![format!(
                    "{rows} rows do not divide into questions of {choices} choices"
                )],
            });
        }
        let labels = Labels::Classes(right.to_vec());
        labels.check(rows / choices, choices)?;
        Ok(sequence_loss(self.forward(batch, choices), &labels))
    }
}

impl TokenClassifier {
    /// The mean cross-entropy over the tokens that have a label.
    ///
    /// # Shapes
    ///
    /// - output: `[1]`, f32
    ///
    /// # Errors
    ///
    /// Every label that the model does not have, rows with more or fewer labels than tokens, and a batch without any
    /// label.
    pub fn loss(
        &self,
        batch: &EncoderBatch,
        labels: &ClassLabels,
    ) -> Result<Tensor<1>, LabelError> {
        let learned = Learned::of(batch, labels, self.config().num_labels())?;
        let hidden = learned.states(&self.encoder, batch);
        Ok(learned.loss(self.head.logits(hidden, &self.encoder)))
    }
}

impl MaskedLm {
    /// The mean cross-entropy over the tokens that have a label: what stood there.
    ///
    /// # Shapes
    ///
    /// - output: `[1]`, f32
    ///
    /// # Errors
    ///
    /// Every token that the model does not know, rows with more or fewer labels than tokens, and a batch without any
    /// label.
    pub fn loss(
        &self,
        batch: &EncoderBatch,
        labels: &ClassLabels,
    ) -> Result<Tensor<1>, LabelError> {
        let learned = Learned::of(batch, labels, self.config().vocab_size())?;
        let hidden = learned.states(&self.encoder, batch);
        Ok(learned.loss(self.head.logits(hidden, &self.encoder)))
    }
}

/// # Shapes
///
/// - logits: `[rows, labels]`
fn sequence_loss(logits: Tensor<2>, labels: &Labels) -> Tensor<1> {
    let logits = cast(logits, DType::F32);
    let ([rows, count], device) = (logits.dims(), logits.device());
    let targets = |values: &[Vec<f32>]| {
        Tensor::<2>::from_data(TensorData::new(values.concat(), [rows, count]), &device)
    };
    match labels {
        Labels::Classes(classes) => mean_cross_entropy(logits, classes),
        Labels::Values(values) => (logits - targets(values)).square().mean(),
        Labels::Sets(sets) => {
            // softplus(x) - x y, which is binary cross-entropy and overflows for no x.
            let softplus = activation::softplus(logits.clone(), 1.0);
            (softplus - logits * targets(sets)).mean()
        }
    }
}

/// # Shapes
///
/// - logits: `[rows, classes]`
pub(crate) fn mean_cross_entropy(logits: Tensor<2>, classes: &[usize]) -> Tensor<1> {
    let (rows, device) = (classes.len(), logits.device());
    let classes: Vec<i32> = classes.iter().map(|class| *class as i32).collect();
    let classes = Tensor::<1, Int>::from_ints(classes.as_slice(), &device);
    let weights = Tensor::ones([rows], (&device, DType::F32));
    cross_entropy(logits, classes, weights) / rows as f64
}

/// The labeled tokens of a batch.
struct Learned {
    /// Their places in the batch, row after row.
    places: Vec<i32>,
    classes: Vec<usize>,
}

impl Learned {
    fn of(batch: &EncoderBatch, labels: &ClassLabels, known: usize) -> Result<Self, LabelError> {
        let (seq, lengths) = (batch.ids.dims()[1], &batch.lengths);
        let mut problems = Vec::new();
        if labels.len() != lengths.len() {
            let (found, expected) = (labels.len(), lengths.len());
            problems.push(format!("{found} rows of labels for {expected} rows"));
        }
        let mut learned = Self {
            places: Vec::new(),
            classes: Vec::new(),
        };
        for (row, (labels, length)) in labels.iter().zip(lengths).enumerate() {
            if labels.len() != *length {
                let found = labels.len();
                problems.push(format!("row {row} has {found} labels for {length} tokens"));
            }
            for (at, class) in labels.iter().enumerate() {
                let Some(class) = class else { continue };
                if *class >= known {
                    problems.push(format!(
                        "row {row} has the label {class} at token {at}; the model knows those below {known}"
                    ));
                }
                learned.places.push((row * seq + at) as i32);
                learned.classes.push(*class);
            }
        }
        if problems.is_empty() && learned.places.is_empty() {
            problems.push("no token has a label".into());
        }
        LabelError::check(problems).map(|()| learned)
    }

    /// The hidden states of the labeled tokens, `[learned, hidden]`: logits of the others are never made.
    fn states(&self, encoder: &Encoder, batch: &EncoderBatch) -> Tensor<2> {
        let hidden = encoder.hidden(batch).flatten::<2>(0, 1); // [batch * seq, hidden]
        let places = Tensor::<1, Int>::from_ints(self.places.as_slice(), &hidden.device());
        hidden.select(0, places)
    }

    fn loss(&self, logits: Tensor<2>) -> Tensor<1> {
        mean_cross_entropy(cast(logits, DType::F32), &self.classes)
    }
}
