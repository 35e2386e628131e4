use std::sync::Arc;

use burn::tensor::{Device, Tensor, activation};
use burn_lora_data::{Batch, BatchTensors, Example, PreferencePair};
use serde::{Deserialize, Serialize};

use super::causal::{Causal, learned_states};
use super::inputs::culprits;
use super::{Counts, Notes, Task, Told};
use crate::config::TrainConfig;
use crate::model::CausalLm;

/// How an answer that is preferred becomes more probable than one that is not.
///
/// With `p_w` and `p_l` the log-probabilities of the tokens of the better and the worse answer, summed, and `r_w` and `r_l` those
/// of the model with its adapter off:
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PreferenceLoss {
    /// DPO (arXiv:2305.18290): `-log sigmoid(beta h)` with `h = (p_w - r_w) - (p_l - r_l)`. With a share `e` of answers that
    /// may be the wrong way round (label smoothing, <https://ericmitchell.ai/cdpo.pdf>):
    /// `-(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)`.
    #[default]
    Sigmoid,
    /// IPO (arXiv:2310.12036, equation 17): `(h - 1 / (2 beta))^2`, where `h` is of means over the tokens of each answer, as in
    /// TRL and by the word of its authors.
    Ipo,
    /// ORPO (arXiv:2403.07691), which needs no reference: with `p` as means over tokens,
    /// `-p_w - beta log sigmoid(log odds(p_w) - log odds(p_l))`, `log odds(p) = p - log(1 - e^p)`. Its `lambda` is `beta`.
    Orpo,
}

/// Preferences: pairs of a better and a worse answer to the same prompt.
///
/// The reference of DPO and IPO is the model itself with its adapters turned off, computed without gradients in the same
/// step, so that no second model is held. Measured are, as TRL names them, `rewards/chosen` and `rewards/rejected` (`beta (p - r)`,
/// of ORPO `beta p`), `rewards/accuracies` (how often the better answer has more) and `rewards/margins`.
#[derive(Clone, Copy, Debug)]
pub struct Preference {
    /// The loss.
    pub loss: PreferenceLoss,
    /// How strongly the model is held to its reference; ORPO's weight of the odds ratio.
    pub beta: f64,
    /// The share of pairs that may be the wrong way round; DPO's only.
    pub label_smoothing: f64,
    /// The token that fills batches up.
    pub pad: u32,
}

/// Pairs on a device: the better answers, then the worse ones.
#[derive(Debug)]
pub struct PreferenceBatch {
    rows: BatchTensors,
    /// Learned tokens of each row.
    learned: Vec<usize>,
}

impl Preference {
    /// What a pair's loss is made of, `[pairs]` each.
    fn terms<M: CausalLm>(&self, model: &M, batch: &PreferenceBatch) -> Terms {
        let pairs = batch.learned.len() / 2;
        let halves = |rows: Tensor<1>| {
            let [better, worse] = [0, pairs].map(|from| rows.clone().narrow(0, from, pairs));
            [better, worse]
        };
        let log_probs = log_probs(model, batch);
        if self.loss == PreferenceLoss::Orpo {
            let [better, worse] = halves(log_probs / self.counts_of(batch));
            let ratio = log_odds(better.clone()) - log_odds(worse.clone());
            let losses = -better.clone() - activation::log_sigmoid(ratio) * self.beta;
            return Terms {
                losses,
                better,
                worse,
            };
        }
        let reference = model
            .valid()
            .without_adapters()
            .expect("`faults` has seen the adapter");
        let reference = log_probs_without_gradient(&reference, batch);
        let [better, worse] = halves(log_probs - reference);
        let losses = match self.loss {
            PreferenceLoss::Ipo => {
                let [better, worse] = {
                    let counts = halves(self.counts_of(batch));
                    let [of_better, of_worse] = counts;
                    [better.clone() / of_better, worse.clone() / of_worse]
                };
                (better - worse - 1.0 / (2.0 * self.beta)).square()
            }
            _ => {
                let margin = (better.clone() - worse.clone()) * self.beta;
                let right = activation::log_sigmoid(margin.clone()) * (1.0 - self.label_smoothing);
                match self.label_smoothing > 0.0 {
                    true => -right - activation::log_sigmoid(-margin) * self.label_smoothing,
                    false => -right,
                }
            }
        };
        Terms {
            losses,
            better,
            worse,
        }
    }

    /// The learned tokens of each row, `[2 pairs]`.
    fn counts_of(&self, batch: &PreferenceBatch) -> Tensor<1> {
        let counts: Vec<f32> = batch.learned.iter().map(|count| *count as f32).collect();
        let device = batch.rows.ids.device().without_autodiff();
        Tensor::from_floats(counts.as_slice(), &device)
    }
}

/// What is made of each pair, `[pairs]`.
struct Terms {
    losses: Tensor<1>,
    /// What the rewards are made of.
    better: Tensor<1>,
    worse: Tensor<1>,
}

/// The summed log-probabilities of the learned tokens of each row, `[rows]`.
///
/// Row by row: the head's cross-entropy never holds the logits of more.
fn log_probs<M: CausalLm>(model: &M, batch: &PreferenceBatch) -> Tensor<1> {
    let states = learned_states(model, &batch.rows);
    of_rows(model, states, batch)
}

