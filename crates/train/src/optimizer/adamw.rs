use burn::optim::{AdamWState, AdaptiveMomentumState, LearningRate, Optimizer};
use burn::tensor::{DType, Device, Tensor};
use burn_lora_kernels::{AdamWStep, adamw};

/// Decoupled Weight Decay Regularization (arXiv:1711.05101), one pass over memory for each parameter.
///
/// Its state has the form of Burn's own AdamW, so that either goes on from a checkpoint of the other.
#[derive(Clone, Debug)]
pub(crate) struct AdamW {
    pub(crate) beta_1: f64,
    pub(crate) beta_2: f64,
    pub(crate) epsilon: f64,
    pub(crate) weight_decay: f64,
}

impl Optimizer for AdamW {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        learning_rate: LearningRate,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let (time, moments) = match state {
            Some(AdamWState { momentum }) => {
                (momentum.time + 1, [momentum.moment_1, momentum.moment_2])
            }
            None => (1, [no_moment(&gradient), no_moment(&gradient)]),
        };
        let step = AdamWStep {
            learning_rate,
            beta_1: self.beta_1,
            beta_2: self.beta_2,
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
            time,
        };
        let (parameter, [moment_1, moment_2]) = adamw(parameter, gradient, moments, &step);
        let momentum = AdaptiveMomentumState::new(time, moment_1, moment_2);
        (parameter, Some(AdamWState::new(momentum)))
    }

    fn to_device<const D: usize>(state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        AdamWState::new(state.momentum.to_device(device))
    }
}

/// The moments before the first step: zeros in the dtype of the gradient, but in `f32` for `f16`, where squares of gradients below
/// 2e-4 are 0, and the steps that are divided by their roots of any length.
fn no_moment<const D: usize>(gradient: &Tensor<D>) -> Tensor<D> {
    match gradient.dtype() {
        DType::F16 => Tensor::zeros(gradient.dims(), (&gradient.device(), DType::F32)),
        _ => gradient.zeros_like(),
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::module::Param;
    use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
    use burn::tensor::{Distribution, Tolerance};

    use super::*;

    type Parameters = (Param<Tensor<1>>, Param<Tensor<2>>);

    fn ours() -> ModuleOptimizer {
        AdamW {
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.1,
        }
        .into()
    }

    fn burns() -> ModuleOptimizer {
        AdamWConfig::new()
            .with_epsilon(1e-8)
            .with_weight_decay(0.1)
            .init()
    }

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    fn parameters() -> Parameters {
        (
            Param::from_tensor(Tensor::from_inner(random([33]))),
            Param::from_tensor(Tensor::from_inner(random([5, 7]))),
        )
    }

    /// Where the numbers of a tensor lie.
    fn address<const D: usize>(tensor: Tensor<D>) -> *const f32 {
        let tensor = tensor.inner().try_into_primitive::<Flex>();
        tensor.expect("flex").storage().as_ptr()
    }

    /// What gives gradients, which cannot be cloned, as often as asked.
    fn gradients(parameters: &Parameters) -> impl Fn() -> GradientsParams + use<> {
        let ids = (parameters.0.id, parameters.1.id);
        let values = (random([33]), random([5, 7]));
        move || {
            let mut gradients = GradientsParams::new();
            gradients.register(ids.0, values.0.clone());
            gradients.register(ids.1, values.1.clone());
            gradients
        }
    }

    fn close(a: &Parameters, b: &Parameters) {
        let tolerance = Tolerance::absolute(1e-6).set_relative(1e-6);
        let pairs = [
            (a.0.val().into_data(), b.0.val().into_data()),
            (a.1.val().into_data(), b.1.val().into_data()),
        ];
        for (a, b) in pairs {
            a.assert_approx_eq::<f32>(&b, tolerance);
        }
    }

    #[test]
    fn checkpoints_of_burns_adamw_are_gone_on_from_and_the_other_way_round() {
        for (first, second) in [(burns(), ours()), (ours(), burns()), (ours(), ours())] {
            let mut model = parameters();
            let mut optimizer = first;
            for _ in 0..3 {
                let gradients = gradients(&model);
                model = optimizer.step(1e-2, model, gradients());
            }
            let record = optimizer.to_record().into_bytes().expect("it can be saved");
            let mut resumed = second.from_bytes(record).expect("it can be loaded");
            let gradients = gradients(&model);
            let expected = optimizer.step(1e-2, model.clone(), gradients());
            // Without its state the step would be many times as long.
            close(&resumed.step(1e-2, model, gradients()), &expected);
        }
    }

    #[test]
    fn a_model_and_a_state_that_nobody_else_has_stay_where_they_are() {
        let mut model = parameters();
        let mut optimizer = ours();
        let before = (address(model.0.val()), address(model.1.val()));
        let gradients = gradients(&model);
        for _ in 0..2 {
            model = optimizer.step(1e-2, model, gradients());
            assert_eq!((address(model.0.val()), address(model.1.val())), before);
        }

        let optimizer = AdamW {
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
        };
        let moments = |state: &AdamWState<1>| {
            let momentum = &state.momentum;
            [&momentum.moment_1, &momentum.moment_2].map(|moment| address(moment.clone()))
        };
        let (parameter, state) = optimizer.step(1e-2, random([33]), random([33]), None);
        let state = state.expect("after a step");
        let before = moments(&state);
        let state = AdamW::to_device(state, &Device::flex());
        let (_, state) = optimizer.step(1e-2, parameter, random([33]), Some(state));
        assert_eq!(moments(&state.expect("after a step")), before);
    }

    #[test]
    fn steps_in_f16_have_the_length_of_those_in_f32() {
        let optimizer = AdamW {
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
        };
        let run = |dtype| {
            let cast =
                |x: &Tensor<1>| Tensor::<1>::from_data(x.to_data(), (&Device::flex(), dtype));
            let start = Tensor::from_floats([0.5, -0.25, 0.125], &Device::flex());
            // Squares that f16 does not have.
            let gradient = Tensor::from_floats([1e-4, -3e-5, 2e-6], &Device::flex());
            let (mut parameter, mut state) = (cast(&start), None);
            for _ in 0..4 {
                (parameter, state) = optimizer.step(1e-2, parameter, cast(&gradient), state);
            }
            assert_eq!(parameter.dtype(), dtype);
            parameter.into_data().convert::<f32>()
        };
        let tolerance = Tolerance::absolute(1e-3).set_relative(0.0);
        run(DType::F16).assert_approx_eq::<f32>(&run(DType::F32), tolerance);
    }
}
