//! Root mean square and layer normalization: a cube for each row.

use burn::backend::DispatchTensor;
use burn::tensor::{DType, Tensor};
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::apply::{apply_several, array};
use super::columns::column_sums;
use super::memory::{buffer, contiguous, cubes, elem, empty, rows, vector_size, width};
use super::reduce::{Team, cube_sum, cube_sums};
use super::{OnDevice, Saved};
use crate::operation::Several;

pub(crate) fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f64) -> Tensor<D> {
    alone(Norm::new(false, eps), x, [weight.into_dispatch()])
}

pub(crate) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    let parameters = [weight.into_dispatch(), bias.into_dispatch()];
    alone(Norm::new(true, eps), x, parameters)
}

/// Whether a stream and what is added to it can be operands of one operation.
pub(crate) fn takes_residual<const D: usize>(x: &Tensor<D>, change: Option<&Tensor<D>>) -> bool {
    let alike = |change: &Tensor<D>| change.dtype() == x.dtype() && change.dims() == x.dims();
    super::takes(x) && change.is_none_or(alike)
}

/// See [`crate::residual_rms_norm`].
pub(crate) fn residual_rms_norm<const D: usize>(
    x: Tensor<D>,
    change: Option<Tensor<D>>,
    weight: Tensor<1>,
    eps: f64,
) -> [Tensor<D>; 2] {
    residual(Norm::new(false, eps), x, change, [weight.into_dispatch()])
}

/// See [`crate::residual_layer_norm`].
pub(crate) fn residual_layer_norm<const D: usize>(
    x: Tensor<D>,
    change: Option<Tensor<D>>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> [Tensor<D>; 2] {
    let parameters = [weight.into_dispatch(), bias.into_dispatch()];
    residual(Norm::new(true, eps), x, change, parameters)
}

fn alone<const D: usize, const P: usize>(
    op: Norm,
    x: Tensor<D>,
    parameters: [DispatchTensor; P],
) -> Tensor<D> {
    let dtype = x.dtype();
    let mut results = run(op, x, parameters.into_iter(), dtype);
    results.pop().expect("the result")
}

fn residual<const D: usize, const P: usize>(
    op: Norm,
    x: Tensor<D>,
    change: Option<Tensor<D>>,
    parameters: [DispatchTensor; P],
) -> [Tensor<D>; 2] {
    let dtype = x.dtype();
    let op = Norm {
        residual: true,
        added: change.is_some(),
        ..op
    };
    let more = change.map(Tensor::into_dispatch);
    array(run(op, x, parameters.into_iter().chain(more), dtype))
}

fn run<const D: usize>(
    op: Norm,
    x: Tensor<D>,
    more: impl Iterator<Item = DispatchTensor>,
    dtype: DType,
) -> Vec<Tensor<D>> {
    let inputs: Vec<DispatchTensor> = std::iter::once(x.into_dispatch()).chain(more).collect();
    match inputs.len() {
        2 => apply_several(op, array::<_, 2>(inputs), dtype),
        3 => apply_several(op, array::<_, 3>(inputs), dtype),
        _ => apply_several(op, array::<_, 4>(inputs), dtype),
    }
}

/// What the two differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Form {
    /// The mean is taken off, and a bias added.
    centered: bool,
}

/// A row, which a cube has; every distinct value is one compiled kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Row {
    team: Team,
    vectors: usize,
}

impl Row {
    fn new(x: &CubeTensor, vectors: usize) -> Self {
        let team = Team::new(&x.client, vectors);
        Self { team, vectors }
    }

    fn units(self) -> usize {
        self.team.units as usize
    }

    /// Vectors of a unit.
    fn held(self) -> usize {
        self.vectors.div_ceil(self.units())
    }
}

/// The norm of `x`, or of `x + change`; the operands are `x`, the weight, the bias if there is one, and the change.
#[derive(Clone, Debug)]
struct Norm {
    form: Form,
    eps: f32,
    /// What was normalized is a result, too, the first.
    residual: bool,
    /// There is a change.
    added: bool,
}

