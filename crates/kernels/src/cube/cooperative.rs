//! Matrix products by matrices that a whole cube holds together, which the driver brings through shared memory itself
//! (Vulkan's `VK_NV_cooperative_matrix2`). Sums are `f32`.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cmma::{self, Cube, Matrix, MatrixIdent, MatrixLayout};
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;

use super::matrices::{Distances, PIECE, Side, own_tile};
use super::memory::{buffer, elem};

#[cfg(test)]
thread_local! {
    /// The products that this thread launched: tests see who computed.
    static LAUNCHED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// What a cube multiplies at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tile {
    rows: usize,
    columns: usize,
    /// Numbers that are summed at a time.
    depth: usize,
    /// Units of a cube.
    units: u32,
}

impl Tile {
    const fn new(rows: usize, columns: usize, depth: usize, units: u32) -> Self {
        Self {
            rows,
            columns,
            depth,
            units,
        }
    }

    /// Measured on an H200 (docs/measurements.md).
    fn of(m: usize, n: usize, whole: impl Fn(Self) -> bool) -> Self {
        const LARGE: Tile = Tile::new(128, 128, 32, 128);
        match (m, n) {
            (_, ..=16) => Self::new(32, 16, 64, 128),
            (_, ..=32) => Self::new(32, 32, 64, 128),
            (_, ..=64) => Self::new(128, 64, 32, 128),
            (..=64, _) => Self::new(64, 128, 32, 128),
            _ if whole(LARGE) => LARGE,
            // Bounds are looked after faster in the wider tile.
            _ => Self::new(128, 256, 32, 256),
        }
    }
}

/// What the compiler has to know of a product; every distinct value is one compiled kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Plan {
    tile: Tile,
    /// The left side is stored `[K, M]`.
    left_transposed: bool,
    /// The right side is stored `[N, K]`.
    right_transposed: bool,
    /// No tile reaches beyond the matrices.
    whole: bool,
    /// The result is of the type of the operands, not `f32`.
    rounded: bool,
    /// There are several matrices.
    batched: bool,
}

/// The numbers of a product that may change without compiling again. Distances are in pieces.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Extent {
    rows: u32,
    columns: u32,
    depth: u32,
    row_tiles: u32,
    column_tiles: u32,
    /// The two dimensions of the batch.
    outer: u32,
    inner: u32,
    left: Distances,
    right: Distances,
    out: Distances,
}

#[cube(launch_unchecked)]
fn multiply<E: Float, O: Float>(
    left: &[E],
    right: &[E],
    out: &mut [O],
    size: Extent,
    #[comptime] plan: Plan,
    #[define(E, O)] _types: [ElemType; 2],
) {
    let tile = comptime!(plan.tile);
    let (m, n, k) = comptime!((tile.rows, tile.columns, tile.depth));
    let (tile_m, tile_n, tile_k) = comptime!((m as u32, n as u32, k as u32));
    let own = own_tile(size.row_tiles, size.column_tiles);
    let (row, column) = (own.row * tile_m, own.column * tile_n);

    let left = view::<E>(
        left,
        size.rows,
        size.depth,
        &size.left,
        &size,
        plan.left_transposed,
        plan,
    );
    let right = view::<E>(
        right,
        size.depth,
        size.columns,
        &size.right,
        &size,
        plan.right_transposed,
        plan,
    );

    // SAFETY: loaded before they are multiplied.
    let mut a = unsafe {
        Matrix::<E, Cube>::uninitialized(MatrixIdent::A, m, n, k, MatrixLayout::Undefined)
    };
    // SAFETY: as above.
    let mut b = unsafe {
        Matrix::<E, Cube>::uninitialized(MatrixIdent::B, m, n, k, MatrixLayout::Undefined)
    };
    let sums = Matrix::<f32, Cube>::from_value(
        MatrixIdent::Accumulator,
        m,
        n,
        k,
        MatrixLayout::Undefined,
        0.0f32,
    );
    for at in range_stepped(0, size.depth, tile_k) {
        let part = tile_of::<E>(
            &left,
            row,
            at,
            tile_m,
            tile_k,
            &size,
            plan.left_transposed,
            plan,
        );
        cmma::load_tensor(&mut a, &part);
        let part = tile_of::<E>(
            &right,
            at,
            column,
            tile_k,
            tile_n,
            &size,
            plan.right_transposed,
            plan,
        );
        cmma::load_tensor(&mut b, &part);
        cmma::execute(&a, &b, &sums, &sums);
    }

    let out = view::<O>(
        &*out,
        size.rows,
        size.columns,
        &size.out,
        &size,
        false,
        plan,
    );
    let mut part = tile_of::<O>(&out, row, column, tile_m, tile_n, &size, false, plan);
    if comptime!(plan.rounded) {
        let rounded = cmma::cast::<f32, O, Cube>(&sums);
        cmma::store_tensor(&mut part, &rounded);
    } else {
        cmma::store_tensor(&mut part, &sums);
    }
}

