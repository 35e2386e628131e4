use burn::tensor::Tensor;
use burn_cubecl::ops::numeric::zeros_client;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::apply::primitive;
use super::memory::{
    UNITS, buffer, contiguous, cubes_for, elem, empty, reshaped, vector_size, width,
};
use super::{OnDevice, Operation, Saved, apply};

pub(crate) fn select_rows(x: Tensor<2>, rows: Tensor<1, burn::tensor::Int>) -> Tensor<2> {
    let [n, _] = x.dims();
    let dtype = x.dtype();
    let op = SelectRows {
        rows: contiguous(primitive(rows)),
        n,
    };
    apply(op, [x.into_dispatch()], dtype)
}

/// Burn's own gradient of a selection goes through all indices one after the other in each column, since they may repeat.
#[derive(Clone, Debug)]
struct SelectRows {
    rows: CubeTensor,
    /// How many rows there are to choose from.
    n: usize,
}

impl SelectRows {
    /// From the named rows to `few`, or from `few` to the named rows.
    fn copy(&self, many: &CubeTensor, few: &CubeTensor, gather: bool) {
        let (from, to) = if gather { (many, few) } else { (few, many) };
        let size = vector_size(&[from, to], width(few));
        let count = few.meta.num_elements() / size;
        // SAFETY: every unit looks first whether its place exists, and the rows are rows of `many`.
        unsafe {
            copy_rows::launch_unchecked(
                &few.client,
                cubes_for(&few.client, count),
                CubeDim::new_1d(UNITS),
                size,
                buffer(from),
                buffer(&self.rows),
                buffer(to),
                count,
                width(few) / size,
                gather,
                [elem(few), elem(&self.rows)],
            );
        }
    }
}

impl Operation<OnDevice> for SelectRows {
    fn forward(&self, inputs: &[CubeTensor], _: &[bool]) -> (CubeTensor, Saved) {
        let x = contiguous(inputs[0].clone());
        let rows = self.rows.meta.num_elements();
        let y = empty(&x, &[rows, width(&x)], x.dtype);
        self.copy(&x, &y, true);
        (y, Saved::default())
    }

    fn backward(&self, _: Saved, grad: CubeTensor, _: &[bool]) -> Vec<Option<CubeTensor>> {
        let grad = contiguous(grad);
        // In one dimension, where no row has a gap behind it.
        let d_x = zeros_client(
            grad.client.clone(),
            grad.device.clone(),
            [self.n * width(&grad)].into(),
            grad.dtype,
        );
        let d_x = reshaped(d_x, &[self.n, width(&grad)]);
        self.copy(&d_x, &grad, false);
        vec![Some(d_x)]
    }
}

#[cube(launch_unchecked)]
fn copy_rows<X: Float, I: Int, N: Size>(
    from: &[Vector<X, N>],
    rows: &[I],
    to: &mut [Vector<X, N>],
    count: usize,
    width: usize,
    #[comptime] gather: bool,
    #[define(X, I)] _types: [ElemType; 2],
) {
    if ABSOLUTE_POS < count {
        let row = usize::cast_from(rows[ABSOLUTE_POS / width]);
        let named = row * width + ABSOLUTE_POS % width;
        if comptime!(gather) {
            to[ABSOLUTE_POS] = from[named];
        } else {
            to[named] = from[ABSOLUTE_POS];
        }
    }
}
