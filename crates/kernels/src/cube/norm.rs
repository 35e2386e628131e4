//! Root mean square and layer normalization: a cube for each row.

use burn::tensor::{DType, Tensor};
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::columns::column_sums;
use super::memory::{buffer, contiguous, cubes, elem, empty, rows, vector_size, width};
use super::reduce::{Team, cube_sum};
use super::{OnDevice, Operation, Saved, apply};

pub(crate) fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f64) -> Tensor<D> {
    let dtype = x.dtype();
    let op = Norm {
        form: Form { centered: false },
        eps: eps as f32,
    };
    apply(op, [x.into_dispatch(), weight.into_dispatch()], dtype)
}

pub(crate) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    let dtype = x.dtype();
    let op = Norm {
        form: Form { centered: true },
        eps: eps as f32,
    };
    let inputs = [
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    ];
    apply(op, inputs, dtype)
}

/// What the two differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Form {
    /// The mean is taken off, and a bias added.
    centered: bool,
}

#[derive(Clone, Debug)]
struct Norm {
    form: Form,
    eps: f32,
}

impl Operation<OnDevice> for Norm {
    fn forward(&self, inputs: &[CubeTensor], tracked: &[bool]) -> (CubeTensor, Saved) {
        let x = contiguous(inputs[0].clone());
        let weight = contiguous(inputs[1].clone());
        let bias = inputs.get(2).map(|bias| contiguous(bias.clone()));
        let bias = bias.as_ref().unwrap_or(&weight);
        let y = empty(&x, x.meta.shape(), x.dtype);
        let size = vector_size(&[&x, &weight, bias], width(&x));
        let vectors = width(&x) / size;
        let team = Team::new(&x.client, vectors);
        // SAFETY: a cube stays in its row, and there is none beyond the last one.
        unsafe {
            forward::launch_unchecked(
                &x.client,
                cubes(&x.client, rows(&x)),
                team.dim(),
                size,
                buffer(&x),
                buffer(&weight),
                buffer(bias),
                buffer(&y),
                rows(&x),
                vectors,
                self.eps,
                self.form,
                team,
                [elem(&x), elem(&weight), elem(bias)],
            );
        }
        let mut saved = Saved::default();
        if tracked.contains(&true) {
            // The statistics are one read of x away: cheaper to compute again than to keep.
            saved.inputs = vec![Some(x), Some(weight)];
        }
        (y, saved)
    }

    /// With `z = (x - mean) r`, `r` the inverse deviation, and `h = g w`: `dx = r (h - mean(h) - z mean(h z))`,
    /// `dw = sum of g z`, `db = sum of g`. Without centering, the mean of x and `mean(h)` are not taken off.
    fn backward(
        &self,
        saved: Saved,
        grad: CubeTensor,
        tracked: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let (x, weight) = (saved.input(0), saved.input(1));
        let grad = contiguous(grad);
        let dx = empty(x, x.meta.shape(), grad.dtype);
        let (rows, d) = (rows(x), width(x));
        let scaled = tracked[1];
        // The rows' means and inverse deviations, for the gradient of the weight.
        let statistics = scaled.then(|| empty(x, &[rows, 2], DType::F32));
        let size = vector_size(&[x, weight, &grad], d);
        let vectors = d / size;
        let team = Team::new(&x.client, vectors);
        if tracked[0] || scaled {
            // SAFETY: a cube stays in its row, and there is none beyond the last one.
            unsafe {
                backward::launch_unchecked(
                    &x.client,
                    cubes(&x.client, rows),
                    team.dim(),
                    size,
                    buffer(x),
                    buffer(weight),
                    buffer(&grad),
                    buffer(&dx),
                    buffer(statistics.as_ref().unwrap_or(&dx)),
                    rows,
                    vectors,
                    self.eps,
                    self.form,
                    scaled,
                    team,
                    [elem(x), elem(weight), elem(&grad)],
                    elem(statistics.as_ref().unwrap_or(&dx)),
                );
            }
        }
        let mut grads = vec![
            tracked[0].then_some(dx),
            statistics.map(|statistics| column_sums(&grad, Some((x, &statistics)))),
        ];
        if self.form.centered {
            grads.push(tracked[2].then(|| column_sums(&grad, None)));
        }
        grads
    }
}