/// Matrices `[rows, columns]` as the memory has them: the other way round if they are transposed. Beyond them are zeros,
/// unless nobody looks there.
///
/// A view begins where its buffer does, so that places in a batch are coordinates of it.
#[cube]
fn view<T: Float>(
    numbers: &[T],
    rows: u32,
    columns: u32,
    distances: &Distances,
    size: &Extent,
    #[comptime] transposed: bool,
    #[comptime] plan: Plan,
) -> TensorView<T> {
    let clamp = comptime!(match plan.whole {
        true => TensorClampMode::Undefined,
        false => TensorClampMode::Constant(0),
    });
    let (height, width) = if comptime!(transposed) {
        (columns, rows)
    } else {
        (rows, columns)
    };
    // In this form the driver sees that rows start at multiples of 16 bytes.
    let piece = comptime!(PIECE as u32);
    let pitch = distances.pitch * piece;
    if comptime!(plan.batched) {
        let (outer, inner) = (distances.outer * piece, distances.inner * piece);
        TensorView::new(numbers, seq![size.outer, size.inner, height, width])
            .with_strides(seq![outer, inner, pitch, 1u32])
            .with_clamp_mode(clamp)
            .finish()
    } else {
        TensorView::new(numbers, seq![height, width])
            .with_strides(seq![pitch, 1u32])
            .with_clamp_mode(clamp)
            .finish()
    }
}

/// `rows` x `columns` of the matrix of this cube, from a row and a column on.
#[cube]
#[allow(clippy::too_many_arguments)]
fn tile_of<T: Float>(
    view: &TensorView<T>,
    row: u32,
    column: u32,
    #[comptime] rows: u32,
    #[comptime] columns: u32,
    size: &Extent,
    #[comptime] transposed: bool,
    #[comptime] plan: Plan,
) -> TensorView<T> {
    let (outer, inner) = (CUBE_POS_Y / size.inner, CUBE_POS_Y % size.inner);
    if comptime!(plan.batched) {
        if comptime!(transposed) {
            let part = view.slice(
                seq![outer, inner, column, row],
                seq![1u32, 1u32, columns, rows],
            );
            part.permuted(seq![0usize, 1usize, 3usize, 2usize])
        } else {
            view.slice(
                seq![outer, inner, row, column],
                seq![1u32, 1u32, rows, columns],
            )
        }
    } else if comptime!(transposed) {
        let part = view.slice(seq![column, row], seq![columns, rows]);
        part.permuted(seq![1usize, 0usize])
    } else {
        view.slice(seq![row, column], seq![rows, columns])
    }
}

/// How [`product_into`] computes it, if it does: matrices of a half that the device multiplies so, or a batch of them.
pub(super) struct Chosen {
    left: Side,
    right: Side,
    tile: Tile,
    whole: bool,
}

/// How `a b` is computed here, if it is.
pub(super) fn chosen(a: &CubeTensor, b: &CubeTensor) -> Option<Chosen> {
    if a.dtype != b.dtype || !matches!(a.dtype, DType::F16 | DType::BF16) {
        return None;
    }
    let (left, right) = (Side::of(a)?, Side::of(b)?);
    let ([m, k], [_, n]) = (left.size, right.size);
    let fits = |tile: Tile| {
        m.is_multiple_of(tile.rows)
            && n.is_multiple_of(tile.columns)
            && k.is_multiple_of(tile.depth)
    };
    let tile = Tile::of(m, n, fits);
    let whole = fits(tile);
    let tiles = m.div_ceil(tile.rows) * n.div_ceil(tile.columns);
    let most = a.client.properties().hardware.max_cube_count;
    let matches = left.batch == right.batch
        // Rows of the result start as evenly, too.
        && n.is_multiple_of(PIECE)
        && tiles <= most.0 as usize
        && left.batch.iter().product::<usize>() <= most.1 as usize
        && multiplies(a, tile);
    matches.then_some(Chosen {
        left,
        right,
        tile,
        whole,
    })
}

/// Whether the device multiplies matrices of whole cubes of this size and type.
fn multiplies(tensor: &CubeTensor, tile: Tile) -> bool {
    let sums = ElemType::Float(FloatKind::F32);
    let fits = |size: usize, granularity: u32, most: u32| {
        size.is_multiple_of(granularity as usize) && size <= most as usize
    };
    let matmul = &tensor.client.properties().features.matmul;
    matmul.cmma_tensor_addressing
        && matmul.cube_mma.iter().any(|config| {
            config.a_type == elem(tensor)
                && config.b_type == elem(tensor)
                && config.cd_type == sums
                && config
                    .units_per_block
                    .is_none_or(|units| units == tile.units)
                && fits(tile.rows, config.m_granularity, config.m_max)
                && fits(tile.columns, config.n_granularity, config.n_max)
                && fits(tile.depth, config.k_granularity, config.k_max)
        })
}

