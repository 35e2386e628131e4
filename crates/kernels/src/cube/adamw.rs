//! One pass over the parameter and its moments, in the memory where they lie.

use burn::backend::{BackendTensor, Cube, DispatchAutodiffContext, DispatchTensor};
use burn::tensor::{DType, Tensor};
use burn_cubecl::kernel::cast;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::apply::{primitive, same};
use super::memory::{UNITS, buffer, contiguous, cubes_for, vector_size};
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
    let [p, m, v] = &targets;
    let total = gradient.meta.num_elements();
    let size = vector_size(&[&gradient, p, m, v], total);
    let count = total / size;
    let factors = Factors::of(step);
    // SAFETY: every unit looks first whether its place exists.
    unsafe {
        update::launch_unchecked(
            &gradient.client,
            cubes_for(&gradient.client, count),
            CubeDim::new_1d(UNITS),
            size,
            buffer(&gradient),
            buffer(p),
            buffer(m),
            buffer(v),
            count,
            factors.m[0],
            factors.m[1],
            factors.v[0],
            factors.v[1],
            factors.keep,
            factors.rate,
            factors.root,
            factors.epsilon,
        );
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

/// The factors of one step.
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
    gradient: &[Vector<f32, N>],
    p: &mut [Vector<f32, N>],
    m: &mut [Vector<f32, N>],
    v: &mut [Vector<f32, N>],
    count: usize,
    old_m: f32,
    new_m: f32,
    old_v: f32,
    new_v: f32,
    keep: f32,
    rate: f32,
    root: f32,
    epsilon: f32,
) {
    if ABSOLUTE_POS < count {
        let g = gradient[ABSOLUTE_POS];
        let next_m = m[ABSOLUTE_POS] * Vector::new(old_m) + g * Vector::new(new_m);
        let next_v = v[ABSOLUTE_POS] * Vector::new(old_v) + g * g * Vector::new(new_v);
        m[ABSOLUTE_POS] = next_m;
        v[ABSOLUTE_POS] = next_v;
        let size = next_v.sqrt() * Vector::new(root) + Vector::new(epsilon);
        let change = next_m * Vector::new(rate) / size;
        p[ABSOLUTE_POS] = p[ABSOLUTE_POS] * Vector::new(keep) - change;
    }
}
