//! The numbers of a product, and the order of its tiles.

use cubecl::prelude::*;

use super::plan::Plan;

/// Tile rows that are walked together, so that the tiles in flight share their rows and columns in the L2 cache.
const BAND: u32 = 8;

/// The numbers of a product that may change without compiling again.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Extent {
    /// Rows of the result.
    pub rows: u32,
    /// Columns of the result.
    pub columns: u32,
    /// Tiles along the rows.
    pub row_tiles: u32,
    /// Tiles along the columns.
    pub column_tiles: u32,
    /// Stages of the first term.
    pub steps: u32,
    /// Stages of the second term.
    pub more_steps: u32,
}

#[cube]
impl Extent {
    pub fn tiles(&self) -> u32 {
        self.row_tiles * self.column_tiles
    }
}

/// First row and column of a tile: bands of [`BAND`] tile rows, column after column.
#[cube]
pub(super) fn place(tile: u32, size: &Extent, #[comptime] plan: Plan) -> (u32, u32) {
    let in_band = size.column_tiles * BAND;
    let band = tile / in_band;
    let within = tile % in_band;
    let height = min(size.row_tiles - band * BAND, BAND);
    let row = band * BAND + within % height;
    (
        row * comptime!(plan.rows()),
        within / height * comptime!(plan.columns),
    )
}
