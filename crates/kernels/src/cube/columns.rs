//! Sums over the rows of a matrix, in two passes: not every device adds to memory in one go.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::many::{batches, buffers, cubes_for_longest, lengths, stride};
use super::memory::{UNITS, buffer, elem, empty, reshaped, rows, width};

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
    reshaped(sums, &[d])
}

/// A part of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Row and column of its first number.
    pub(crate) from: [usize; 2],
    /// Rows and columns.
    pub(crate) size: [usize; 2],
}

/// Matrices to be added up, and the part of the sum that is wanted.
pub(super) struct Summands {
    /// `[count, rows * columns]`, f32 without gaps
    pub(super) parts: CubeTensor,
    /// Columns of each of the matrices.
    pub(super) columns: usize,
    pub(super) window: Window,
}

impl Summands {
    /// A window of all of a single matrix is its memory.
    fn is_sum(&self) -> bool {
        let Window { size, .. } = self.window;
        rows(&self.parts) == 1 && size[0] * size[1] == width(&self.parts)
    }
}

/// Sums of matrices, each as if it were alone.
///
/// # Shapes
/// - output: the windows' sizes, f32
pub(super) fn part_sums(all: &[Summands]) -> Vec<CubeTensor> {
    let several: Vec<&Summands> = all.iter().filter(|each| !each.is_sum()).collect();
    let of = |each: &&Summands| empty(&each.parts, &each.window.size, DType::F32);
    let sums: Vec<CubeTensor> = several.iter().map(of).collect();
    add_up(&several, &sums.iter().collect::<Vec<_>>());
    let mut sums = sums.into_iter();
    let sum = |each: &Summands| match each.is_sum() {
        true => reshaped(each.parts.clone(), &each.window.size),
        false => sums
            .next()
            .unwrap_or_else(|| unreachable!("one for each of several")),
    };
    all.iter().map(sum).collect()
}

/// Writes the sums of matrices to targets without gaps, of one dtype.
pub(super) fn add_up(all: &[&Summands], targets: &[&CubeTensor]) {
    let step = (all.first()).map_or(1, |first| batches(&first.parts.client, 2));
    for (several, target) in all.chunks(step).zip(targets.chunks(step)) {
        let parts: Vec<&CubeTensor> = several.iter().map(|each| &each.parts).collect();
        let numbers = |of: fn(&Summands) -> usize| {
            let mut numbers = SequenceArg::new();
            several.iter().for_each(|each| numbers.push(of(each)));
            numbers
        };
        // SAFETY: every unit looks first whether its number exists.
        unsafe {
            add_parts::launch_unchecked(
                &target[0].client,
                cubes_for_longest(target, 1),
                CubeDim::new_1d(UNITS),
                buffers(&parts),
                buffers(target),
                lengths(target, 1),
                numbers(|each| rows(&each.parts)),
                numbers(|each| width(&each.parts)),
                numbers(|each| each.columns),
                numbers(|each| each.window.from[0] * each.columns + each.window.from[1]),
                numbers(|each| each.window.size[1]),
                several.len(),
                elem(target[0]),
            );
        }
    }
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

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn add_parts<Y: Float>(
    parts: &Sequence<Box<[f32]>>,
    sums: &mut Sequence<Box<[Y]>>,
    lengths: &Sequence<usize>,
    counts: &Sequence<usize>,
    sizes: &Sequence<usize>,
    pitches: &Sequence<usize>,
    starts: &Sequence<usize>,
    widths: &Sequence<usize>,
    #[comptime] tensors: usize,
    #[define(Y)] _type: ElemType,
) {
    let which = CUBE_POS_Y as usize;
    #[unroll]
    for t in 0..tensors {
        if which == t {
            let (parts, size, count) = (parts.index(t), sizes[t], counts[t]);
            let target = sums.index_mut(t);
            for at in range_stepped(ABSOLUTE_POS_X as usize, lengths[t], stride()) {
                let from = starts[t] + at / widths[t] * pitches[t] + at % widths[t];
                let mut sum = 0.0f32;
                // As in `add_rows`.
                for part in range_stepped(0, count, AHEAD) {
                    let mut numbers = Array::<f32>::new(AHEAD);
                    #[unroll]
                    for i in 0..AHEAD {
                        numbers[i] = parts[min(part + i, count - 1) * size + from];
                    }
                    #[unroll]
                    for i in 0..AHEAD {
                        if part + i < count {
                            sum += numbers[i];
                        }
                    }
                }
                target[at] = Y::cast_from(sum);
            }
        }
    }
}
