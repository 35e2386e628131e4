//! How [`AdaLora`] gives its rank away: all layers share a budget of singular values, which falls as training goes on, and the
//! least important ones lose theirs.

mod record;

use std::collections::HashMap;

use burn::module::{Module, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

pub use record::{AllocatorRecord, Importance};

use crate::method::{AdaLora, AdaLoraConfig, Method};
use crate::reach::{replace_stacks, visible_stacks};
use crate::stack::AdapterStack;

/// The budget after a step, and whether values are taken then.
///
/// `b(t) = b_T + (b_0 - b_T) (1 - (t - t_init) / (T - t_init - t_final))^3` between the two phases without change
/// (arXiv:2303.10512, section 3.3).
pub fn budget_at(
    step: usize,
    config: &AdaLoraConfig,
    initial: usize,
    target: usize,
) -> (usize, bool) {
    let AdaLoraConfig {
        t_init,
        t_final,
        delta_t,
        total_steps,
        ..
    } = *config;
    let end = total_steps.saturating_sub(t_final);
    if step <= t_init {
        return (initial, false);
    }
    if step > end {
        return (target, true);
    }
    let passed = (step - t_init) as f64 / (end - t_init).max(1) as f64;
    let left = (1.0 - passed).powi(3);
    let budget = (initial as f64 - target as f64) * left + target as f64;
    (budget as usize, step.is_multiple_of(delta_t.max(1)))
}

/// Which of the scores are kept under a budget: all but the lowest, of which equal ones fall together.
pub fn kept(scores: &[Vec<f64>], budget: usize) -> Vec<Vec<bool>> {
    let mut all: Vec<f64> = scores.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let taken = all.len().saturating_sub(budget);
    let threshold = match taken.checked_sub(1) {
        Some(last) => all[last],
        None => f64::NEG_INFINITY,
    };
    let scores = scores.iter();
    scores
        .map(|scores| scores.iter().map(|score| *score > threshold).collect())
        .collect()
}

/// The mean penalty on A and B of the AdaLoRA adapters of a module, times its weight; nothing without such an adapter. It is
/// added to the loss.
///
/// # Shapes
/// - output: `[1]`
pub fn orthogonality_penalty<M: Module>(module: &M) -> Option<Tensor<1>> {
    let stacks = visible_stacks(module);
    let mut penalties = Vec::new();
    let mut weight = 0.0;
    for adalora in stacks.iter().flat_map(|(_, stack)| trained(stack)) {
        weight = adalora.config.orthogonality_weight;
        penalties.push(adalora.orthogonality_penalty());
    }
    let count = penalties.len() as f64;
    (count > 0.0 && weight > 0.0)
        .then(|| Tensor::cat(penalties, 0).sum().mul_scalar(weight / count))
}

fn trained(stack: &AdapterStack) -> impl Iterator<Item = &AdaLora> {
    let active = stack
        .adapters()
        .iter()
        .filter(|adapter| adapter.is_active());
    active.filter_map(|adapter| match &adapter.method {
        Method::AdaLora(adalora) => Some(adalora),
        _ => None,
    })
}

/// Gives the budget of a module away, step by step. What is important is learned from gradients and lives here, beside the
/// module: a run that is to go on exactly puts the [record](RankAllocator::record) into its checkpoints.
#[derive(Clone, Debug)]
pub struct RankAllocator {
    config: AdaLoraConfig,
    initial: usize,
    target: usize,
    /// Gradients of the step that is being made.
    gradients: HashMap<ParamId, Tensor<2>>,
    /// Means of the sensitivity and of its uncertainty.
    means: HashMap<ParamId, [Tensor<2>; 2]>,
    /// What is left once the budget has fallen, by the paths of the weights.
    last: HashMap<String, Vec<bool>>,
}

impl RankAllocator {
    /// The allocator of a module's AdaLoRA adapters, if it has any.
    pub fn of<M: Module>(module: &M) -> Option<Self> {
        let stacks = visible_stacks(module);
        let found: Vec<&AdaLora> = stacks
            .iter()
            .flat_map(|(_, stack)| trained(stack))
            .collect();
        let config = found.first()?.config.as_ref().clone();
        let ranks = found.iter().map(|adalora| adalora.e.lazy_shape()[1]);
        Some(Self {
            initial: ranks.sum(),
            target: config.target_rank * found.len(),
            config,
            gradients: HashMap::new(),
            means: HashMap::new(),
            last: HashMap::new(),
        })
    }

    /// Notes the gradients of a step, before the optimizer takes them.
    pub fn observe<M: Module>(&mut self, module: &M, gradients: &GradientsParams) {
        self.gradients.clear();
        for (_, stack) in visible_stacks(module) {
            for adalora in trained(&stack) {
                for param in [&adalora.a, &adalora.e, &adalora.b] {
                    if let Some(gradient) = gradients.get::<2>(param.id) {
                        self.gradients.insert(param.id, gradient);
                    }
                }
            }
        }
    }

    /// Takes singular values away after the optimizer's step, the first of which is 1.
    pub fn allocate<M: Module>(&mut self, module: M, step: usize) -> M {
        let stacks = visible_stacks(&module);
        let end = self.config.total_steps.saturating_sub(self.config.t_final);
        if step < end {
            for adalora in stacks.iter().flat_map(|(_, stack)| trained(stack)) {
                for param in [&adalora.a, &adalora.e, &adalora.b] {
                    self.learn(param);
                }
            }
        }
        let (budget, takes) = budget_at(step, &self.config, self.initial, self.target);
        if step <= end && !takes && step != end {
            return module;
        }
        if step <= end {
            let scored = stacks.iter().filter_map(|(path, stack)| {
                let adalora = trained(stack).next()?;
                Some((path.clone(), self.scores(adalora)?))
            });
            let (paths, scores): (Vec<String>, Vec<Vec<f64>>) = scored.unzip();
            self.last = paths.into_iter().zip(kept(&scores, budget)).collect();
        }
        let changed = stacks.into_iter().filter_map(|(path, stack)| {
            let kept = self.last.get(&path)?;
            let stack = stack.with_adapters(|adapters| {
                for adapter in adapters.iter_mut().filter(|adapter| adapter.is_active()) {
                    if let Method::AdaLora(adalora) = &adapter.method {
                        adapter.method = Method::AdaLora(adalora.clone().with_kept(kept));
                    }
                }
            });
            Some((path, stack))
        });
        let changed = changed.collect();
        replace_stacks(module, changed)
    }

    /// `I = |w g|`, its smoothed mean, and that of its distance from the mean.
    fn learn(&mut self, param: &Param<Tensor<2>>) {
        let Some(gradient) = self.gradients.get(&param.id) else {
            return;
        };
        let value = param.base().without_autodiff();
        let sensitivity = (value * gradient.clone().without_autodiff()).abs();
        let zeros = || sensitivity.zeros_like();
        let [mean, distance] = self
            .means
            .remove(&param.id)
            .unwrap_or_else(|| [zeros(), zeros()]);
        let (b1, b2) = (self.config.beta_1, self.config.beta_2);
        let mean = mean.mul_scalar(b1) + sensitivity.clone().mul_scalar(1.0 - b1);
        let gap = (sensitivity - mean.clone()).abs();
        let distance = distance.mul_scalar(b2) + gap.mul_scalar(1.0 - b2);
        self.means.insert(param.id, [mean, distance]);
    }

    /// How important each singular value is, with its vectors.
    fn scores(&self, adalora: &AdaLora) -> Option<Vec<f64>> {
        let score = |param: &Param<Tensor<2>>| {
            let [mean, distance] = self.means.get(&param.id)?;
            Some(mean.clone() * distance.clone())
        };
        let numbers = |tensor: Tensor<2>| tensor.into_data().iter::<f64>().collect::<Vec<f64>>();
        let a = numbers(score(&adalora.a)?.mean_dim(0)); // [rank]
        let e = numbers(score(&adalora.e)?);
        let b = numbers(score(&adalora.b)?.mean_dim(1));
        let sums = a.iter().zip(e).zip(b);
        Some(sums.map(|((a, e), b)| a + e + b).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_falls_as_peft_has_it() {
        let config = AdaLoraConfig {
            t_init: 2,
            t_final: 3,
            delta_t: 2,
            total_steps: 13,
            ..AdaLoraConfig::default()
        };
        // int((48 - 16) * (1 - (step - 2) / 8)^3 + 16), computed by hand.
        let expected = [
            (0, (48, false)),
            (2, (48, false)),
            (3, (37, false)),
            (4, (29, true)),
            (6, (20, true)),
            (9, (16, false)),
            (10, (16, true)),
            (11, (16, true)),
        ];
        for (step, budget) in expected {
            assert_eq!(budget_at(step, &config, 48, 16), budget, "step {step}");
        }
    }

    #[test]
    fn the_lowest_scores_are_taken() {
        let scores = [vec![3.0, 1.0], vec![2.0, 4.0, 2.0]];
        assert_eq!(
            kept(&scores, 2),
            [vec![true, false], vec![false, true, false]]
        );
        assert_eq!(kept(&scores, 5), [vec![true; 2], vec![true; 3]]);
    }
}