/// The mean of a row, if it is taken off, and the inverse of the root of its mean square around that.
#[cube]
fn statistics<X: Float, N: Size>(
    x: &[Vector<X, N>],
    from: usize,
    vectors: usize,
    eps: f32,
    #[comptime] form: Form,
    #[comptime] team: Team,
) -> (f32, f32) {
    let unit = UNIT_POS as usize;
    let units = comptime!(team.units as usize);
    let lanes = Vector::<f32, N>::new(0.0f32).vector_size();
    let count = f32::cast_from(vectors * lanes);
    let mut mean = 0.0f32;
    if comptime!(form.centered) {
        let mut sums = Vector::<f32, N>::new(0.0f32);
        for i in range_stepped(unit, vectors, units) {
            sums += Vector::<f32, N>::cast_from(x[from + i]);
        }
        mean = cube_sum(Vector::vector_sum(sums), team) / count;
    }
    let mut squares = Vector::<f32, N>::new(0.0f32);
    for i in range_stepped(unit, vectors, units) {
        let z = Vector::<f32, N>::cast_from(x[from + i]) - Vector::new(mean);
        squares += z * z;
    }
    let square = cube_sum(Vector::vector_sum(squares), team) / count;
    (mean, (square + eps).inverse_sqrt())
}

#[cube(launch_unchecked)]
fn forward<X: Float, W: Float, B: Float, N: Size>(
    x: &[Vector<X, N>],
    weight: &[Vector<W, N>],
    bias: &[Vector<B, N>],
    y: &mut [Vector<X, N>],
    rows: usize,
    vectors: usize,
    eps: f32,
    #[comptime] form: Form,
    #[comptime] team: Team,
    #[define(X, W, B)] _types: [ElemType; 3],
) {
    // Cubes beyond the last row do it once more: none may leave before all have added up.
    let row = min(CUBE_POS, rows - 1);
    let from = row * vectors;
    let (mean, r) = statistics::<X, N>(x, from, vectors, eps, form, team);
    for i in range_stepped(UNIT_POS as usize, vectors, comptime!(team.units as usize)) {
        let z = (Vector::<f32, N>::cast_from(x[from + i]) - Vector::new(mean)) * Vector::new(r);
        let mut result = z * Vector::<f32, N>::cast_from(weight[i]);
        if comptime!(form.centered) {
            result += Vector::<f32, N>::cast_from(bias[i]);
        }
        y[from + i] = Vector::cast_from(result);
    }
}

#[cube(launch_unchecked)]
fn backward<X: Float, W: Float, G: Float, S: Float, N: Size>(
    x: &[Vector<X, N>],
    weight: &[Vector<W, N>],
    grad: &[Vector<G, N>],
    dx: &mut [Vector<G, N>],
    kept: &mut [S],
    rows: usize,
    vectors: usize,
    eps: f32,
    #[comptime] form: Form,
    #[comptime] keep: bool,
    #[comptime] team: Team,
    #[define(X, W, G)] _types: [ElemType; 3],
    #[define(S)] _statistics: ElemType,
) {
    let row = min(CUBE_POS, rows - 1);
    let from = row * vectors;
    let unit = UNIT_POS as usize;
    let units = comptime!(team.units as usize);
    let (mean, r) = statistics::<X, N>(x, from, vectors, eps, form, team);
    if comptime!(keep) {
        if unit == 0 {
            kept[2 * row] = S::cast_from(mean);
            kept[2 * row + 1] = S::cast_from(r);
        }
    }
    let mut hs = Vector::<f32, N>::new(0.0f32);
    let mut products = Vector::<f32, N>::new(0.0f32);
    for i in range_stepped(unit, vectors, units) {
        let h =
            Vector::<f32, N>::cast_from(grad[from + i]) * Vector::<f32, N>::cast_from(weight[i]);
        let z = (Vector::<f32, N>::cast_from(x[from + i]) - Vector::new(mean)) * Vector::new(r);
        hs += h;
        products += h * z;
    }
    let lanes = Vector::<f32, N>::new(0.0f32).vector_size();
    let count = f32::cast_from(vectors * lanes);
    let hz = cube_sum(Vector::vector_sum(products), team) / count;
    let mut h_mean = 0.0f32;
    if comptime!(form.centered) {
        h_mean = cube_sum(Vector::vector_sum(hs), team) / count;
    }
    for i in range_stepped(unit, vectors, units) {
        let h =
            Vector::<f32, N>::cast_from(grad[from + i]) * Vector::<f32, N>::cast_from(weight[i]);
        let z = (Vector::<f32, N>::cast_from(x[from + i]) - Vector::new(mean)) * Vector::new(r);
        let result = (h - Vector::new(h_mean) - z * Vector::new(hz)) * Vector::new(r);
        dx[from + i] = Vector::cast_from(result);
    }
}
