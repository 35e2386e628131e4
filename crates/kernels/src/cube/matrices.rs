//! Matrices as they lie in memory, and the order in which cubes walk the tiles of a product.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// Rows in memory start at multiples of so many halves: 16 bytes, which are copied at once.
pub(super) const PIECE: usize = 8;

/// Tile rows that are walked together, so that the tiles in flight share their rows and columns in the L2 cache.
const BAND: u32 = 8;

/// From one row of memory, and from one matrix along each dimension of the batch, to the next; in pieces.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Distances {
    pub(super) pitch: u32,
    pub(super) outer: u32,
    pub(super) inner: u32,
}

/// A tile, counted from the first.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Tile {
    pub(super) row: u32,
    pub(super) column: u32,
}

/// The tile of this cube.
#[cube]
pub(super) fn own_tile(row_tiles: u32, column_tiles: u32) -> Tile {
    let band_tiles = column_tiles * BAND;
    let band = CUBE_POS_X / band_tiles;
    let within = CUBE_POS_X % band_tiles;
    let height = min(row_tiles - band * BAND, BAND);
    Tile {
        row: band * BAND + within % height,
        column: within / height,
    }
}

/// Matrices in memory: rows without gaps between numbers, and whether they are the matrices' columns.
pub(super) struct Side {
    /// Rows and columns of a matrix.
    pub(super) size: [usize; 2],
    /// The two dimensions of the batch.
    pub(super) batch: [usize; 2],
    pub(super) pitch: usize,
    pub(super) between: [usize; 2],
    pub(super) transposed: bool,
}

impl Side {
    /// `None` where rows do not start at multiples of 16 bytes, or there are more dimensions.
    pub(super) fn of(tensor: &CubeTensor) -> Option<Self> {
        let (shape, strides) = (tensor.meta.shape(), tensor.meta.strides());
        let rank = shape.len();
        if tensor.meta.is_tiled() || !(2..=4).contains(&rank) {
            return None;
        }
        let size = [shape[rank - 2], shape[rank - 1]];
        let transposed = strides[rank - 1] != 1;
        let (pitch, within, columns) = match transposed {
            false => (strides[rank - 2], strides[rank - 1], size[1]),
            true => (strides[rank - 1], strides[rank - 2], size[0]),
        };
        let of_batch = |place: usize| match rank > place {
            true => (shape[rank - 1 - place], strides[rank - 1 - place]),
            false => (1, 0),
        };
        let [outer, inner] = [of_batch(3), of_batch(2)];
        let even = |distance: usize| distance.is_multiple_of(PIECE);
        let starts = even(tensor.handle.offset_start.unwrap_or(0) as usize / tensor.dtype.size());
        let fits = within == 1
            && pitch >= columns
            && even(pitch)
            && even(outer.1)
            && even(inner.1)
            && starts
            && size[0] > 0
            && size[1] > 0
            // Offsets are of 32 bits.
            && (tensor.handle.size() as usize) < u32::MAX as usize;
        fits.then_some(Self {
            size,
            batch: [outer.0, inner.0],
            pitch,
            between: [outer.1, inner.1],
            transposed,
        })
    }
    pub(super) fn distances(&self) -> DistancesLaunch {
        let [pitch, outer, inner] =
            [self.pitch, self.between[0], self.between[1]].map(|d| (d / PIECE) as u32);
        DistancesLaunch::new(pitch, outer, inner)
    }
}
