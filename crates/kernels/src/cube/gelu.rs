use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::memory::{UNITS, buffer, contiguous, cubes_for, elem, empty, vector_size, width};
use super::silu::sigmoid;
use super::{OnDevice, Operation, Saved, apply};

/// Which of its two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Gelu {
    /// By the error function.
    Exact,
    /// By the hyperbolic tangent of a polynomial.
    Tanh,
}

pub(crate) fn gelu<const D: usize>(form: Gelu, x: Tensor<D>) -> Tensor<D> {
    let dtype = x.dtype();
    apply(form, [x.into_dispatch()], dtype)
}

impl Operation<OnDevice> for Gelu {
    fn forward(&self, inputs: &[CubeTensor], tracked: &[bool]) -> (CubeTensor, Saved) {
        let x = contiguous(inputs[0].clone());
        let y = empty(&x, x.meta.shape(), x.dtype);
        let size = vector_size(&[&x], width(&x));
        let count = x.meta.num_elements() / size;
        // SAFETY: every unit looks first whether its place exists.
        unsafe {
            forward::launch_unchecked(
                &x.client,
                cubes_for(&x.client, count),
                CubeDim::new_1d(UNITS),
                size,
                buffer(&x),
                buffer(&y),
                count,
                *self,
                elem(&x),
            );
        }
        let mut saved = Saved::default();
        if tracked[0] {
            saved.inputs = vec![Some(x)];
        }
        (y, saved)
    }

    fn backward(&self, mut saved: Saved, grad: CubeTensor, _: &[bool]) -> Vec<Option<CubeTensor>> {
        let (x, grad) = (saved.take_input(0), contiguous(grad));
        let dx = empty(&x, x.meta.shape(), grad.dtype);
        let size = vector_size(&[&x, &grad], width(&x));
        let count = x.meta.num_elements() / size;
        // SAFETY: every unit looks first whether its place exists.
        unsafe {
            backward::launch_unchecked(
                &x.client,
                cubes_for(&x.client, count),
                CubeDim::new_1d(UNITS),
                size,
                buffer(&x),
                buffer(&grad),
                buffer(&dx),
                count,
                *self,
                [elem(&x), elem(&grad)],
            );
        }
        vec![Some(dx)]
    }
}

/// Twice the square root of `2 / pi`, and its product with 0.044715.
const SLOPE: f32 = 1.595_769;
const CUBIC: f32 = 0.071_354_814;
/// The inverse of the square root of 2, and of that of `2 pi`.
const INVERSE_ROOT_2: f32 = 0.707_106_77;
const INVERSE_ROOT_2_PI: f32 = 0.398_942_3;

/// What x is multiplied by: a share between 0 and 1.
#[cube]
fn share<N: Size>(x: Vector<f32, N>, #[comptime] form: Gelu) -> Vector<f32, N> {
    if comptime!(form == Gelu::Exact) {
        let half = Vector::<f32, N>::new(0.5f32);
        half + half * (x * Vector::new(INVERSE_ROOT_2)).erf()
    } else {
        sigmoid::<N>(x * (Vector::new(SLOPE) + Vector::new(CUBIC) * x * x))
    }
}

#[cube(launch_unchecked)]
fn forward<X: Float, N: Size>(
    x: &[Vector<X, N>],
    y: &mut [Vector<X, N>],
    count: usize,
    #[comptime] form: Gelu,
    #[define(X)] _type: ElemType,
) {
    if ABSOLUTE_POS < count {
        let x = Vector::<f32, N>::cast_from(x[ABSOLUTE_POS]);
        y[ABSOLUTE_POS] = Vector::cast_from(x * share::<N>(x, form));
    }
}

/// `dx = g (share + x share')`, where `share'` is the normal density, or with `u` the polynomial `u' share (1 - share)`.
#[cube(launch_unchecked)]
fn backward<X: Float, D: Float, N: Size>(
    x: &[Vector<X, N>],
    grad: &[Vector<D, N>],
    dx: &mut [Vector<D, N>],
    count: usize,
    #[comptime] form: Gelu,
    #[define(X, D)] _types: [ElemType; 2],
) {
    if ABSOLUTE_POS < count {
        let x = Vector::<f32, N>::cast_from(x[ABSOLUTE_POS]);
        let g = Vector::<f32, N>::cast_from(grad[ABSOLUTE_POS]);
        let share = share::<N>(x, form);
        let slope = if comptime!(form == Gelu::Exact) {
            (x * x * Vector::new(-0.5f32)).exp() * Vector::new(INVERSE_ROOT_2_PI)
        } else {
            let steep = Vector::<f32, N>::new(SLOPE) + Vector::new(3.0 * CUBIC) * x * x;
            steep * share * (Vector::new(1.0f32) - share)
        };
        dx[ABSOLUTE_POS] = Vector::cast_from(g * (share + x * slope));
    }
}
