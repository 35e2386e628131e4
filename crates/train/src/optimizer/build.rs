use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    AdafactorConfig, AdjustLrFn, DynOptimizer, LionConfig, ModuleOptimizer, MuonConfig, SgdConfig,
};
use burn::tensor::Tensor;

use super::adamw::AdamW;
use super::choice::{AdamWOptions, OptimizerChoice};
use crate::config::TrainConfig;

/// The recipe's optimizer for a module: biases and the parameters of norms do not decay, and Muon has matrices only.
///
/// Its groups are those of the module's parameters as they are now: a record with other ids is to be loaded before.
pub fn optimizer<M: Module>(module: &M, config: &TrainConfig) -> ModuleOptimizer {
    let groups = Groups::of(module);
    let decay = config.weight_decay;
    match config.optimizer {
        OptimizerChoice::AdamW(options) => groups.split(|decay| adamw(options, decay), decay),
        OptimizerChoice::Adafactor(options) => groups.split(
            |decay| {
                AdafactorConfig::new()
                    .with_relative_step(false)
                    .with_epsilon_1(options.epsilon as f32)
                    .with_epsilon_2(options.min_scale as f32)
                    .with_clip_threshold(options.clip_threshold as f32)
                    .with_decay_rate(options.decay_rate)
                    .with_scale_parameter(options.scale_parameter)
                    .with_weight_decay(decay as f32)
                    .build()
            },
            decay,
        ),
        OptimizerChoice::Lion(options) => groups.split(
            |decay| {
                LionConfig::new()
                    .with_beta_1(options.beta_1 as f32)
                    .with_beta_2(options.beta_2 as f32)
                    .with_weight_decay(decay as f32)
                    .build()
            },
            decay,
        ),
        OptimizerChoice::Sgd(options) => groups.split(
            |decay| {
                let config = SgdConfig::new().with_weight_decay(penalty(decay));
                let momentum = momentum(options.momentum, options.nesterov);
                let momentum = (options.momentum > 0.0).then_some(momentum);
                config.with_momentum(momentum).build()
            },
            decay,
        ),
        OptimizerChoice::Muon(options) => {
            let rest = AdamWOptions {
                beta_1: options.beta_1,
                beta_2: options.beta_2,
                epsilon: options.epsilon,
            };
            let muon = MuonConfig::new()
                .with_momentum(momentum(options.momentum, options.nesterov))
                .with_ns_steps(options.ns_steps)
                .with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW)
                .with_weight_decay(penalty(decay))
                .build();
            let matrices = ParamGroup::from_ids(groups.matrices.clone());
            let optimizer = groups.split(|decay| adamw(rest, decay), decay);
            match groups.matrices.is_empty() {
                true => optimizer,
                false => optimizer.with_group(matrices, muon, None),
            }
        }
    }
}

fn adamw(options: AdamWOptions, weight_decay: f64) -> AdamW {
    AdamW {
        beta_1: options.beta_1,
        beta_2: options.beta_2,
        epsilon: options.epsilon,
        weight_decay,
    }
}

fn penalty(decay: f64) -> Option<WeightDecayConfig> {
    (decay > 0.0).then(|| WeightDecayConfig::new(decay as f32))
}

fn momentum(momentum: f64, nesterov: bool) -> MomentumConfig {
    MomentumConfig {
        momentum,
        dampening: 0.0,
        nesterov,
    }
}

/// Parameters by what is done with them.
#[derive(Default)]
struct Groups {
    path: Vec<(String, String)>,
    /// Biases and all of a norm.
    undecayed: Vec<ParamId>,
    /// What Muon is for.
    matrices: Vec<ParamId>,
}

impl Groups {
    fn of<M: Module>(module: &M) -> Self {
        let mut groups = Self::default();
        module.visit(&mut groups);
        groups
    }

