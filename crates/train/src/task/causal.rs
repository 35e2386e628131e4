use burn::tensor::{Device, Tensor};
use burn_lora_data::{Batch, BatchTensors, Example};
use burn_lora_kernels::{LossTerms, select_rows};

use super::{Counts, Task};
use crate::config::TrainConfig;
use crate::model::CausalLm;

/// The next token: texts, completions of prompts, and the assistant's turns of conversations.
#[derive(Clone, Copy, Debug)]
pub struct Causal {
    /// The token that fills batches up. Its value has no influence; the model must know it.
    pub pad: u32,
}

/// The hidden states from which the learned tokens are predicted, `[learned, d_model]`.
///
/// Logits are made at learned positions only: a prompt's would cost the most memory of the whole step, for nothing.
pub(crate) fn learned_states<M: CausalLm>(model: &M, batch: &BatchTensors) -> Tensor<2> {
    let hidden = match &batch.documents {
        Some(documents) => model.hidden_packed(batch.ids.clone(), documents),
        None => model.hidden(batch.ids.clone()),
    }; // [b, s, d]
    let [batch_size, seq_len, d_model] = hidden.dims();
    let hidden = hidden.reshape([batch_size * seq_len, d_model]); // [b s, d]
    select_rows(hidden, batch.rows.clone()) // [learned, d]
}

/// What is wrong with the token ids of examples.
pub(crate) fn unknown_token<'a>(
    ids: impl Iterator<Item = &'a u32>,
    vocab_size: usize,
) -> Option<String> {
    let largest = ids.max().copied().unwrap_or(0);
    (largest as usize >= vocab_size)
        .then(|| format!("the token {largest} is outside the model's vocabulary of {vocab_size}"))
}

/// What is wrong with the lengths of examples, for a model of so many positions.
pub(crate) fn too_long(longest: usize, positions: usize) -> Option<String> {
    (longest > positions)
        .then(|| format!("an example has {longest} tokens, the model has {positions} positions"))
}

impl<M: CausalLm> Task<M> for Causal {
    type Example = Example;
    type Batch = BatchTensors;

    fn length(&self, example: &Example) -> usize {
        example.len()
    }

    fn packs(&self) -> bool {
        true
    }

    fn faults(&self, model: &M, config: &TrainConfig, examples: &[&Example]) -> Vec<String> {
        let positions = model.max_positions();
        let longest = examples.iter().map(|example| example.len()).max();
        let mut faults: Vec<String> = too_long(longest.unwrap_or(0), positions)
            .into_iter()
            .collect();
        if config.packing && !model.can_pack() {
            let fault = "packing: virtual tokens have no place in front of each example of a row";
            faults.push(fault.to_string());
        }
        if config.packing && config.max_seq_len > positions {
            faults.push(format!(
                "packed rows have max_seq_len tokens, {}; the model has {positions} positions",
                config.max_seq_len
            ));
        }
        let ids = examples.iter().flat_map(|example| example.ids());
        faults.extend(unknown_token(ids.chain([&self.pad]), model.vocab_size()));
        faults
    }

    fn batch(&self, rows: &[Vec<&Example>], _draw: u64, device: &Device) -> BatchTensors {
        Batch::packed(rows, self.pad).to_device(device)
    }

    fn counts(&self, batch: &BatchTensors) -> Counts {
        Counts {
            learned: batch.learned,
            tokens: batch.tokens,
        }
    }

    fn loss_sum(&self, model: &M, batch: &BatchTensors) -> Tensor<1> {
        let learned = learned_states(model, batch);
        let weights = Tensor::ones([batch.learned], &learned.device().inner());
        model.cross_entropy(learned, batch.targets.clone(), weights)
    }

    fn objective(&self, model: &M, batch: &BatchTensors, terms: LossTerms) -> [Tensor<1>; 2] {
        if terms.is_none() {
            let loss = self.loss_sum(model, batch);
            return [loss.clone(), loss.inner()];
        }
        let learned = learned_states(model, batch);
        let weights = Tensor::ones([batch.learned], &learned.device().inner());
        model.cross_entropy_regularized(learned, batch.targets.clone(), weights, terms)
    }

    fn has_terms(&self) -> bool {
        true
    }

    fn with_embedding_noise(&self, model: M, alpha: f64) -> Option<M> {
        model.with_embedding_noise(alpha)
    }

    fn is_language(&self) -> bool {
        true
    }
}
