//! Which kernel computes a product, and its launch.

use burn::tensor::{DType, bf16, f16};
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::features::Tma;
use cubecl::prelude::*;
use cubecl::zspace::{Shape, Strides};

use super::extent::ExtentLaunch;
use super::kernel::{stored, wide};
use super::plan::{Plan, STEP};
use crate::cube::memory::{buffer, elem, empty};

/// Columns of the widest tile of [`run_thin`].
pub(super) const MOST_COLUMNS: usize = 128;

/// Rows and columns of the boxes in which results leave.
const OUT_BOX: usize = 64;

/// Shared memory that one cube may have on this architecture.
const SHARED_BYTES: usize = 227 * 1024;

/// A matrix as the copy engine reads it: rows of memory without gaps between numbers, and whether they are the matrix's
/// columns.
pub(super) struct Side<'a> {
    tensor: &'a CubeTensor,
    rows: usize,
    columns: usize,
    pitch: usize,
    pub transposed: bool,
}

impl<'a> Side<'a> {
    /// `None` where the copy engine cannot read it: rows must start at multiples of 16 bytes.
    pub fn of(tensor: &'a CubeTensor) -> Option<Self> {
        let half = matches!(tensor.dtype, DType::BF16 | DType::F16);
        if !half || tensor.meta.is_tiled() || tensor.meta.rank() != 2 {
            return None;
        }
        let ([m, k], [by_row, by_column]) = pairs(tensor);
        let transposed = by_column != 1;
        let (rows, columns, pitch, within) = match transposed {
            false => (m, k, by_row, by_column),
            true => (k, m, by_column, by_row),
        };
        let start = tensor.handle.offset_start.unwrap_or(0);
        let fits = within == 1
            && rows > 0
            && columns > 0
            && pitch >= columns
            && pitch.is_multiple_of(8)
            && start.is_multiple_of(16)
            && [m, k].iter().all(|size| *size < i32::MAX as usize);
        fits.then_some(Self {
            tensor,
            rows,
            columns,
            pitch,
            transposed,
        })
    }

    /// The map of its memory, of which so many rows and 64 columns are read at a time.
    fn map(&self, rows: usize) -> TensorMapArg<Tiled> {
        let shape = Shape::from(vec![self.rows, self.columns]);
        let strides = Strides::new(&[self.pitch, 1]);
        // SAFETY: the rows and columns of the tensor's own memory.
        let tensor =
            unsafe { TensorArg::from_raw_parts(self.tensor.handle.clone(), strides, shape) };
        let tile_size = Shape::from(vec![rows, STEP]);
        TensorMapArg::new(TiledArgs { tile_size }, tensor, elem(self.tensor))
            .with_swizzle(TensorMapSwizzle::B128)
            .with_prefetch(TensorMapPrefetch::B128)
    }

    /// As the left side of a product by tiles of so many rows.
    fn left(&self, rows: u32) -> TensorMapArg<Tiled> {
        self.map(if self.transposed { STEP } else { rows as usize })
    }

    /// As the right side of a product by tiles of so many columns.
    fn right(&self, columns: u32) -> TensorMapArg<Tiled> {
        self.map(if self.transposed {
            columns as usize
        } else {
            STEP
        })
    }
}

/// Shape and strides of a matrix.
pub(super) fn pairs(tensor: &CubeTensor) -> ([usize; 2], [usize; 2]) {
    let (shape, strides) = (tensor.meta.shape(), tensor.meta.strides());
    ([shape[0], shape[1]], [strides[0], strides[1]])
}

/// Whether the device has these instructions, and CubeCL's compiler lets them through.
pub(crate) fn is_hopper(tensor: &CubeTensor) -> bool {
    let properties = tensor.client.properties();
    // Its instructions went with it: later architectures have others in their place.
    properties.identity.fingerprint == "ptx_sm90"
        && properties.features.tma.contains(Tma::Base)
        && properties.hardware.max_shared_memory_size >= SHARED_BYTES
}

fn multiprocessors(tensor: &CubeTensor) -> usize {
    let hardware = &tensor.client.properties().hardware;
    hardware.num_streaming_multiprocessors.unwrap_or(1).max(1) as usize
}

/// Columns of a tile of [`run_wide`] and stages beside them: the widest tile reads its sides most seldom, the narrower
/// one leaves fewer multiprocessors idle in the last round.
fn tile(m: usize, n: usize, multiprocessors: usize) -> (u32, u32) {
    // Measured on large matrices, the narrow tile runs at 0.93 of the wide one's rate.
    let (wide, narrow) = ((256, 4, 1.0), (128, 6, 0.93));
    let time = |(columns, _, rate): (u32, u32, f64)| {
        let tiles = m.div_ceil(128) * n.div_ceil(columns as usize);
        tiles.div_ceil(multiprocessors) as f64 * columns as f64 / rate
    };
    let (columns, stages, _) = if time(wide) <= time(narrow) {
        wide
    } else {
        narrow
    };
    (columns, stages)
}