    /// An optimizer with this decay for most and none for some.
    fn split<O: DynOptimizer + burn::optim::Optimizer + 'static>(
        &self,
        make: impl Fn(f64) -> O,
        decay: f64,
    ) -> ModuleOptimizer {
        let all = ModuleOptimizer::from(make(decay));
        match decay == 0.0 || self.undecayed.is_empty() {
            true => all,
            false => {
                let group = ParamGroup::from_ids(self.undecayed.clone());
                all.with_group(group, make(0.0), None)
            }
        }
    }

    fn is_under(&self, what: impl Fn(&str, &str) -> bool) -> bool {
        self.path
            .iter()
            .any(|(name, container)| what(name, container))
    }
}

impl ModuleVisitor for Groups {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push((name.to_string(), container.to_string()));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let is_norm = |_: &str, container: &str| container.to_lowercase().ends_with("norm");
        if self.is_under(|name, _| name == "bias") || self.is_under(is_norm) {
            self.undecayed.push(param.id);
        }
        // Rows of an embedding or of a head are no matrix to be orthogonalized, and a matrix of one row is a vector.
        let is_table = |name: &str, _: &str| {
            ["embed", "wte", "wpe", "lm_head"]
                .iter()
                .any(|word| name.contains(word))
        };
        let shape = param.lazy_shape();
        if D == 2 && shape[0] > 1 && shape[1] > 1 && !self.is_under(is_table) {
            self.matrices.push(param.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
    use burn::optim::GradientsParams;
    use burn::tensor::{Device, TensorData};
    use serde_json::Value;

    use super::*;
    use crate::optimizer::{AdafactorOptions, MuonOptions, SgdOptions};

    type Parameters = (Param<Tensor<2>>, Param<Tensor<1>>);

    fn golden() -> Value {
        let text = include_str!("../../../../tests/golden/optimizers.json");
        serde_json::from_str(text).expect("lists of numbers")
    }

    fn numbers(value: &Value) -> Vec<f32> {
        serde_json::from_value(value.clone()).expect("numbers")
    }

    fn tensors(pair: &Value) -> (Tensor<2>, Tensor<1>) {
        let device = Device::flex().autodiff();
        let tensor = |index: usize| {
            let numbers = numbers(&pair[index]);
            let shape = [numbers.len()];
            Tensor::<1>::from_data(TensorData::new(numbers, shape), &device)
        };
        (tensor(0).reshape([5, 3]), tensor(1))
    }

    /// The steps that the golden script took, by an optimizer of ours.
    fn steps(name: &str, choice: OptimizerChoice, weight_decay: f64, has_vector: bool) {
        let golden = golden();
        let (matrix, vector) = tensors(&golden["start"]);
        let mut module: Parameters = (
            Param::from_tensor(matrix.require_grad()),
            Param::from_tensor(vector.require_grad()),
        );
        let config = TrainConfig {
            optimizer: choice,
            weight_decay,
            ..TrainConfig::default()
        };
        let mut optimizer = optimizer(&module, &config);
        let expected = golden["steps"][name].as_array().expect("steps");
        assert_eq!(expected.len(), 4);
        for (step, expected) in expected.iter().enumerate() {
            let (matrix, vector) = tensors(&golden["gradients"][step]);
            let mut gradients = GradientsParams::new();
            gradients.register(module.0.id, matrix.inner());
            gradients.register(module.1.id, vector.inner());
            module = optimizer.step(0.01, module, gradients);
            let found = [
                module.0.val().into_data().iter::<f32>().collect::<Vec<_>>(),
                module.1.val().into_data().iter::<f32>().collect(),
            ];
            for (index, found) in found.iter().enumerate().take(1 + usize::from(has_vector)) {
                for (found, expected) in found.iter().zip(numbers(&expected[index])) {
                    let error = (found - expected).abs();
                    assert!(error < 2e-6, "{name}, step {step}: {found}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn adamw_steps_as_pytorch() {
        let options = AdamWOptions {
            beta_1: 0.8,
            beta_2: 0.95,
            epsilon: 1e-6,
        };
        steps("adamw", OptimizerChoice::AdamW(options), 0.1, true);
    }

    #[test]
    fn adafactor_steps_as_transformers() {
        let choice = OptimizerChoice::Adafactor;
        steps("adafactor", choice(AdafactorOptions::default()), 0.1, true);
        let options = AdafactorOptions {
            scale_parameter: true,
            clip_threshold: 0.5,
            decay_rate: -0.7,
            ..AdafactorOptions::default()
        };
        steps("adafactor_scaled", choice(options), 0.0, true);
    }

    #[test]
    fn lion_steps_as_published() {
        steps("lion", OptimizerChoice::Lion(Default::default()), 0.1, true);
    }

    #[test]
    fn sgd_steps_as_pytorch() {
        steps(
            "sgd",
            OptimizerChoice::Sgd(SgdOptions::default()),
            0.1,
            true,
        );
        let options = SgdOptions {
            momentum: 0.8,
            nesterov: true,
        };
        steps("sgd_nesterov", OptimizerChoice::Sgd(options), 0.0, true);
    }

    #[test]
    fn muon_steps_as_pytorch_and_leaves_vectors_to_adamw() {
        let options = MuonOptions {
            beta_1: 0.8,
            beta_2: 0.95,
            epsilon: 1e-6,
            ..MuonOptions::default()
        };
        let choice = OptimizerChoice::Muon(options);
        steps("muon", choice.clone(), 0.1, false);
        // The vector goes where AdamW takes it.
        let device = Device::flex().autodiff();
        let vector = || Tensor::<1>::from_floats([1.0, -2.0], &device).require_grad();
        let mut module = (Param::from_tensor(vector()), Param::from_tensor(vector()));
        let config = TrainConfig {
            optimizer: choice,
            ..TrainConfig::default()
        };
        let mut optimizer = optimizer(&module, &config);
        let mut gradients = GradientsParams::new();
        gradients.register(
            module.0.id,
            Tensor::<1>::from_floats([3.0, -0.1], &Device::flex()),
        );
        module = optimizer.step(0.01, module, gradients);
        let found: Vec<f32> = module.0.val().into_data().iter().collect();
        assert!(
            (found[0] - 0.9899).abs() < 1e-4 && (found[1] + 1.9898).abs() < 1e-4,
            "{found:?}"
        );
    }

    #[test]
    fn biases_and_norms_do_not_decay() {
        type Layers = (Linear, LayerNorm);
        let device = Device::flex().autodiff();
        let mut module: Layers = (
            LinearConfig::new(2, 2).init(&device),
            LayerNormConfig::new(2).init(&device),
        );
        let config = TrainConfig {
            weight_decay: 0.5,
            optimizer: OptimizerChoice::Sgd(SgdOptions::default()),
            ..TrainConfig::default()
        };
        let mut optimizer = optimizer(&module, &config);
        let bias = module.0.bias.as_ref().expect("a bias").id;
        let gamma = module.1.gamma.id;
        let weight = module.0.weight.val();
        let mut gradients = GradientsParams::new();
        for id in [bias, gamma] {
            gradients.register(id, Tensor::<1>::zeros([2], &Device::flex()));
        }
        let zeros = Tensor::<2>::zeros([2, 2], &Device::flex());
        gradients.register(module.0.weight.id, zeros);
        module = optimizer.step(0.1, module, gradients);
        let gamma: Vec<f32> = module.1.gamma.val().into_data().iter().collect();
        assert_eq!(gamma, [1.0, 1.0]);
        let expected = weight.mul_scalar(1.0 - 0.1 * 0.5).into_data();
        let found = module.0.weight.val().into_data();
        found.assert_approx_eq::<f32>(&expected, burn::tensor::Tolerance::absolute(1e-6));
    }
}