/// `a b`, written to memory without gaps, of their type or `f32`.
///
/// # Shapes
/// - a: `[..., m, k]`, b: `[..., k, n]`, or views; out: `[..., m, n]`
pub(super) fn product_into(chosen: &Chosen, a: &CubeTensor, b: &CubeTensor, out: &CubeTensor) {
    let Chosen {
        left,
        right,
        tile,
        whole,
    } = chosen;
    let ([m, k], [_, n]) = (left.size, right.size);
    let plan = Plan {
        tile: *tile,
        left_transposed: left.transposed,
        right_transposed: right.transposed,
        whole: *whole,
        rounded: out.dtype != DType::F32,
        batched: left.batch != [1, 1],
    };
    let result =
        Side::of(out).unwrap_or_else(|| unreachable!("rows as even as those of the right side"));
    let tiles = [m.div_ceil(tile.rows), n.div_ceil(tile.columns)];
    let [outer, inner] = left.batch;
    let sizes = [m, n, k, tiles[0], tiles[1], outer, inner].map(|size| size as u32);
    let [m, n, k, row_tiles, column_tiles, outer, inner] = sizes;
    #[cfg(test)]
    LAUNCHED.set(LAUNCHED.get() + 1);
    // SAFETY: whole tiles lie within the matrices; of others, the device reads zeros and writes nothing beyond them.
    unsafe {
        multiply::launch_unchecked(
            &a.client,
            CubeCount::Static(row_tiles * column_tiles, outer * inner, 1),
            CubeDim::new_1d(tile.units),
            buffer(a),
            buffer(b),
            buffer(out),
            ExtentLaunch::new(
                m,
                n,
                k,
                row_tiles,
                column_tiles,
                outer,
                inner,
                left.distances(),
                right.distances(),
                result.distances(),
            ),
            plan,
            [elem(a), elem(out)],
        );
    }
}

/// Against the portable form in `f32` on the CPU, on a device with these matrices:
/// `BURN_LORA_TEST_DEVICES=vulkan cargo test --release --features vulkan,flex cooperative -- --nocapture`.
#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{DType, Device, Distribution, Tensor};
    use burn_cubecl::ops::into_data_sync;

    use super::*;
    use crate::comparison::{gpus, near};
    use crate::cube::apply::primitive;
    use crate::cube::memory::transposed;
    use crate::cube::plane_product;
    use crate::cube::product::product;

    /// Tiles that divide the matrices and tiles that do not, every storage order, few columns or rows, batches.
    #[test]
    #[expect(clippy::print_stdout, reason = "a test that checks nothing says so")]
    fn products_are_those_of_the_portable_form() {
        let sizes = [
            // batch, m, k, n
            ([1, 1], 256, 96, 384),
            ([1, 1], 136, 72, 264),
            ([1, 1], 1000, 200, 328),
            ([1, 1], 4096, 128, 16),
            ([1, 1], 333, 72, 24),
            ([1, 1], 40, 264, 1032),
            ([2, 3], 256, 64, 128),
            ([2, 3], 100, 64, 72),
            ([1, 5], 200, 200, 64),
        ];
        for gpu in gpus().into_iter().map(Device::inner) {
            let there = |x: &Tensor<4>, turned: bool| {
                let x = if turned {
                    x.clone().swap_dims(2, 3)
                } else {
                    x.clone()
                };
                let x = Tensor::<4>::from_data(x.to_data(), (&gpu, DType::F32));
                let x = primitive(x.cast(DType::F16));
                if turned { transposed(x) } else { x }
            };
            let one = there(&Tensor::zeros([1, 1, 64, 64], &Device::flex()), false);
            if !multiplies(&one, Tile::new(128, 128, 32, 128)) {
                println!("skipped: no matrices of whole cubes on {gpu:?}");
                continue;
            }
            let launched = || LAUNCHED.get() + plane_product::LAUNCHED.get();
            for ([outer, inner], m, k, n) in sizes {
                let matrices = |rows: usize, columns: usize| {
                    let (normal, cpu) = (Distribution::Normal(0.0, 1.0), Device::flex());
                    let x = Tensor::<4>::random([outer, inner, rows, columns], normal, &cpu);
                    x.cast(DType::F16).cast(DType::F32)
                };
                let (a, b) = (matrices(m, k), matrices(k, n));
                let expected = a.clone().matmul(b.clone()).flatten::<1>(0, 3);
                for (left, right) in [(false, false), (false, true), (true, false), (true, true)] {
                    let (ga, gb) = (there(&a, left), there(&b, right));
                    for (dtype, bound) in [(DType::F32, 1e-4), (DType::F16, 1e-2)] {
                        let name = format!("{outer}x{inner} {m}x{k}x{n} {left} {right} {dtype:?}");
                        // The device may leave gaps behind rows that are not even.
                        let taken = chosen(&ga, &gb).is_some();
                        let in_memory = [if left { m } else { k }, if right { k } else { n }, n];
                        let even = in_memory.iter().all(|size| size.is_multiple_of(PIECE));
                        assert!(taken || !even, "{name}");
                        let before = launched();
                        let y = product(ga.clone(), gb.clone(), dtype);
                        assert_eq!(launched() - before, usize::from(taken), "{name}");
                        assert_eq!(y.dtype, dtype);
                        let y = into_data_sync(y).convert::<f32>();
                        let y = Tensor::<4>::from_data(y, &Device::flex()).flatten::<1>(0, 3);
                        near(&y, &expected, bound, &name);
                    }
                }
            }
        }
    }
}
