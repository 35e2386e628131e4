//! One pass over the parameter and its moments, in the memory where they lie.
//!
//! Without autodiff there is no graph that could still need the old values: nothing here goes through
//! [`apply`](super::apply).

use burn::backend::tensor::FloatTensor;
use burn::backend::{
    BackendTensor, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind, TensorMetadata,
};
#[cfg(feature = "flex")]
use burn::backend::{Flex, flex::FlexTensor};
#[cfg(feature = "ndarray")]
use burn::backend::{NdArray, ndarray::NdArrayTensor};
use burn::tensor::{DType, FloatDType, Tensor};

use super::HostTensor;
use super::backend::Host;
use super::math::vectorized;
use super::pool::{Buffer, buffer};
use super::rows::fill_three;
use crate::AdamWStep;

/// Numbers of each operand that are worked on together: what was copied is still in the fastest cache.
const TOGETHER: usize = 1024;

pub(crate) fn adamw<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    [m, v]: [Tensor<D>; 2],
    step: &AdamWStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let targets = [parameter, m, v].map(|target| target.into_dispatch().kind);
    let gradient = gradient.into_dispatch().kind;
    let update = Update::of(step);
    let [parameter, m, v] = match &gradient {
        #[cfg(feature = "flex")]
        DispatchTensorKind::Flex(_) => update.route::<Flex>(targets, gradient),
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(_) => update.route::<NdArray>(targets, gradient),
        other => panic!("not in host memory: {other:?}"),
    }
    .map(|kind| {
        Tensor::from_dispatch(DispatchTensor {
            kind,
            autodiff: DispatchAutodiffContext::Disabled,
        })
    });
    (parameter, [m, v])
}

/// A backend that lets an operation write where its operand lies.
trait InPlace: Host {
    /// The numbers of an `f32` tensor in order, if they lie so and nobody else has them.
    fn numbers_mut(tensor: &mut FloatTensor<Self>) -> Option<&mut [f32]>;
}

#[cfg(feature = "flex")]
impl InPlace for Flex {
    fn numbers_mut(tensor: &mut FlexTensor) -> Option<&mut [f32]> {
        let (start, end) = tensor.layout().contiguous_offsets()?;
        Some(&mut tensor.try_storage_mut()?[start..end])
    }
}

#[cfg(feature = "ndarray")]
impl InPlace for NdArray {
    fn numbers_mut(tensor: &mut NdArrayTensor) -> Option<&mut [f32]> {
        match tensor {
            // Borrowed memory is never unique.
            NdArrayTensor::F32(numbers) if numbers.is_unique() => {
                numbers.ensure_owned().as_slice_mut()
            }
            _ => None,
        }
    }
}

/// Where the new values of a tensor go.
#[expect(
    clippy::large_enum_variant,
    reason = "three of them live, for one call"
)]
enum Target<B: Host> {
    InPlace(FloatTensor<B>),
    /// Somebody else has the old values, or they do not lie in order.
    New {
        old: HostTensor,
        new: Buffer,
    },
}

impl<B: InPlace> Target<B> {
    fn of(tensor: FloatTensor<B>) -> Self {
        let mut tensor = as_f32::<B>(tensor);
        if B::numbers_mut(&mut tensor).is_some() {
            return Self::InPlace(tensor);
        }
        let old = B::to_host(tensor).contiguous();
        let new = buffer(old.len());
        Self::New { old, new }
    }

    /// The old values, if they are not there already, and the place of the new ones.
    fn slices(&mut self) -> (Option<&[f32]>, &mut [f32]) {
        match self {
            Self::InPlace(tensor) => (None, B::numbers_mut(tensor).expect("as before")),
            Self::New { old, new } => (Some(old.slice()), new),
        }
    }

    fn into_tensor(self, dtype: DType) -> FloatTensor<B> {
        let tensor = match self {
            Self::InPlace(tensor) => tensor,
            Self::New { old, new } => B::from_host(new, old.shape()),
        };
        match dtype {
            DType::F32 => tensor,
            dtype => B::float_cast(tensor, FloatDType::from(dtype)),
        }
    }
}

fn as_f32<B: Host>(tensor: FloatTensor<B>) -> FloatTensor<B> {
    match tensor.dtype() {
        DType::F32 => tensor,
        _ => B::float_cast(tensor, FloatDType::F32),
    }
}

/// The factors of one step.
#[derive(Clone, Copy)]
struct Update {
    /// Of the old and the new part of each moment.
    m: [f32; 2],
    v: [f32; 2],
    keep: f32,
    rate: f32,
    root: f32,
    epsilon: f32,
}

impl Update {
    /// Computed in `f64`: `1 - beta` has few digits of an `f32` left.
    fn of(step: &AdamWStep) -> Self {
        let [correction_1, correction_2] = step.corrections();
        Self {
            m: [step.beta_1, 1.0 - step.beta_1].map(|x| x as f32),
            v: [step.beta_2, 1.0 - step.beta_2].map(|x| x as f32),
            keep: (1.0 - step.decay()) as f32,
            rate: (step.learning_rate / correction_1) as f32,
            root: correction_2.sqrt().recip() as f32,
            epsilon: step.epsilon as f32,
        }
    }