impl Norm {
    fn new(centered: bool, eps: f64) -> Self {
        Self {
            form: Form { centered },
            eps: eps as f32,
            residual: false,
            added: false,
        }
    }
}

impl Several<OnDevice> for Norm {
    fn forward(&self, inputs: &[CubeTensor], tracked: &[bool]) -> (Vec<CubeTensor>, Saved) {
        let x = contiguous(inputs[0].clone());
        let weight = contiguous(inputs[1].clone());
        let bias = match self.form.centered {
            true => contiguous(inputs[2].clone()),
            false => weight.clone(),
        };
        let change = match (self.added, inputs.last()) {
            (true, Some(change)) => contiguous(change.clone()),
            _ => x.clone(),
        };
        let y = empty(&x, x.meta.shape(), x.dtype);
        let sum = match self.added {
            true => empty(&x, x.meta.shape(), x.dtype),
            false => x.clone(),
        };
        let size = vector_size(&[&x, &weight, &bias, &change], width(&x));
        let row = Row::new(&x, width(&x) / size);
        // SAFETY: a cube stays in its row, and there is none beyond the last one.
        unsafe {
            forward::launch_unchecked(
                &x.client,
                cubes(&x.client, rows(&x)),
                row.team.dim(),
                size,
                buffer(&x),
                buffer(&change),
                buffer(&weight),
                buffer(&bias),
                buffer(&sum),
                buffer(&y),
                rows(&x),
                self.eps,
                self.form,
                self.added,
                row,
                [elem(&x), elem(&weight), elem(&bias)],
            );
        }
        let mut saved = Saved::default();
        if tracked.contains(&true) {
            // The statistics are one read of it away: cheaper to compute again than to keep.
            saved.inputs = vec![Some(sum.clone()), Some(weight)];
        }
        match self.residual {
            true => (vec![sum, y], saved),
            false => (vec![y], saved),
        }
    }

    /// With `z = (x - mean) r`, `r` the inverse deviation, and `h = g w`: `dx = r (h - mean(h) - z mean(h z))`,
    /// `dw = sum of g z`, `db = sum of g`. Without centering, the mean of x and `mean(h)` are not taken off. To `dx` comes the
    /// gradient of the sum, and a change has the same.
    fn backward(
        &self,
        saved: Saved,
        mut grads: Vec<Option<CubeTensor>>,
        tracked: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let grad = grads.pop().flatten().map(contiguous);
        let of_sum = grads.pop().flatten().map(contiguous);
        let wants_x = tracked[0] || (self.added && tracked.last() == Some(&true));
        let mut all: Vec<Option<CubeTensor>> = tracked.iter().map(|_| None).collect();
        let dx = match grad {
            None => of_sum,
            Some(grad) => {
                let (x, weight) = (saved.input(0), saved.input(1));
                let dx = empty(x, x.meta.shape(), grad.dtype);
                let (rows, d) = (rows(x), width(x));
                let scaled = tracked[1];
                // The rows' means and inverse deviations, for the gradient of the weight.
                let statistics = scaled.then(|| empty(x, &[rows, 2], DType::F32));
                let more = of_sum.as_ref().unwrap_or(&grad);
                let size = vector_size(&[x, weight, &grad, more], d);
                let row = Row::new(x, d / size);
                if wants_x || scaled {
                    // SAFETY: a cube stays in its row, and there is none beyond the last one.
                    unsafe {
                        backward::launch_unchecked(
                            &x.client,
                            cubes(&x.client, rows),
                            row.team.dim(),
                            size,
                            buffer(x),
                            buffer(weight),
                            buffer(&grad),
                            buffer(more),
                            buffer(&dx),
                            buffer(statistics.as_ref().unwrap_or(&dx)),
                            rows,
                            self.eps,
                            self.form,
                            of_sum.is_some(),
                            scaled,
                            row,
                            [elem(x), elem(weight), elem(&grad), elem(more)],
                            elem(statistics.as_ref().unwrap_or(&dx)),
                        );
                    }
                }
                all[1] = statistics.map(|statistics| column_sums(&grad, Some((x, &statistics))));
                if self.form.centered && tracked[2] {
                    all[2] = Some(column_sums(&grad, None));
                }
                Some(dx)
            }
        };
        if self.added && tracked.last() == Some(&true) {
            let last = all.len() - 1;
            all[last] = dx.clone();
        }
        if tracked[0] {
            all[0] = dx;
        }
        all
    }
}