/// `left right [+ more_left more_right] [+ bias]`.
pub(super) fn run_wide(
    left: &Side<'_>,
    right: &Side<'_>,
    more: Option<(&Side<'_>, &Side<'_>)>,
    bias: Option<&CubeTensor>,
) -> CubeTensor {
    let ([m, k], _) = pairs(left.tensor);
    let ([_, n], _) = pairs(right.tensor);
    let dtype = left.tensor.dtype;
    let out = empty(left.tensor, &[m, n], dtype);
    let cubes = multiprocessors(&out);
    let (columns, stages) = tile(m, n, cubes);
    let rank = more.map_or(0, |(left, _)| pairs(left.tensor).0[1]);
    let plan = Plan {
        groups: 2,
        parts: 1,
        columns,
        stages,
        left_transposed: left.transposed,
        right_transposed: right.transposed,
        second: rank.div_ceil(16).min(4) as u32,
        bias: bias.is_some(),
        half: dtype == DType::F16,
    };
    let size = [
        m,
        n,
        m.div_ceil(128),
        n.div_ceil(columns as usize),
        k.div_ceil(STEP),
        rank.div_ceil(STEP),
    ];
    let count = CubeCount::Static((size[2] * size[3]).min(cubes) as u32, 1, 1);
    let (more_left, more_right) = more.unwrap_or((left, right));
    let bias = bias.unwrap_or(left.tensor);
    let result = Side {
        tensor: &out,
        rows: m,
        columns: n,
        pitch: n,
        transposed: false,
    };
    let launch = match dtype {
        DType::F16 => wide::launch_unchecked::<f16>,
        _ => wide::launch_unchecked::<bf16>,
    };
    #[cfg(test)]
    super::count_launch(0);
    // SAFETY: the copy engine keeps within the tensors, and the bias is read up to the result's columns.
    unsafe {
        launch(
            &out.client,
            count,
            CubeDim::new_1d(plan.threads()),
            left.left(plan.rows()),
            right.right(columns),
            more_left.left(plan.rows()),
            more_right.right(columns),
            result.map(OUT_BOX),
            buffer(bias),
            extent(size),
            plan,
        );
    }
    out
}

/// `scale * left right`, few columns or rows, in this dtype.
pub(super) fn run_thin(left: &Side<'_>, right: &Side<'_>, scale: f32, dtype: DType) -> CubeTensor {
    let ([m, k], _) = pairs(left.tensor);
    let ([_, n], _) = pairs(right.tensor);
    let cubes = multiprocessors(left.tensor);
    let columns = match n <= MOST_COLUMNS {
        true => n.next_multiple_of(16),
        false => OUT_BOX,
    };
    let tiles = m.div_ceil(64) * n.div_ceil(columns);
    // A cluster has one tile. More than two parts lose more on their sums' way to the first than they gain.
    let split = 2 * tiles <= cubes && k.div_ceil(STEP) >= 8;
    run_stored(
        left,
        right,
        scale,
        dtype,
        Tile {
            groups: 1,
            parts: if split { 2 } else { 1 },
            columns: columns as u32,
            most_stages: 16,
        },
    )
}

/// `left right` in `f32`.
pub(super) fn run_unrounded(left: &Side<'_>, right: &Side<'_>) -> CubeTensor {
    let ([m, _], _) = pairs(left.tensor);
    let ([_, n], _) = pairs(right.tensor);
    let (columns, most_stages) = tile(m, n, multiprocessors(left.tensor));
    let tile = Tile {
        groups: 2,
        parts: 1,
        columns,
        most_stages,
    };
    run_stored(left, right, 1.0, DType::F32, tile)
}

/// How [`run_stored`] divides a product; see [`Plan`].
struct Tile {
    groups: u32,
    parts: u32,
    columns: u32,
    most_stages: u32,
}

/// `scale * left right` in this dtype, by plain stores.
fn run_stored(
    left: &Side<'_>,
    right: &Side<'_>,
    scale: f32,
    dtype: DType,
    tile: Tile,
) -> CubeTensor {
    let ([m, k], _) = pairs(left.tensor);
    let ([_, n], _) = pairs(right.tensor);
    let out = empty(left.tensor, &[m, n], dtype);
    let mut plan = Plan {
        groups: tile.groups,
        parts: tile.parts,
        columns: tile.columns,
        stages: tile.most_stages,
        left_transposed: left.transposed,
        right_transposed: right.transposed,
        second: 0,
        bias: false,
        half: left.tensor.dtype == DType::F16,
    };
    while plan.shared_bytes(false) as usize > SHARED_BYTES {
        plan.stages -= 1;
    }
    let size = [
        m,
        n,
        m.div_ceil(plan.rows() as usize),
        n.div_ceil(plan.columns as usize),
        k.div_ceil(STEP),
        0,
    ];
    let (cubes, parts) = (multiprocessors(&out), plan.parts as usize);
    let tiles = size[2] * size[3];
    let count = CubeCount::Static((tiles * parts).min(cubes / parts * parts) as u32, 1, 1);
    let launch = match dtype {
        DType::F16 => stored::launch_unchecked::<f16>,
        DType::BF16 => stored::launch_unchecked::<bf16>,
        _ => stored::launch_unchecked::<f32>,
    };
    #[cfg(test)]
    super::count_launch(1);
    // SAFETY: the copy engine keeps within the sides, and results are written within the rows and columns.
    unsafe {
        launch(
            &out.client,
            count,
            CubeDim::new_1d(plan.threads()),
            left.left(plan.rows()),
            right.right(plan.columns),
            buffer(&out),
            scale,
            extent(size),
            plan,
        );
    }
    out
}

fn extent(size: [usize; 6]) -> ExtentLaunch {
    let [rows, columns, row_tiles, column_tiles, steps, more_steps] = size.map(|size| size as u32);
    ExtentLaunch::new(rows, columns, row_tiles, column_tiles, steps, more_steps)
}