    fn route<B: InPlace>(
        self,
        targets: [DispatchTensorKind; 3],
        gradient: DispatchTensorKind,
    ) -> [DispatchTensorKind; 3] {
        let targets = targets.map(|target| B::unpack(target).float());
        let gradient = B::to_host(as_f32::<B>(B::unpack(gradient).float()));
        let tensors = self.apply::<B>(targets, &gradient.contiguous());
        tensors.map(|tensor| B::pack(BackendTensor::Float(tensor)))
    }

    fn apply<B: InPlace>(
        self,
        targets: [FloatTensor<B>; 3],
        gradient: &HostTensor,
    ) -> [FloatTensor<B>; 3] {
        let dtypes = targets.each_ref().map(|target| target.dtype());
        let mut targets = targets.map(Target::<B>::of);
        let [(old_p, p), (old_m, m), (old_v, v)] = targets.each_mut().map(Target::slices);
        let g = gradient.slice();
        assert!(
            [p.len(), m.len(), v.len()] == [g.len(); 3],
            "a parameter, its gradient and its moments have one shape"
        );
        fill_three(p, m, v, |first, p, m, v| {
            let g = &g[first..][..p.len()];
            let parts = p.chunks_mut(TOGETHER).zip(m.chunks_mut(TOGETHER));
            let parts = parts.zip(v.chunks_mut(TOGETHER)).zip(g.chunks(TOGETHER));
            for (part, (((p, m), v), g)) in parts.enumerate() {
                let first = first + part * TOGETHER;
                bring(old_p, first, p);
                bring(old_m, first, m);
                bring(old_v, first, v);
                vectorized(
                    #[inline(always)]
                    || self.compute(p, m, v, g),
                );
            }
        });
        let mut dtypes = dtypes.into_iter();
        targets.map(|target| target.into_tensor(dtypes.next().expect("one for each")))
    }

    #[inline(always)]
    fn compute(self, p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
        for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
            *m = self.m[0] * *m + self.m[1] * g;
            *v = self.v[0] * *v + self.v[1] * (g * g);
            *p = self.keep * *p - self.rate * *m / (v.sqrt() * self.root + self.epsilon);
        }
    }
}

/// Copies the old values, from this one on, where they are overwritten.
fn bring(old: Option<&[f32]>, first: usize, to: &mut [f32]) {
    if let Some(old) = old {
        to.copy_from_slice(&old[first..][..to.len()]);
    }
}

#[cfg(test)]
mod tests {
    use burn::optim::{AdamWConfig, AdamWState, Optimizer};
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;
    use crate::portable;

    const SIZES: [usize; 3] = [1, 33, 20_001];

    fn devices() -> Vec<Device> {
        vec![
            #[cfg(feature = "flex")]
            Device::flex(),
            #[cfg(feature = "ndarray")]
            Device::ndarray(),
        ]
    }

    fn step(weight_decay: f64, time: usize) -> AdamWStep {
        AdamWStep {
            learning_rate: 1e-2,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            weight_decay,
            time,
        }
    }

    fn random(size: usize, device: &Device) -> Tensor<1> {
        Tensor::random([size], Distribution::Normal(0.0, 1.0), device)
    }

    /// A parameter with moments that it could have.
    fn start(size: usize, device: &Device) -> [Tensor<1>; 3] {
        [
            random(size, device),
            random(size, device),
            random(size, device).square(),
        ]
    }

    fn close(a: &Tensor<1>, b: &Tensor<1>, tolerance: f32) {
        let tolerance = Tolerance::absolute(tolerance).set_relative(tolerance);
        let (a, b) = (a.to_data(), b.to_data());
        a.assert_approx_eq::<f32>(&b, tolerance);
    }

    /// Where the numbers of a tensor lie.
    fn address(tensor: &Tensor<1>) -> *const f32 {
        match tensor.clone().into_dispatch().kind {
            #[cfg(feature = "flex")]
            DispatchTensorKind::Flex(tensor) => tensor.float().storage().as_ptr(),
            #[cfg(feature = "ndarray")]
            DispatchTensorKind::NdArray(tensor) => match tensor.float() {
                NdArrayTensor::F32(numbers) => numbers.view().as_ptr(),
                other => panic!("not f32: {other:?}"),
            },
            other => panic!("not in host memory: {other:?}"),
        }
    }