/// Whether a unit's j-th vector is one of the row.
#[cube]
fn has(at: usize, #[comptime] j: usize, #[comptime] row: Row) -> bool {
    if comptime!((j + 1) * row.units() <= row.vectors) {
        true.runtime()
    } else {
        at < comptime!(row.vectors)
    }
}

/// What a unit has of its row, in registers: memory is read once.
#[cube]
fn hold<N: Size>(#[comptime] row: Row) -> Array<Vector<f32, N>> {
    Array::<Vector<f32, N>>::new(comptime!(row.held()))
}

/// What is normalized: x, or its sum with a change, rounded as it is kept. Beyond a row are zeros.
#[cube]
fn summed<X: Float, N: Size>(
    x: &[Vector<X, N>],
    change: &[Vector<X, N>],
    from: usize,
    #[comptime] added: bool,
    #[comptime] row: Row,
) -> Array<Vector<f32, N>> {
    let mut own = hold::<N>(row);
    #[unroll]
    for j in 0..comptime!(row.held()) {
        let at = UNIT_POS as usize + comptime!(j * row.units());
        own[j] = Vector::new(0.0f32);
        if has(at, j, row) {
            let first = Vector::<f32, N>::cast_from(x[from + at]);
            if comptime!(added) {
                let sum = first + Vector::<f32, N>::cast_from(change[from + at]);
                own[j] = Vector::cast_from(Vector::<X, N>::cast_from(sum));
            } else {
                own[j] = first;
            }
        }
    }
    own
}

/// Takes the mean of a row off, beyond it nothing.
#[cube]
fn center<N: Size>(own: &mut Array<Vector<f32, N>>, mean: f32, #[comptime] row: Row) {
    #[unroll]
    for j in 0..comptime!(row.held()) {
        let at = UNIT_POS as usize + comptime!(j * row.units());
        if has(at, j, row) {
            own[j] -= Vector::new(mean);
        }
    }
}

/// The sum of the products of what a unit has.
#[cube]
fn dot<N: Size>(a: &Array<Vector<f32, N>>, b: &Array<Vector<f32, N>>, #[comptime] row: Row) -> f32 {
    let mut sum = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for j in 0..comptime!(row.held()) {
        sum += a[j] * b[j];
    }
    Vector::vector_sum(sum)
}

