//! Large matrix products by the matrices of planes, from shared memory. Sums are `f32`.
//!
//! A cube multiplies 256 x 128 numbers, or 128 x 256, or 128 x 128 where those would be few; 32 of the sum at a time. Meanwhile its
//! units hold the next 32 in registers. They put them into shared memory between the products, and fetch those after them: a plane
//! alone has half the rate of the tensor cores, and waits for each load behind all that were asked for before. Both sides lie in
//! shared memory as in global memory, whichever way round that is: the matrices are loaded in either order.

mod kernel;
mod plan;
#[cfg(all(test, feature = "flex"))]
mod tests;

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::matrices::{PIECE, Side};
use super::memory::{buffer, elem};
use super::planes::{PLANES, Planes};
use kernel::{ExtentLaunch, multiply};
use plan::{DEPTH, OF_PLANE, Plan, SHARED_BYTES, Staged, TILE};

/// Cubes of two tiles that are worth it: an H200 has 132 processors, which take one of them each, or two of one tile.
const ENOUGH: usize = 128;

#[cfg(test)]
thread_local! {
    /// The products that this thread launched: tests see who computed.
    pub(super) static LAUNCHED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How [`product_into`] computes it, if it does.
pub(super) struct Chosen {
    left: Side,
    right: Side,
    /// The sides of a second product.
    more: Option<(Side, Side)>,
    planes: Planes,
    /// Tiles of a cube, down and across.
    tiles: [usize; 2],
}

/// How `a b`, or `a b + c d` with a short side between them, is computed here, if it is.
pub(super) fn chosen(
    a: &CubeTensor,
    b: &CubeTensor,
    more: Option<(&CubeTensor, &CubeTensor)>,
) -> Option<Chosen> {
    let half = matches!(a.dtype, DType::F16 | DType::BF16);
    let same = more.is_none_or(|(c, d)| c.dtype == a.dtype && d.dtype == a.dtype);
    if !half || !same || a.dtype != b.dtype {
        return None;
    }
    let (left, right) = (Side::of(a)?, Side::of(b)?);
    let more = match more {
        Some((c, d)) => {
            let (c, d) = (Side::of(c)?, Side::of(d)?);
            let fits = !c.transposed && c.batch == [1, 1] && left.batch == [1, 1];
            Some(fits.then_some((c, d))?)
        }
        None => None,
    };
    let ([m, k], [_, n]) = (left.size, right.size);
    // Whole pieces along the lines, of both sides and of the result.
    let even = |size: usize| size.is_multiple_of(PIECE);
    let short = more.as_ref().map_or(0, |(c, _)| c.size[1]);
    let tiles = m.div_ceil(TILE) * n.div_ceil(TILE);
    let most = a.client.properties().hardware.max_cube_count;
    let fits = m > OF_PLANE
        && n > OF_PLANE
        && [k, n, short].into_iter().all(even)
        && (!left.transposed || even(m))
        && left.batch == right.batch
        && tiles <= most.0 as usize
        && left.batch.iter().product::<usize>() <= most.1 as usize;
    let planes = fits.then(|| Planes::of(a, |_| SHARED_BYTES)).flatten()?;
    let pair = if m > TILE { [2, 1] } else { [1, 2] };
    let pairs = m.div_ceil(pair[0] * TILE) * n.div_ceil(pair[1] * TILE);
    let many = pairs * left.batch.iter().product::<usize>() >= ENOUGH;
    let tiles = if many && takes_pairs(a, planes) {
        pair
    } else {
        [1, 1]
    };
    Some(Chosen {
        left,
        right,
        more,
        planes,
        tiles,
    })
}

/// The parts of a sum that are worth it: shorter ones would be written and added up for longer than they are summed.
const SHORTEST: usize = 4096;

/// Into how many parts the sum of a product of matrices should be cut, if it should: a long one, of fewer tiles than make a GPU busy.
pub(super) fn parts(a: &CubeTensor, b: &CubeTensor) -> Option<usize> {
    if a.meta.shape().len() != 2 {
        return None;
    }
    let ([m, k], n) = ([a.meta.shape()[0], a.meta.shape()[1]], b.meta.shape()[1]);
    let pairs = m.div_ceil(2 * TILE) * n.div_ceil(TILE);
    let wanted = ENOUGH.div_ceil(pairs);
    let fits = |parts: &usize| k.is_multiple_of(parts * DEPTH) && k / parts >= SHORTEST;
    (2..=wanted.min(8)).rev().find(fits)
}

/// Whether a cube of the device can have two tiles.
fn takes_pairs(a: &CubeTensor, planes: Planes) -> bool {
    let hardware = &a.client.properties().hardware;
    hardware.max_units_per_cube as usize >= 2 * PLANES * planes.units
        && hardware.max_shared_memory_size >= 2 * SHARED_BYTES
}

/// `a b`, and `c d` if it was chosen with them, written to memory without gaps, of their type or `f32`.
///
/// # Shapes
/// - a: `[..., m, k]`, b: `[..., k, n]`, or views; c: `[m, rank]`, d: `[rank, n]`; out: `[..., m, n]`
pub(super) fn product_into(
    chosen: &Chosen,
    a: &CubeTensor,
    b: &CubeTensor,
    more: Option<(&CubeTensor, &CubeTensor)>,
    out: &CubeTensor,
) {
    let Chosen { left, right, .. } = chosen;
    let ([m, k], [_, n]) = (left.size, right.size);
    let deep = k.is_multiple_of(DEPTH);
    let of_cube = chosen.tiles;
    let units = PLANES * chosen.planes.units;
    // One side has tiles of its own in this direction, and is shared in the other.
    let staged = |along: bool, size: usize, [own, shared]: [usize; 2]| Staged {
        along,
        wide: size.is_multiple_of(own * TILE),
        deep,
        units,
        parts: shared,
    };
    let across = [of_cube[1], of_cube[0]];
    let (short, [more_left, more_right]) = match &chosen.more {
        Some((c, d)) => (c.size[1], [c.pitch, d.pitch]),
        None => (0, [0, 0]),
    };
    let plan = Plan {
        left: staged(!left.transposed, m, of_cube),
        right: staged(right.transposed, n, across),
        more: chosen.more.as_ref().map(|(_, d)| Staged {
            deep: false,
            ..staged(d.transposed, n, across)
        }),
        rounded: out.dtype != DType::F32,
        planes: chosen.planes,
        tiles: of_cube,
    };
    debug_assert!(plan.shared() * 16 <= plan.groups() * SHARED_BYTES);
    let result =
        Side::of(out).unwrap_or_else(|| unreachable!("rows as even as those of the right side"));
    let tiles = [m.div_ceil(of_cube[0] * TILE), n.div_ceil(of_cube[1] * TILE)];
    let [outer, inner] = left.batch;
    let pieces = |distance: usize| (distance / PIECE) as u32;
    #[cfg(test)]
    LAUNCHED.set(LAUNCHED.get() + 1);
    let (c, d) = more.unwrap_or((a, b));
    // SAFETY: what lies beyond the matrices is neither read nor written.
    unsafe {
        multiply::launch_unchecked(
            &a.client,
            CubeCount::Static((tiles[0] * tiles[1]) as u32, (outer * inner) as u32, 1),
            CubeDim::new_1d((plan.groups() * units) as u32),
            4,
            buffer(a),
            buffer(b),
            buffer(c),
            buffer(d),
            buffer(out),
            ExtentLaunch::new(
                m as u32,
                n as u32,
                k as u32,
                short as u32,
                tiles[0] as u32,
                tiles[1] as u32,
                inner as u32,
                left.distances(),
                right.distances(),
                result.distances(),
                pieces(more_left),
                pieces(more_right),
            ),
            plan,
            elem(a),
        );
    }
}
