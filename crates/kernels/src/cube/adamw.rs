//! One pass over each parameter and its moments, in the memory where they lie, for several parameters in one launch.

use std::cell::RefCell;

use burn::backend::{BackendTensor, Cube, DispatchAutodiffContext, DispatchTensor};
use burn::tensor::{DType, Tensor};
use burn_cubecl::kernel::cast;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::apply::{primitive, same};
use super::many::{batches, buffers, cubes_for_longest, lengths, stride};
use super::memory::{UNITS, contiguous};
use crate::AdamWStep;
use crate::packed::Packed;

pub(crate) fn adamw<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    [m, v]: [Tensor<D>; 2],
    step: &AdamWStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    assert!(
        [parameter.dims(), m.dims(), v.dims()] == [gradient.dims(); 3],
        "a parameter, its gradient and its moments have one shape"
    );
    let dtypes = [parameter.dtype(), m.dtype(), v.dtype()];
    let gradient = contiguous(cast(primitive(gradient), DType::F32));
    let targets = [parameter, m, v].map(|target| own(primitive(target)));
    let update = Update {
        gradient,
        targets: targets.clone(),
        factors: Factors::of(step),
    };
    // A cast would read the values before they are there.
    if dtypes == [DType::F32; 3] {
        later(update);
    } else {
        launch(vec![update]);
    }
    let mut dtypes = dtypes.into_iter();
    let [p, m, v] = targets.map(|target| {
        let target = cast(target, dtypes.next().expect("one for each"));
        Tensor::from_dispatch(DispatchTensor {
            kind: Cube::pack(BackendTensor::Float(same(target))),
            autodiff: DispatchAutodiffContext::Disabled,
        })
    });
    (p, [m, v])
}

/// Numbers in `f32` that may be overwritten: the tensor's own, or a copy if somebody else has these.
fn own(tensor: CubeTensor) -> CubeTensor {
    let tensor = contiguous(cast(tensor, DType::F32));
    match tensor.can_mut() {
        true => tensor,
        false => tensor.copy(),
    }
}

/// One parameter's step.
struct Update {
    gradient: CubeTensor,
    /// The parameter and its moments.
    targets: [CubeTensor; 3],
    factors: Factors,
}

thread_local! {
    /// The steps that wait for others, inside of [`together`].
    static WAITING: RefCell<Option<Vec<Update>>> = const { RefCell::new(None) };
}

fn later(update: Update) {
    let alone = WAITING.with_borrow_mut(|waiting| match waiting {
        Some(waiting) => {
            waiting.push(update);
            None
        }
        None => Some(update),
    });
    if let Some(update) = alone {
        launch(vec![update]);
    }
}

/// Puts off the steps of parameters until `body` is through.
pub(crate) fn together<R>(body: impl FnOnce() -> R) -> R {
    /// Also where `body` panics: the tensors that it gave away are to have their values.
    struct Launch(Option<Vec<Update>>);
    impl Drop for Launch {
        fn drop(&mut self) {
            let outer = self.0.take();
            let waiting = WAITING.replace(outer);
            launch(waiting.unwrap_or_default());
        }
    }
    let _launch = Launch(WAITING.replace(Some(Vec::new())));
    body()
}

fn launch(mut updates: Vec<Update>) {
    while let Some(first) = updates.first() {
        let (factors, device) = (first.factors, first.gradient.device.clone());
        let (alike, others): (Vec<_>, Vec<_>) = updates
            .into_iter()
            .partition(|update| update.factors == factors && update.gradient.device == device);
        updates = others;
        let client = alike[0].gradient.client.clone();
        for part in alike.chunks(batches(&client, 4)) {
            launch_part(part, factors);
        }
    }
}

fn launch_part(updates: &[Update], factors: Factors) {
    let gradients: Vec<_> = updates.iter().map(|update| &update.gradient).collect();
    let target = |index: usize| -> Vec<&CubeTensor> {
        updates
            .iter()
            .map(|update| &update.targets[index])
            .collect()
    };
    let all = [gradients, target(0), target(1), target(2)];
    let size = all.iter().map(|part| super::many::vector_size(part)).min();
    let size = size.unwrap_or(1);
    let [gradients, p, m, v] = &all;
    let client = &updates[0].gradient.client;
    // SAFETY: every unit looks first whether its place exists.
    unsafe {
        update::launch_unchecked(
            client,
            cubes_for_longest(gradients, size),
            CubeDim::new_1d(UNITS),
            size,
            buffers(gradients),
            buffers(p),
            buffers(m),
            buffers(v),
            lengths(gradients, size),
            factors.m[0],
            factors.m[1],
            factors.v[0],
            factors.v[1],
            factors.keep,
            factors.rate,
            factors.root,
            factors.epsilon,
            updates.len(),
        );
    }
}

/// The factors of one step.
#[derive(Clone, Copy, PartialEq)]
struct Factors {
    /// Of the old and the new part of each moment.
    m: [f32; 2],
    v: [f32; 2],
    keep: f32,
    rate: f32,
    root: f32,
    epsilon: f32,
}

impl Factors {
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
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn update<N: Size>(
    gradients: &Sequence<Box<[Vector<f32, N>]>>,
    parameters: &mut Sequence<Box<[Vector<f32, N>]>>,
    first_moments: &mut Sequence<Box<[Vector<f32, N>]>>,
    second_moments: &mut Sequence<Box<[Vector<f32, N>]>>,
    lengths: &Sequence<usize>,
    old_m: f32,
    new_m: f32,
    old_v: f32,
    new_v: f32,
    keep: f32,
    rate: f32,
    root: f32,
    epsilon: f32,
    #[comptime] tensors: usize,
) {
    let which = CUBE_POS_Y as usize;
    #[unroll]
    for t in 0..tensors {
        if which == t {
            let gradient = gradients.index(t);
            let p = parameters.index_mut(t);
            let m = first_moments.index_mut(t);
            let v = second_moments.index_mut(t);
            for at in range_stepped(ABSOLUTE_POS_X as usize, lengths[t], stride()) {
                let g = gradient[at];
                let next_m = m[at] * Vector::new(old_m) + g * Vector::new(new_m);
                let next_v = v[at] * Vector::new(old_v) + g * g * Vector::new(new_v);
                m[at] = next_m;
                v[at] = next_v;
                let size = next_v.sqrt() * Vector::new(root) + Vector::new(epsilon);
                let change = next_m * Vector::new(rate) / size;
                p[at] = p[at] * Vector::new(keep) - change;
            }
        }
    }
}