#[cube]
fn total<N: Size>(a: &Array<Vector<f32, N>>, #[comptime] row: Row) -> f32 {
    let mut sum = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for j in 0..comptime!(row.held()) {
        sum += a[j];
    }
    Vector::vector_sum(sum)
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn forward<X: Float, W: Float, B: Float, N: Size>(
    x: &[Vector<X, N>],
    change: &[Vector<X, N>],
    weight: &[Vector<W, N>],
    bias: &[Vector<B, N>],
    sum: &mut [Vector<X, N>],
    y: &mut [Vector<X, N>],
    rows: usize,
    eps: f32,
    #[comptime] form: Form,
    #[comptime] added: bool,
    #[comptime] row: Row,
    #[define(X, W, B)] _types: [ElemType; 3],
) {
    // Cubes beyond the last row do it once more: none may leave before all have added up.
    let from = min(CUBE_POS, rows - 1) * comptime!(row.vectors);
    let mut own = summed::<X, N>(x, change, from, added, row);
    if comptime!(added) {
        #[unroll]
        for j in 0..comptime!(row.held()) {
            let at = UNIT_POS as usize + comptime!(j * row.units());
            if has(at, j, row) {
                sum[from + at] = Vector::cast_from(own[j]);
            }
        }
    }
    let lanes = Vector::<f32, N>::new(0.0f32).vector_size();
    let count = f32::cast_from(comptime!(row.vectors) * lanes);
    if comptime!(form.centered) {
        let mean = cube_sum(total::<N>(&own, row), comptime!(row.team)) / count;
        center::<N>(&mut own, mean, row);
    }
    let square = cube_sum(dot::<N>(&own, &own, row), comptime!(row.team)) / count;
    let r = (square + eps).inverse_sqrt();
    #[unroll]
    for j in 0..comptime!(row.held()) {
        let at = UNIT_POS as usize + comptime!(j * row.units());
        if has(at, j, row) {
            let mut result = own[j] * Vector::new(r) * Vector::<f32, N>::cast_from(weight[at]);
            if comptime!(form.centered) {
                result += Vector::<f32, N>::cast_from(bias[at]);
            }
            y[from + at] = Vector::cast_from(result);
        }
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn backward<X: Float, W: Float, G: Float, M: Float, S: Float, N: Size>(
    x: &[Vector<X, N>],
    weight: &[Vector<W, N>],
    grad: &[Vector<G, N>],
    more: &[Vector<M, N>],
    dx: &mut [Vector<G, N>],
    kept: &mut [S],
    rows: usize,
    eps: f32,
    #[comptime] form: Form,
    #[comptime] added: bool,
    #[comptime] keep: bool,
    #[comptime] row: Row,
    #[define(X, W, G, M)] _types: [ElemType; 4],
    #[define(S)] _statistics: ElemType,
) {
    let of_cube = min(CUBE_POS, rows - 1);
    let from = of_cube * comptime!(row.vectors);
    let mut own = summed::<X, N>(x, x, from, false, row);
    let mut h = hold::<N>(row);
    #[unroll]
    for j in 0..comptime!(row.held()) {
        let at = UNIT_POS as usize + comptime!(j * row.units());
        h[j] = Vector::new(0.0f32);
        if has(at, j, row) {
            let g = Vector::<f32, N>::cast_from(grad[from + at]);
            h[j] = g * Vector::<f32, N>::cast_from(weight[at]);
        }
    }
    let lanes = Vector::<f32, N>::new(0.0f32).vector_size();
    let count = f32::cast_from(comptime!(row.vectors) * lanes);
    let mut mean = 0.0f32;
    let mut h_mean = 0.0f32;
    if comptime!(form.centered) {
        let (x_sum, h_sum) = cube_sums(
            total::<N>(&own, row),
            total::<N>(&h, row),
            comptime!(row.team),
        );
        mean = x_sum / count;
        h_mean = h_sum / count;
        center::<N>(&mut own, mean, row);
    }
    // The inverse deviation is not known yet, but a factor of all.
    let (squares, products) = cube_sums(
        dot::<N>(&own, &own, row),
        dot::<N>(&own, &h, row),
        comptime!(row.team),
    );
    let r = (squares / count + eps).inverse_sqrt();
    let hz = products * r / count;
    if comptime!(keep) {
        if UNIT_POS == 0 {
            kept[2 * of_cube] = S::cast_from(mean);
            kept[2 * of_cube + 1] = S::cast_from(r);
        }
    }
    #[unroll]
    for j in 0..comptime!(row.held()) {
        let at = UNIT_POS as usize + comptime!(j * row.units());
        if has(at, j, row) {
            let z = own[j] * Vector::new(r);
            let mut result = (h[j] - Vector::new(h_mean) - z * Vector::new(hz)) * Vector::new(r);
            if comptime!(added) {
                result += Vector::<f32, N>::cast_from(more[from + at]);
            }
            dx[from + at] = Vector::cast_from(result);
        }
    }
}
