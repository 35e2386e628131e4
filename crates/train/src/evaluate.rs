use std::collections::BTreeMap;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_lora_data::{Example, Tokenizer};
use burn_lora_transformer::{Decoder, Decoding, GenerateOptions, generate};

use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::loader::{BatchSource, Ordered};
use crate::task::{Causal, Counts, Task, Told};

/// How a model is evaluated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvaluateOptions {
    /// Examples in one forward pass.
    pub batch_size: usize,
    /// Complete the prompts and compare; right for prompt rows, whose completion is short, not for running text.
    pub generate: bool,
    /// How prompts are completed.
    pub decoding: Decoding,
    /// No sequence of this many tokens twice in a prompt and its completion.
    pub no_repeat_ngram_size: Option<usize>,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self {
            batch_size: 16,
            generate: true,
            decoding: Decoding::Greedy,
            no_repeat_ngram_size: None,
        }
    }
}

/// How well a model knows a set of examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Mean of `-log p` over the learned tokens.
    pub loss: f64,
    /// `exp(loss)`.
    pub perplexity: f64,
    /// Learned tokens.
    pub learned_tokens: usize,
    /// Share of prompts completed exactly, when asked for.
    pub exact_match: Option<f64>,
    /// Every completion, in the examples' order, when asked for.
    pub completions: Vec<Completion>,
}

/// What a model made of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The text given.
    pub prompt: String,
    /// The text wanted.
    pub expected: String,
    /// The text made.
    pub generated: String,
}

impl Completion {
    /// Whether both texts are the same but for white space around them.
    pub fn is_exact(&self) -> bool {
        self.expected.trim() == self.generated.trim()
    }
}

/// Evaluates a model on examples: its loss over their learned tokens and, if asked for, how many prompts it completes
/// exactly, by greedy generation unless the options say otherwise.
///
/// # Errors
/// [`TrainError::Config`] without an example or with a batch size of zero, [`TrainError::NotFinite`] for a loss that is no number,
/// [`TrainError::Evaluation`] when the device fails, and errors of generation and of the tokenizer.
pub fn evaluate(
    model: &Decoder,
    tokenizer: &Tokenizer,
    examples: &[Example],
    options: &EvaluateOptions,
) -> Result<Evaluation, TrainError> {
    check(model, examples)?;
    let model = model.valid();
    let task = Causal {
        pad: tokenizer.pad(),
    };
    let judged = judge(&model, &task, examples, options.batch_size)?;
    let loss = judged.loss;
    let completions = match options.generate {
        true => complete(&model, tokenizer, examples, options)?,
        false => Vec::new(),
    };
    let exact = completions
        .iter()
        .filter(|completion| completion.is_exact())
        .count();
    Ok(Evaluation {
        loss,
        perplexity: loss.exp(),
        learned_tokens: judged.counts.learned,
        exact_match: options
            .generate
            .then(|| exact as f64 / examples.len() as f64),
        completions,
    })
}

fn check(model: &Decoder, examples: &[Example]) -> Result<(), TrainError> {
    let fault = match examples.iter().map(Example::len).max() {
        None => "there is no example to evaluate".to_string(),
        Some(longest) if longest > model.max_positions() => format!(
            "an example has {longest} tokens, the model has {} positions",
            model.max_positions()
        ),
        Some(_) => return Ok(()),
    };
    Err(TrainError::Config {
        faults: vec![fault],
    })
}

/// How well a model does a task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskEvaluation {
    /// Mean over what is learned.
    pub loss: f64,
    /// What the task measures, by name.
    pub metrics: BTreeMap<String, f64>,
    /// What was learned of the examples, and their tokens.
    pub counts: Counts,
}

/// Evaluates a model on the examples of a task: its loss, its perplexity where it is of a language, and what the task measures.
///
/// # Errors
/// [`TrainError::Config`] without an example, with a batch size of zero, or with examples that do not fit the model;
/// [`TrainError::NotFinite`] for a loss that is no number, [`TrainError::Evaluation`] when the device fails.
pub fn evaluate_task<M: Module, T: Task<M>>(
    model: &M,
    task: &T,
    examples: &[T::Example],
    batch_size: usize,
) -> Result<TaskEvaluation, TrainError> {
    let all: Vec<&T::Example> = examples.iter().collect();
    let mut faults = task.faults(model, &TrainConfig::default(), &all);
    if examples.is_empty() {
        faults.push("there is no example to evaluate".to_string());
    }
    if !faults.is_empty() {
        return Err(TrainError::Config { faults });
    }
    let Judged { loss, counts, told } = judge(&model.valid(), task, examples, batch_size)?;
    let names = task.metrics().into_iter().map(str::to_string);
    let mut metrics: BTreeMap<String, f64> = names.zip(task.measure(&told)).collect();
    metrics.insert("loss".into(), loss);
    if task.is_language() {
        metrics.insert("perplexity".into(), loss.exp());
    }
    Ok(TaskEvaluation {
        loss,
        metrics,
        counts,
    })
}

