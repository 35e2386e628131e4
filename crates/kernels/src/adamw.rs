use burn::tensor::Tensor;

#[cfg(feature = "cube")]
use crate::cube;
#[cfg(feature = "host")]
use crate::host;
use crate::portable;

/// The numbers of one step of [`adamw`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Size of the step.
    pub learning_rate: f64,
    /// Share of the mean of gradients that is kept.
    pub beta_1: f64,
    /// Share of the mean of squared gradients that is kept.
    pub beta_2: f64,
    /// Added to the root of the mean of squared gradients.
    pub epsilon: f64,
    /// Share of the parameter that is taken off, times the learning rate.
    pub weight_decay: f64,
    /// Number of this step, from 1.
    pub time: usize,
}

impl AdamWStep {
    /// What the moments are divided by, because they started from zero.
    pub(crate) fn corrections(&self) -> [f64; 2] {
        [self.beta_1, self.beta_2].map(|beta| 1.0 - beta.powf(self.time as f64))
    }

    /// The share of the parameter that this step takes off.
    pub(crate) fn decay(&self) -> f64 {
        self.learning_rate * self.weight_decay
    }
}

/// One step of AdamW for one parameter (arXiv:1711.05101), as PyTorch takes it.
///
/// `m = beta_1 m + (1 - beta_1) g`, `v = beta_2 v + (1 - beta_2) g^2`,
/// `p = (1 - lr weight_decay) p - lr (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon)`
///
/// The moments are `m` and `v`, zeros before the first step. The results are the new parameter and moments, each in the
/// dtype of its operand. On CPUs and GPUs they are written where the operands lie, if nobody else has these; who keeps a clone
/// keeps the old values.
///
/// # Shapes
///
/// All operands and results have one shape.
pub fn adamw<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    moments: [Tensor<D>; 2],
    step: &AdamWStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    #[cfg(feature = "host")]
    if host::takes(&parameter) {
        let operands = [&parameter, &gradient, &moments[0], &moments[1]];
        // The hand-written form has no backward.
        if !operands.iter().any(|operand| operand.is_autodiff()) {
            return host::adamw(parameter, gradient, moments, step);
        }
    }
    #[cfg(feature = "cube")]
    if cube::takes(&parameter) {
        let operands = [&parameter, &gradient, &moments[0], &moments[1]];
        if !operands.iter().any(|operand| operand.is_autodiff()) {
            return cube::adamw(parameter, gradient, moments, step);
        }
    }
    portable::adamw(parameter, gradient, moments, step)
}

/// A step of many parameters, which a GPU takes in few launches: those of [`adamw`] inside of `body` wait for its end.
///
/// On a GPU, results of [`adamw`] have their values only after that: nobody may read them inside. Elsewhere this is
/// `body()`.
pub fn adamw_together<R>(body: impl FnOnce() -> R) -> R {
    #[cfg(feature = "cube")]
    return cube::together(body);
    #[cfg(not(feature = "cube"))]
    body()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_values;
    use burn::tensor::Device;

    const STEP: AdamWStep = AdamWStep {
        learning_rate: 0.1,
        beta_1: 0.9,
        beta_2: 0.99,
        epsilon: 1e-8,
        weight_decay: 0.5,
        time: 1,
    };

    #[test]
    fn the_first_step_has_the_length_of_the_learning_rate() {
        let device = Device::flex();
        let parameter = Tensor::<1>::from_floats([1.0, -2.0, 0.0], &device);
        let gradient = Tensor::<1>::from_floats([0.5, 2.0, 0.0], &device);
        let moments = [gradient.zeros_like(), gradient.zeros_like()];
        let (parameter, [m, v]) = adamw(parameter, gradient, moments, &STEP);
        assert_values(parameter, &[0.95 - 0.1, -1.9 - 0.1, 0.0]);
        assert_values(m, &[0.05, 0.2, 0.0]);
        assert_values(v, &[0.0025, 0.04, 0.0]);
    }

    #[test]
    fn a_later_step_corrects_the_bias_of_its_moments() {
        let device = Device::flex();
        let tensor = |x| Tensor::<1>::from_floats([x], &device);
        let step = AdamWStep {
            time: 2,
            weight_decay: 0.0,
            ..STEP
        };
        let (parameter, _) = adamw(tensor(1.0), tensor(2.0), [tensor(0.1), tensor(0.01)], &step);
        let m = (0.9 * 0.1 + 0.1 * 2.0) / (1.0 - 0.81);
        let v: f32 = (0.99 * 0.01 + 0.01 * 4.0) / (1.0 - 0.9801);
        assert_values(parameter, &[1.0 - 0.1 * m / v.sqrt()]);
    }

    #[test]
    fn operands_with_autodiff_take_the_form_that_has_a_backward() {
        let device = Device::flex().autodiff();
        let tensor = |x| Tensor::<1>::from_floats([x], &device);
        let start = tensor(1.0).require_grad();
        let moments = [tensor(0.0), tensor(0.0)];
        let (parameter, _) = adamw(start.clone(), tensor(2.0), moments, &STEP);
        let grad = start.grad(&parameter.backward()).expect("it is tracked");
        assert_values(grad, &[0.95]);
    }
}
