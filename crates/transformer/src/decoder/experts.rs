use burn::nn::Linear;
use burn::tensor::{DType, Int, Tensor, TensorData, activation};
use burn_lora_adapter::project;

use super::mlp::{Mlp, MlpNames};
use super::names::BlockNames;
use super::plan::{ExpertsPlan, MlpForm, MlpPlan};
use super::scope::Scope;
use crate::named::{Named, unnamed_module};

/// A mixture of experts (arXiv:2401.04088): `sum over a token's experts e of p_e expert_e(x)`, with `p = softmax(router(x))`
/// of which a token keeps the largest.
///
/// Each expert is a module of its own, under its number, so that adapters go onto each; it is computed for the tokens that
/// go to it and no others.
#[derive(Debug, Clone)]
pub(crate) struct Experts {
    /// `[d_model, experts]`
    router: Named<Linear>,
    experts: Named<Vec<Mlp>>,
    top_k: usize,
    normalize: bool,
}

unnamed_module!(Experts { router, experts } with { top_k, normalize });

impl Experts {
    pub(crate) fn build(
        plan: ExpertsPlan,
        mlp: MlpPlan,
        d_model: usize,
        names: &BlockNames,
        scope: &mut Scope<'_, '_>,
    ) -> Self {
        let mlp = MlpPlan {
            d_inner: plan.d_inner,
            form: MlpForm::Gated,
            bias: false,
            ..mlp
        };
        let names_of_one = MlpNames {
            gate: names.expert_gate,
            up: names.expert_up,
            down: names.expert_down,
        };
        Self {
            router: scope.linear(names.router, [d_model, plan.n], false),
            experts: scope.list(names.experts, plan.n, |_, mut scope| {
                Mlp::build(mlp, d_model, &names_of_one, &mut scope)
            }),
            top_k: plan.top_k,
            normalize: plan.normalize,
        }
    }

    /// # Shapes
    ///
    /// - x, output: `[batch, seq, d_model]`
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, seq, d] = x.dims();
        let n = batch * seq;
        if n == 0 {
            return x;
        }
        let x: Tensor<2> = x.reshape([n, d]);
        let router = project(&self.router, x.clone()).cast(DType::F32);
        let probabilities = activation::softmax(router, 1); // [n, experts]
        let routes = Routes::of(&probabilities, self.top_k);
        let device = x.device();

        let chosen = routes.tensor(&routes.experts, &device);
        let weights = probabilities.gather(1, chosen.reshape([n, self.top_k])); // [n, top_k]
        let weights = match self.normalize {
            true => weights.clone() / weights.sum_dim(1),
            false => weights,
        };

        let tokens = routes.tensor(&routes.tokens, &device);
        let gathered = x.clone().select(0, tokens); // [n * top_k, d_model], expert by expert
        let mut results = Vec::with_capacity(self.experts.len());
        let mut from = 0;
        for (expert, count) in self.experts.iter().zip(&routes.counts) {
            if *count > 0 {
                results.push(expert.forward(gathered.clone().narrow(0, from, *count)));
                from += count;
            }
        }
        let places = routes.tensor(&routes.places, &device);
        let results = Tensor::cat(results, 0).select(0, places); // [n * top_k, d_model], token by token
        let results: Tensor<3> = results.reshape([n, self.top_k, d]);
        let weights: Tensor<3> = weights.cast(x.dtype()).unsqueeze_dim(2);
        let mixed = (results * weights).sum_dim(1); // [n, 1, d_model]
        mixed.reshape([batch, seq, d])
    }
}

/// Which token goes where. A route is a token together with one of its experts.
struct Routes {
    /// The expert of each route, token by token.
    experts: Vec<i32>,
    /// The token of each route, expert by expert.
    tokens: Vec<i32>,
    /// Where a route stands expert by expert, token by token.
    places: Vec<i32>,
    /// The routes of each expert.
    counts: Vec<usize>,
}

impl Routes {
    /// Reads the probabilities back: which expert computes what is decided on the host, on every device.
    fn of(probabilities: &Tensor<2>, top_k: usize) -> Self {
        let [_, n_experts] = probabilities.dims();
        let data = probabilities.clone().detach().into_data();
        let numbers: Vec<f32> = data.iter::<f32>().collect();
        let rows = numbers.chunks_exact(n_experts.max(1));
        let experts = rows.flat_map(|row| largest(row, top_k)).collect();
        Self::from_experts(experts, top_k, n_experts)
    }

    fn from_experts(experts: Vec<usize>, top_k: usize, n_experts: usize) -> Self {
        let mut order: Vec<usize> = (0..experts.len()).collect();
        order.sort_by_key(|route| experts[*route]);
        let mut places = vec![0; experts.len()];
        let mut counts = vec![0; n_experts];
        for (place, route) in order.iter().enumerate() {
            places[*route] = place as i32;
            counts[experts[*route]] += 1;
        }
        Self {
            experts: experts.iter().map(|expert| *expert as i32).collect(),
            tokens: order.iter().map(|route| (route / top_k) as i32).collect(),
            places,
            counts,
        }
    }

    fn tensor(&self, values: &[i32], device: &burn::tensor::Device) -> Tensor<1, Int> {
        let device = device.clone().without_autodiff();
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &device)
    }
}

/// The places of the largest numbers, the largest first; of equal ones the first.
fn largest(numbers: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|a, b| numbers[*b].total_cmp(&numbers[*a]));
    order.truncate(count);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_lead_to_the_experts_and_back() {
        // Three tokens, each with two of three experts; nobody asks for expert 1.
        let routes = Routes::from_experts(vec![2, 0, 0, 2, 2, 0], 2, 3);
        assert_eq!(routes.counts, [3, 0, 3]);
        assert_eq!(routes.tokens, [0, 1, 2, 0, 1, 2]);
        for (route, place) in routes.places.iter().enumerate() {
            assert_eq!(routes.tokens[*place as usize], (route / 2) as i32);
        }
    }

    #[test]
    fn the_first_of_equal_numbers_is_larger() {
        assert_eq!(largest(&[0.1, 0.5, 0.5, 0.2], 3), [1, 2, 3]);
    }
}
