//! How a product is divided among cubes, planes and units.

use super::super::matrices::PIECE;
use super::super::planes::{PLANES, Planes};

/// Rows and columns of a tile.
pub(super) const TILE: usize = 128;

/// Numbers that are summed at a time. Twice as many, or two buffers, take more shared memory than a cube may have.
pub(super) const DEPTH: usize = 32;

/// Rows and columns of a plane.
pub(super) const OF_PLANE: usize = 64;

/// What the compiler has to know of a product; every distinct value is one compiled kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Plan {
    pub(super) left: Staged,
    pub(super) right: Staged,
    /// How a second product's right side lies; its left side's rows are without gaps.
    pub(super) more: Option<Staged>,
    /// The result is of the type of the operands, not `f32`.
    pub(super) rounded: bool,
    pub(super) planes: Planes,
    /// Tiles of a cube, down and across; each has a group of [`PLANES`] planes.
    pub(super) tiles: [usize; 2],
}

/// How a side of a tile lies in shared memory: as in global memory, in lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Staged {
    /// Sums run along a line.
    pub(super) along: bool,
    /// No tile reaches beyond the rows or columns.
    pub(super) wide: bool,
    /// The sum is of whole depths.
    pub(super) deep: bool,
    /// Units of a group.
    pub(super) units: usize,
    /// Groups that copy a part each.
    pub(super) parts: usize,
}

impl Staged {
    pub(super) fn lines(self) -> usize {
        if self.along { TILE } else { DEPTH }
    }

    /// Pieces of a line.
    pub(super) fn pieces(self) -> usize {
        (if self.along { DEPTH } else { TILE }) / PIECE
    }

    /// From one line to the next, with a piece more, so that the rows of a matrix lie in banks of their own.
    pub(super) fn pitch(self) -> usize {
        self.pieces() + 1
    }

    pub(super) fn size(self) -> usize {
        self.lines() * self.pitch()
    }

    /// Pieces that a unit copies.
    pub(super) fn held(self) -> usize {
        TILE * DEPTH / PIECE / self.units / self.parts
    }

    /// Lines between them.
    pub(super) fn step(self) -> usize {
        self.units / self.pieces()
    }
}

impl Plan {
    /// Tiles of a cube.
    pub(super) fn groups(self) -> usize {
        self.tiles[0] * self.tiles[1]
    }

    /// Matrices along a plane's rows or columns.
    pub(super) fn matrices(self) -> usize {
        OF_PLANE / self.planes.side
    }

    /// Products of matrices for one depth.
    pub(super) fn products(self) -> usize {
        DEPTH / self.planes.side * self.matrices() * self.matrices()
    }

    /// The pieces of both sides that a unit puts, and those that it fetches, after so many of these products: from one to before
    /// another. In their second half all matrices are loaded, so that the memory is free.
    pub(super) fn between(self, products: usize) -> [(usize, usize); 2] {
        let pieces = self.left.held() + self.right.held();
        let quarter = self.products() / 4;
        [2, 3].map(|begin| {
            let place = |products: usize| {
                let done = products.saturating_sub(begin * quarter);
                (done * pieces / quarter).min(pieces)
            };
            (place(products), place(products + 1))
        })
    }

    /// Pieces of a row of the result that a plane writes by way of shared memory, and how many rows at a time.
    pub(super) fn written(self) -> (usize, usize) {
        if self.rounded {
            (OF_PLANE / PIECE, 2 * self.planes.side)
        } else {
            (2 * OF_PLANE / PIECE, self.planes.side)
        }
    }

    /// Pieces of shared memory.
    pub(super) fn shared(self) -> usize {
        let (pieces, rows) = self.written();
        let stage = |left: Staged, right: Staged| {
            self.tiles[0] * left.size() + self.tiles[1] * right.size()
        };
        let along = Staged {
            along: true,
            ..self.left
        };
        let more = self.more.map_or(0, |more| stage(along, more));
        let stage = stage(self.left, self.right).max(more);
        stage.max(self.groups() * PLANES * rows * (pieces + 1))
    }
}

/// What the largest plan needs for each tile.
pub(super) const SHARED_BYTES: usize = 16 * 2 * TILE * (DEPTH / PIECE + 1);
