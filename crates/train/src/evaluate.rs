use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_lora_data::{Batch, Example, Tokenizer};
use burn_lora_transformer::{Decoder, GenerateOptions, generate};

use crate::data::by_length;
use crate::error::TrainError;
use crate::model::CausalLm;
use crate::step::loss_sum;

/// How a model is evaluated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvaluateOptions {
    /// Examples in one forward pass.
    pub batch_size: usize,
    /// Complete the prompts and compare; right for prompt rows, whose completion is short, not for running text.
    pub generate: bool,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self {
            batch_size: 16,
            generate: true,
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
/// exactly by greedy generation.
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
    let batches = by_length(examples, options.batch_size, tokenizer.pad())?;
    let learned_tokens = batches.iter().map(Batch::learned).sum();
    let loss = total_loss(&model, &batches)? / learned_tokens as f64;
    let completions = match options.generate {
        true => complete(&model, tokenizer, examples, options.batch_size)?,
        false => Vec::new(),
    };
    let exact = completions
        .iter()
        .filter(|completion| completion.is_exact())
        .count();
    Ok(Evaluation {
        loss,
        perplexity: loss.exp(),
        learned_tokens,
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

/// The sum of the losses of all learned tokens, read from the device once.
fn total_loss<M: CausalLm>(model: &M, batches: &[Batch]) -> Result<f64, TrainError> {
    let device: Device = model.devices().remove(0);
    let losses: Vec<Tensor<1>> = batches
        .iter()
        .map(|batch| loss_sum(model, &batch.to_device(&device)).0)
        .collect();
    let losses = Tensor::cat(losses, 0).try_into_data();
    let losses = losses.map_err(|error| TrainError::Evaluation(error.to_string()))?;
    // Added on the host in f64: many batches in f32 would lose digits.
    let loss: f64 = losses.iter::<f64>().sum();
    match loss.is_finite() {
        true => Ok(loss),
        false => Err(TrainError::NotFinite {
            split: "evaluation",
            step: 0,
            loss,
        }),
    }
}

/// Completes the prompts of all examples greedily.
fn complete(
    model: &Decoder,
    tokenizer: &Tokenizer,
    examples: &[Example],
    batch_size: usize,
) -> Result<Vec<Completion>, TrainError> {
    let mut completions = Vec::with_capacity(examples.len());
    for chosen in generation_batches(examples, batch_size, model.max_positions()) {
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
