//! Products with a side as short as an adapter's rank, where reading the wide operand once is all the time.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::columns::column_sums;
use super::memory::{UNITS, buffer, elem, empty, reshaped, rows, vector_size, width};

/// The highest rank of [`outer`], whose sums are all held in registers.
pub(super) const MOST_RANKS: usize = 32;

/// Rows that a unit adds to: it reads B once for all of them.
const ROWS: usize = 8;

/// Rows that a unit adds up in [`outer`].
const DEPTH: usize = 64;

/// `y + bias + low B`, in the memory of y.
///
/// # Shapes
/// - y, output: `[m, n]`
/// - change: low `[m, rank]`, B `[rank, n]`; without gaps
/// - bias: `[n]`
pub(super) fn add_low_rank(
    y: CubeTensor,
    change: Option<(CubeTensor, CubeTensor)>,
    bias: Option<CubeTensor>,
) -> CubeTensor {
    if change.is_none() && bias.is_none() {
        return y;
    }
    let (m, n) = (rows(&y), width(&y));
    let biased = bias.is_some();
    let rank = change.as_ref().map_or(0, |(low, _)| width(low));
    let (low, b) = change.unwrap_or_else(|| (y.clone(), y.clone()));
    let bias = bias.unwrap_or_else(|| y.clone());
    let size = vector_size(&[&y, &b, &bias], n);
    let vectors = n / size;
    // SAFETY: every unit looks first whether its columns and its rows exist.
    unsafe {
        add_to_rows::launch_unchecked(
            &y.client,
            CubeCount::Static(
                vectors.div_ceil(UNITS as usize) as u32,
                m.div_ceil(ROWS) as u32,
                1,
            ),
            CubeDim::new_1d(UNITS),
            size,
            buffer(&y),
            buffer(&low),
            buffer(&b),
            buffer(&bias),
            m,
            vectors,
            rank,
            biased,
            [elem(&y), elem(&low), elem(&b), elem(&bias)],
        );
    }
    y
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn add_to_rows<Y: Float, L: Float, B: Float, C: Float, N: Size>(
    y: &mut [Vector<Y, N>],
    low: &[L],
    b: &[Vector<B, N>],
    bias: &[Vector<C, N>],
    m: usize,
    vectors: usize,
    #[comptime] rank: usize,
    #[comptime] biased: bool,
    #[define(Y, L, B, C)] _types: [ElemType; 4],
) {
    let column = ABSOLUTE_POS_X as usize;
    let first = CUBE_POS_Y as usize * ROWS;
    if column < vectors {
        let mut sums = Array::<Vector<f32, N>>::new(ROWS);
        #[unroll]
        for i in 0..ROWS {
            sums[i] = Vector::new(0.0f32);
        }
        for j in 0..rank {
            let b = Vector::<f32, N>::cast_from(b[j * vectors + column]);
            #[unroll]
            for i in 0..ROWS {
                let row = min(first + i, m - 1);
                let low = f32::cast_from(low[row * rank + j]);
                sums[i] += b * Vector::new(low);
            }
        }
        if comptime!(biased) {
            let bias = Vector::<f32, N>::cast_from(bias[column]);
            #[unroll]
            for i in 0..ROWS {
                sums[i] += bias;
            }
        }
        #[unroll]
        for i in 0..ROWS {
            if first + i < m {
                let at = (first + i) * vectors + column;
                y[at] = Vector::cast_from(Vector::<f32, N>::cast_from(y[at]) + sums[i]);
            }
        }
    }
}

/// `x^T d`, or its transpose, in `f32`: each unit adds up some rows of some columns, a second pass the units' sums.
///
/// # Shapes
/// - x: `[m, c]`, d: `[m, rank]`, without gaps
/// - output: `[c, rank]`, or `[rank, c]`
pub(super) fn outer(x: &CubeTensor, d: &CubeTensor, transpose: bool) -> CubeTensor {
    let (m, c, rank) = (rows(x), width(x), width(d));
    let parts = m.div_ceil(DEPTH);
    let sums = empty(x, &[parts, c * rank], DType::F32);
    // Two columns of a unit: more would not leave its sums in registers.
    let size = vector_size(&[x], c).min(2);
    let vectors = c / size;
    // SAFETY: every unit looks first whether its columns and its rows exist.
    unsafe {
        outer_of_rows::launch_unchecked(
            &x.client,
            CubeCount::Static(vectors.div_ceil(UNITS as usize) as u32, parts as u32, 1),
            CubeDim::new_1d(UNITS),
            size,
            buffer(x),
            buffer(d),
            buffer(&sums),
            m,
            vectors,
            rank,
            transpose,
            [elem(x), elem(d)],
        );
    }
    let shape = if transpose { [rank, c] } else { [c, rank] };
    match parts {
        1 => reshaped(sums, &shape),
        _ => reshaped(column_sums(&sums, None), &shape),
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn outer_of_rows<X: Float, D: Float, N: Size>(
    x: &[Vector<X, N>],
    d: &[D],
    sums: &mut [f32],
    m: usize,
    vectors: usize,
    #[comptime] rank: usize,
    #[comptime] transpose: bool,
    #[define(X, D)] _types: [ElemType; 2],
) {
    let column = ABSOLUTE_POS_X as usize;
    let part = CUBE_POS_Y as usize;
    if column < vectors {
        let first = part * DEPTH;
        let last = min(first + DEPTH, m);
        let mut own = Array::<Vector<f32, N>>::new(rank);
        #[unroll]
        for j in 0..rank {
            own[j] = Vector::new(0.0f32);
        }
        for row in first..last {
            let x = Vector::<f32, N>::cast_from(x[row * vectors + column]);
            #[unroll]
            for j in 0..rank {
                own[j] += x * Vector::new(f32::cast_from(d[row * rank + j]));
            }
        }
        let lanes = Vector::<f32, N>::new(0.0f32).vector_size();
        let columns = vectors * lanes;
        let start = part * columns * rank;
        #[unroll]
        for j in 0..rank {
            #[unroll]
            for lane in 0..lanes {
                let at = column * lanes + lane;
                let sum = own[j].extract(lane);
                if comptime!(transpose) {
                    sums[start + j * columns + at] = sum;
                } else {
                    sums[start + at * rank + j] = sum;
                }
            }
        }
    }
}