/// As [`log_probs`], of a model that is not in training.
fn log_probs_without_gradient<M: CausalLm>(model: &M, batch: &PreferenceBatch) -> Tensor<1> {
    let rows = BatchTensors {
        ids: batch.rows.ids.clone().inner(),
        rows: batch.rows.rows.clone().inner(),
        targets: batch.rows.targets.clone().inner(),
        ..batch.rows.clone()
    };
    let inner = PreferenceBatch {
        rows,
        learned: batch.learned.clone(),
    };
    log_probs(model, &inner)
}

fn of_rows<M: CausalLm>(model: &M, states: Tensor<2>, batch: &PreferenceBatch) -> Tensor<1> {
    let device = states.device().without_autodiff();
    let mut first = 0;
    let rows = batch.learned.iter().map(|count| {
        let hidden = states.clone().narrow(0, first, *count); // [learned, d]
        let targets = batch.rows.targets.clone().narrow(0, first, *count);
        first += count;
        -model.cross_entropy(hidden, targets, Tensor::ones([*count], &device))
    });
    Tensor::cat(rows.collect(), 0)
}

/// `log(p / (1 - p))` of log-probabilities below 0.
///
/// `1 - e^x = 2 t / (1 + t)` with `t = tanh(-x / 2)`, which loses no digit where `p` is nearly 1.
fn log_odds(log_prob: Tensor<1>) -> Tensor<1> {
    let log_prob = log_prob.clamp_max(-1e-7);
    let t = (log_prob.clone() * -0.5).tanh();
    let log_rest = t.clone().log() - t.log1p() + std::f64::consts::LN_2;
    log_prob - log_rest
}

impl<M: CausalLm> Task<M> for Preference {
    type Example = PreferencePair;
    type Batch = PreferenceBatch;

    /// Of the longer answer, with its prompt.
    fn length(&self, pair: &PreferencePair) -> usize {
        pair.chosen.len().max(pair.rejected.len())
    }

    fn faults(&self, model: &M, config: &TrainConfig, pairs: &[&PreferencePair]) -> Vec<String> {
        let sides = pairs.iter().flat_map(|pair| [&pair.chosen, &pair.rejected]);
        let sides: Vec<&Example> = sides.collect();
        let mut faults = Causal { pad: self.pad }.faults(model, config, &sides);
        let numbered = pairs.iter().enumerate();
        let equal = numbered.filter(|(_, pair)| pair.chosen.ids() == pair.rejected.ids());
        let equal: Vec<usize> = equal.map(|(at, _)| at).collect();
        faults.extend(culprits("have the same answer twice", &equal));
        if !(self.beta.is_finite() && self.beta > 0.0) {
            faults.push("beta must be above 0".into());
        }
        if !(0.0..0.5).contains(&self.label_smoothing) {
            faults
                .push("the label smoothing of preferences must be at least 0 and below 0.5".into());
        }
        if self.label_smoothing > 0.0 && self.loss != PreferenceLoss::Sigmoid {
            faults.push("label smoothing is for DPO's sigmoid loss alone".into());
        }
        if self.loss != PreferenceLoss::Orpo && !model.has_adapters() {
            faults.push(
                "the reference of DPO is the model with its adapter off, and there is none: attach one, or take orpo"
                    .into(),
            );
        }
        faults
    }

    fn batch(&self, rows: &[Vec<&PreferencePair>], _draw: u64, device: &Device) -> PreferenceBatch {
        let pairs = || rows.iter().flatten();
        let better = pairs().map(|pair| &pair.chosen);
        let examples: Vec<&Example> = better.chain(pairs().map(|pair| &pair.rejected)).collect();
        let learned = examples.iter().map(|example| example.learned_len());
        PreferenceBatch {
            learned: learned.collect(),
            rows: Batch::new(examples, self.pad).to_device(device),
        }
    }

    fn counts(&self, batch: &PreferenceBatch) -> Counts {
        Counts {
            learned: batch.learned.len() / 2,
            tokens: batch.rows.tokens,
        }
    }

    fn loss_sum(&self, model: &M, batch: &PreferenceBatch) -> Tensor<1> {
        self.terms(model, batch).losses.sum()
    }

    fn judge(&self, model: &M, batch: &PreferenceBatch) -> (Tensor<1>, Option<Notes>) {
        let terms = self.terms(model, batch);
        let rewards = [terms.better, terms.worse].map(|side| side * self.beta);
        let notes = Notes::Numbers {
            made: Tensor::stack(rewards.to_vec(), 1), // [pairs, 2]
            wanted: Vec::new(),
        };
        (terms.losses.sum(), Some(notes))
    }

    fn metrics(&self) -> Vec<&'static str> {
        vec![
            "rewards/chosen",
            "rewards/rejected",
            "rewards/accuracies",
            "rewards/margins",
        ]
    }

    fn measure(&self, told: &[Arc<Told>]) -> Vec<f64> {
        let rows = told.iter().flat_map(|told| told.rows());
        let rewards: Vec<[f64; 2]> = rows
            .map(|row| [f64::from(row[0]), f64::from(row[1])])
            .collect();
        let mean =
            |of: fn(&[f64; 2]) -> f64| rewards.iter().map(of).sum::<f64>() / rewards.len() as f64;
        vec![
            mean(|[better, _]| *better),
            mean(|[_, worse]| *worse),
            mean(|[better, worse]| f64::from(u8::from(better > worse))),
            mean(|[better, worse]| better - worse),
        ]
    }
}