/// The mean loss of all examples, and what was noted of them.
struct Judged {
    loss: f64,
    counts: Counts,
    told: Vec<Arc<Told>>,
}

fn judge<M: Module, T: Task<M>>(
    model: &M,
    task: &T,
    examples: &[T::Example],
    batch_size: usize,
) -> Result<Judged, TrainError> {
    let device: Device = model.devices().remove(0);
    let batches = Ordered::new(task.clone(), examples.to_vec(), batch_size)?;
    let mut losses = Vec::with_capacity(batches.len());
    let mut counts = Vec::with_capacity(batches.len());
    let mut told = Vec::new();
    let failed = |error: &dyn ToString| TrainError::Evaluation(error.to_string());
    for batch in batches.starting_at(0, &device) {
        let batch = batch.map_err(|error| failed(&error))?;
        let (loss, notes) = task.judge(model, &batch);
        losses.push(loss);
        counts.push(task.counts(&batch));
        if let Some(notes) = notes {
            told.push(Arc::new(notes.read().map_err(|error| failed(&error))?));
        }
    }
    let counts = Counts::sum(counts);
    // The losses are read from the device once.
    let losses = Tensor::cat(losses, 0).try_into_data();
    let losses = losses.map_err(|error| failed(&error))?;
    // Added on the host in f64: many batches in f32 would lose digits.
    let loss = losses.iter::<f64>().sum::<f64>() / counts.learned as f64;
    match loss.is_finite() {
        true => Ok(Judged { loss, counts, told }),
        false => Err(TrainError::NotFinite {
            split: "evaluation",
            step: 0,
            loss,
        }),
    }
}

/// Completes the prompts of all examples.
pub(crate) fn complete(
    model: &Decoder,
    tokenizer: &Tokenizer,
    examples: &[Example],
    how: &EvaluateOptions,
) -> Result<Vec<Completion>, TrainError> {
    let mut completions = Vec::with_capacity(examples.len());
    for chosen in generation_batches(examples, how.batch_size, model.max_positions()) {
        let batch: Vec<&Example> = chosen.iter().map(|&index| &examples[index]).collect();
        let prompts: Vec<Vec<u32>> = batch
            .iter()
            .map(|example| example.prompt().to_vec())
            .collect();
        // What is longer than the longest one wanted is wrong already.
        let longest = batch.iter().map(|example| example.completion().len()).max();
        let options = GenerateOptions {
            max_new_tokens: longest.unwrap_or(0),
            eos: tokenizer.stop_ids().to_vec(),
            decoding: how.decoding,
            no_repeat_ngram_size: how.no_repeat_ngram_size,
            ..GenerateOptions::default()
        };
        let generated = generate(model, &prompts, &options)?;
        for ((index, example), generated) in chosen.iter().zip(&batch).zip(generated) {
            let completion = Completion {
                prompt: tokenizer.decode(example.prompt())?,
                expected: tokenizer.decode(example.completion())?,
                generated: tokenizer.decode(&generated)?,
            };
            completions.push((*index, completion));
        }
    }
    completions.sort_by_key(|(index, _)| *index);
    Ok(completions
        .into_iter()
        .map(|(_, completion)| completion)
        .collect())
}

/// Examples in order of length, so that none waits for a much longer one, in batches whose longest prompt and longest
/// completion fit the model's positions together.
fn generation_batches(
    examples: &[Example],
    batch_size: usize,
    positions: usize,
) -> Vec<Vec<usize>> {
    let length = |index: &usize| {
        (
            examples[*index].prompt().len(),
            examples[*index].completion().len(),
        )
    };
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.sort_by_key(length);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut longest = (0, 0);
    for index in order {
        let (prompt, completion) = length(&index);
        let joined = (prompt.max(longest.0), completion.max(longest.1));
        match batches.last_mut() {
            Some(batch) if batch.len() < batch_size && joined.0 + joined.1 <= positions => {
                batch.push(index);
                longest = joined;
            }
            _ => {
                batches.push(vec![index]);
                longest = (prompt, completion);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_for_generation_fit_the_model() {
        let example = |prompt: usize, completion: usize| {
            Example::new(vec![1; prompt + completion], prompt).expect("valid")
        };
        let examples = [example(6, 2), example(2, 6), example(3, 2), example(2, 2)];
        assert_eq!(
            generation_batches(&examples, 8, 8),
            [vec![3, 1], vec![2, 0]]
        );
        assert_eq!(generation_batches(&examples, 8, 12), [vec![3, 1, 2, 0]]);
        assert_eq!(generation_batches(&examples, 1, 12).len(), 4);
    }

    #[test]
    fn white_space_around_a_completion_does_not_count() {
        let completion = |expected: &str, generated: &str| Completion {
            prompt: String::new(),
            expected: expected.to_string(),
            generated: generated.to_string(),
        };
        assert!(completion(" 42", "42\n").is_exact());
        assert!(!completion("4 2", "42").is_exact());
    }
}
