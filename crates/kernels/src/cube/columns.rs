//! Sums over the rows of a matrix, in two passes: not every device adds to memory in one go.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::memory::{UNITS, buffer, elem, empty, rows, width};

/// Rows that one unit adds up, in each pass.
const ROWS: usize = 128;

/// Rows that it reads at a time.
const AHEAD: usize = 8;

/// `sum over rows of g`, or given x and the rows' means and inverse deviations `[rows, 2]` that of `g (x - mean) r`.
///
/// # Shapes
/// - grad, x: `[..., d]` without gaps
/// - output: `[d]`, f32
pub(super) fn column_sums(
    grad: &CubeTensor,
    normalized: Option<(&CubeTensor, &CubeTensor)>,
) -> CubeTensor {
    let d = width(grad);
    let mut sums = pass(grad, normalized);
    while rows(&sums) > 1 {
        sums = pass(&sums, None);
    }
    super::memory::reshaped(sums, &[d])
}

fn pass(grad: &CubeTensor, normalized: Option<(&CubeTensor, &CubeTensor)>) -> CubeTensor {
    let (rows, d) = (rows(grad), width(grad));
    let parts = rows.div_ceil(ROWS);
    let sums = empty(grad, &[parts, d], DType::F32);
    let (x, statistics) = normalized.unwrap_or((grad, &sums));
    // SAFETY: every unit looks first whether its column and its rows exist.
    unsafe {
        add_rows::launch_unchecked(
            &grad.client,
            CubeCount::Static(d.div_ceil(UNITS as usize) as u32, parts as u32, 1),
            CubeDim::new_1d(UNITS),
            buffer(grad),
            buffer(x),
            buffer(statistics),
            buffer(&sums),
            rows,
            d,
            normalized.is_some(),
            [elem(grad), elem(x)],
        );
    }
    sums
}

#[cube(launch_unchecked)]
fn add_rows<G: Float, X: Float>(
    grad: &[G],
    x: &[X],
    statistics: &[f32],
    sums: &mut [f32],
    rows: usize,
    d: usize,
    #[comptime] normalized: bool,
    #[define(G, X)] _types: [ElemType; 2],
) {
    let column = ABSOLUTE_POS_X as usize;
    let part = CUBE_POS_Y as usize;
    if column < d {
        let first = part * ROWS;
        let last = min(first + ROWS, rows);
        let mut sum = 0.0f32;
        // Some rows are read before the first is added.
        for row in range_stepped(first, last, AHEAD) {
            let mut numbers = Array::<f32>::new(AHEAD);
            #[unroll]
            for i in 0..AHEAD {
                let row = min(row + i, last - 1);
                let g = f32::cast_from(grad[row * d + column]);
                if comptime!(normalized) {
                    let z = f32::cast_from(x[row * d + column]) - statistics[2 * row];
                    numbers[i] = g * z * statistics[2 * row + 1];
                } else {
                    numbers[i] = g;
                }
            }
            #[unroll]
            for i in 0..AHEAD {
                if row + i < last {
                    sum += numbers[i];
                }
            }
        }
        sums[part * d + column] = sum;
    }
}