    #[test]
    fn five_steps_are_those_of_the_portable_form_and_of_burn() {
        for device in devices() {
            for (size, decay) in SIZES
                .into_iter()
                .flat_map(|size| [(size, 0.0), (size, 0.1)])
            {
                let zeros = || Tensor::<1>::zeros([size], &device);
                let mut ours = (random(size, &device), [zeros(), zeros()]);
                let mut composed = ours.clone();
                let burn = AdamWConfig::new()
                    .with_epsilon(1e-8)
                    .with_weight_decay(decay as f32)
                    .build();
                let mut theirs: (_, Option<AdamWState<1>>) = (ours.0.clone(), None);
                for time in 1..=5 {
                    let step = step(decay, time);
                    let gradient = random(size, &device);
                    ours = crate::adamw(ours.0, gradient.clone(), ours.1, &step);
                    composed = portable::adamw(composed.0, gradient.clone(), composed.1, &step);
                    theirs = burn.step(step.learning_rate, theirs.0, gradient, theirs.1);
                }
                close(&ours.0, &composed.0, 1e-6);
                close(&ours.1[0], &composed.1[0], 1e-6);
                close(&ours.1[1], &composed.1[1], 1e-6);
                // Burn takes `1 - beta_2` in f32, which leaves it four digits.
                let state = theirs.1.expect("after a step").momentum;
                close(&ours.0, &theirs.0, 1e-5);
                close(&ours.1[0], &state.moment_1, 1e-5);
                close(&ours.1[1], &state.moment_2, 1e-4);
            }
        }
    }

    #[test]
    fn a_tensor_that_nobody_else_has_is_written_in_place() {
        for device in devices() {
            for size in SIZES {
                let [p, m, v] = start(size, &device);
                let before = [&p, &m, &v].map(address);
                let gradient = random(size, &device);
                let (p, [m, v]) = crate::adamw(p, gradient, [m, v], &step(0.1, 3));
                assert_eq!([&p, &m, &v].map(address), before, "{size} on {device:?}");
            }
        }
    }

    #[test]
    fn whoever_keeps_a_clone_keeps_the_old_values() {
        for device in devices() {
            for size in SIZES {
                let operands = start(size, &device);
                let gradient = random(size, &device);
                let [old_p, old_m, old_v] = operands.each_ref().map(|x| x.to_data());
                let old_g = gradient.to_data();
                let step = step(0.1, 3);
                let run = |[p, m, v]: [Tensor<1>; 3]| {
                    let (p, [m, v]) = crate::adamw(p, gradient.clone(), [m, v], &step);
                    [p, m, v]
                };
                let shared = run(operands.clone());
                let [p, m, v] = &operands;
                for (kept, old) in [(p, old_p), (m, old_m), (v, old_v), (&gradient, old_g)] {
                    kept.to_data().assert_eq(&old, true);
                }
                // The same numbers as in place, bit for bit: a resumed run depends on it.
                for (shared, own) in shared.into_iter().zip(run(operands)) {
                    shared.into_data().assert_eq(&own.into_data(), true);
                }
            }
        }
    }

    #[test]
    fn views_are_read_in_their_order_and_their_neighbours_left_alone() {
        let (rows, columns) = (7, 33);
        for device in devices() {
            let wide = |x: Tensor<1>| x.reshape([rows, columns + 2]);
            let tensor = || wide(random(rows * (columns + 2), &device));
            let [p, g, m, v] = [tensor(), tensor(), tensor(), tensor().square()];
            let before = m.to_data();
            let views = [&p, &g, &m, &v].map(|x| x.clone().narrow(1, 1, columns).transpose());
            let [p, g, m_view, v] = views.clone();
            let (p, moments) = crate::adamw(p, g, [m_view, v], &step(0.1, 2));
            m.to_data().assert_eq(&before, true);
            let [expected, g, m, v] = views;
            let (expected, [m, v]) = portable::adamw(expected, g, [m, v], &step(0.1, 2));
            close(&p.flatten(0, 1), &expected.flatten(0, 1), 1e-6);
            for (moment, expected) in moments.into_iter().zip([m, v]) {
                close(&moment.flatten(0, 1), &expected.flatten(0, 1), 1e-6);
            }
        }
    }

    #[test]
    #[should_panic(expected = "one shape")]
    fn a_gradient_of_another_size_is_refused() {
        let device = &devices()[0];
        let [p, m, v] = start(5, device);
        crate::adamw(p, random(4, device), [m, v], &step(0.1, 1));
    }

    #[cfg(feature = "flex")]
    #[test]
    fn half_precision_is_computed_in_f32_and_returned_as_it_came() {
        let device = Device::flex();
        for dtype in [DType::BF16, DType::F16] {
            let operands = start(33, &device).map(|x| x.cast(dtype));
            let gradient = random(33, &device).cast(dtype);
            let [p, m, v] = operands.clone();
            let (p, [m, v]) = crate::adamw(p, gradient.clone(), [m, v], &step(0.1, 3));
            let expected = operands.map(|x| x.cast(DType::F32));
            let [expected, wide_m, wide_v] = expected;
            let (expected, wide) = portable::adamw(
                expected,
                gradient.cast(DType::F32),
                [wide_m, wide_v],
                &step(0.1, 3),
            );
            let [wide_m, wide_v] = wide;
            for (half, wide) in [(p, expected), (m, wide_m), (v, wide_v)] {
                assert_eq!(half.dtype(), dtype);
                close(&half.cast(DType::F32), &wide, 1e-2);
            }
        }
    }
}
