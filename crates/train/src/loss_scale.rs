use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// What a run begins with, and how long the scale stays before it is doubled: PyTorch's `GradScaler`.
const FIRST: f64 = 65536.0;
const STEADY_STEPS: usize = 2000;

/// Keeps the gradients of a model in f16 where that dtype has numbers (Micikevicius et al., 2018, arXiv:1710.03740).
///
/// A loss is multiplied by a power of two before its backward, and the gradients of the parameters are divided by it. A
/// step of which a gradient is not finite is left out and halves the factor; 2,000 steps without one double it. Models of
/// other dtypes have the factor 1 and pay nothing.
///
/// Handles of one scale share it.
#[derive(Clone, Debug, Default)]
pub struct LossScale(Arc<Mutex<State>>);

/// What a checkpoint holds of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    scale: f64,
    /// Steps since the scale changed.
    steady: usize,
    /// Whether the last loss was scaled.
    #[serde(skip)]
    active: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            scale: FIRST,
            steady: 0,
            active: false,
        }
    }
}

impl LossScale {
    /// The scale that a run begins with.
    pub fn new() -> Self {
        Self::default()
    }

    /// The factor of a loss of hidden states of this dtype.
    pub(crate) fn factor(&self, dtype: DType) -> f64 {
        let mut state = self.lock();
        state.active = dtype == DType::F16;
        if state.active { state.scale } else { 1.0 }
    }

    /// The gradients without the factor; nothing if one of them is not finite, and the step is to be left out.
    ///
    /// This waits for the device where the loss was scaled, and only there.
    pub fn unscale<M: Module>(
        &self,
        module: &M,
        grads: GradientsParams,
    ) -> Option<GradientsParams> {
        let mut state = self.lock();
        if !state.active {
            return Some(grads);
        }
        let mut unscaled = Unscaled {
            factor: 1.0 / state.scale,
            taken: grads,
            grads: GradientsParams::new(),
            sums: Vec::new(),
        };
        module.visit(&mut unscaled);
        // 0 times a number is 0, and NaN where the number is not finite.
        let is_finite = match unscaled.sums.is_empty() {
            true => true,
            false => {
                let sum: f32 = Tensor::cat(unscaled.sums, 0).sum().into_scalar();
                sum.is_finite()
            }
        };
        *state = state.after(is_finite);
        is_finite.then_some(unscaled.grads)
    }

    /// What a checkpoint holds, of a model that needs it.
    pub(crate) fn state(&self) -> Option<State> {
        let state = *self.lock();
        state.active.then_some(state)
    }

    /// Goes on from a checkpoint.
    pub(crate) fn restore(&self, state: State) {
        *self.lock() = state;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn after(self, is_finite: bool) -> Self {
        let (scale, steady) = match (is_finite, self.steady + 1) {
            (false, _) => (self.scale / 2.0, 0),
            (true, STEADY_STEPS) => (self.scale * 2.0, 0),
            (true, steady) => (self.scale, steady),
        };
        Self {
            scale,
            steady,
            ..self
        }
    }
}

/// Divides the gradients of a module, and adds up what tells whether all are finite.
struct Unscaled {
    factor: f64,
    taken: GradientsParams,
    grads: GradientsParams,
    sums: Vec<Tensor<1>>,
}

impl ModuleVisitor for Unscaled {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.taken.remove::<D>(param.id) {
            self.sums
                .push(grad.clone().cast(DType::F32).mul_scalar(0.0).sum());
            self.grads.register(param.id, grad.mul_scalar(self.factor));
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn unscaled(scale: &LossScale, numbers: [f32; 2]) -> Option<Vec<f32>> {
        let device = Device::flex();
        let module = Param::from_tensor(Tensor::<1>::zeros([2], &device));
        let mut grads = GradientsParams::new();
        grads.register(module.id, Tensor::<1>::from_floats(numbers, &device));
        let mut grads = scale.unscale(&module, grads)?;
        let grad = grads.remove::<1>(module.id).expect("it is there");
        Some(grad.into_data().iter::<f32>().collect())
    }

    #[test]
    fn gradients_of_f16_lose_their_factor_and_others_have_none() {
        let scale = LossScale::new();
        assert_eq!(scale.factor(DType::BF16), 1.0);
        assert_eq!(
            unscaled(&scale, [3.0, f32::NAN]).expect("untouched")[0],
            3.0
        );
        assert_eq!(scale.factor(DType::F16), 65536.0);
        assert_eq!(unscaled(&scale, [65536.0, -32768.0]), Some(vec![1.0, -0.5]));
    }

    #[test]
    fn an_overflow_leaves_a_step_out_and_halves_the_factor() {
        let scale = LossScale::new();
        for (numbers, factor) in [([f32::INFINITY, 1.0], 32768.0), ([1.0, f32::NAN], 16384.0)] {
            scale.factor(DType::F16);
            assert_eq!(unscaled(&scale, numbers), None);
            assert_eq!(scale.factor(DType::F16), factor);
        }
    }

    #[test]
    fn many_steps_without_one_double_it() {
        let mut state = State::default().after(false);
        for _ in 1..STEADY_STEPS {
            state = state.after(true);
            assert_eq!(state.scale, FIRST / 2.0);
        }
        assert_eq!(state.after(true).scale, FIRST);
        assert_eq!(state.after(true).steady, 0);
    }
}
