//! The shape of one compiled kernel: its tile, its storage orders, and where its parts lie in shared memory.

/// Elements of the summed dimension that one stage of the ring holds: 128 bytes, the widest swizzle.
pub(super) const STEP: usize = 64;

/// Bytes of 64 rows of one step.
const PANEL_BYTES: u32 = 64 * 128;

/// What the compiler has to know of a product; every distinct value is one compiled kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Plan {
    /// Warpgroups that multiply, each a block of 64 rows.
    pub groups: u32,
    /// Cubes of a cluster that share the summed dimension of one tile.
    pub parts: u32,
    /// Columns of a tile: what one `wgmma` multiplies at a time.
    pub columns: u32,
    /// Stages in the ring between the loader and the multipliers.
    pub stages: u32,
    /// The left side is stored `[K, M]`.
    pub left_transposed: bool,
    /// The right side is stored `[N, K]`.
    pub right_transposed: bool,
    /// Groups of 16 ranks of the second term in its one step; 0 for none.
    pub second: u32,
    /// A bias follows the sums.
    pub bias: bool,
    /// f16 instead of bf16.
    pub half: bool,
}

impl Plan {
    /// Rows of a tile.
    pub const fn rows(&self) -> u32 {
        64 * self.groups
    }

    /// Threads: the multipliers, and one warp that loads.
    pub const fn threads(&self) -> u32 {
        128 * self.groups + 32
    }

    /// Bytes of the left side in one stage.
    pub const fn left_bytes(&self) -> u32 {
        self.groups * PANEL_BYTES
    }

    /// Bytes of the right side in one stage; stored `[K, N]`, it comes in panels of 64 columns.
    pub const fn right_bytes(&self) -> u32 {
        if self.right_transposed {
            self.columns * 128
        } else {
            self.right_panels() * PANEL_BYTES
        }
    }

    /// Panels of 64 columns in a tile.
    pub const fn right_panels(&self) -> u32 {
        self.columns.div_ceil(64)
    }

    /// Bytes of one stage.
    pub const fn stage_bytes(&self) -> u32 {
        self.left_bytes() + self.right_bytes()
    }

    /// Where, after the ring, results are handed over.
    pub const fn exchange(&self) -> u32 {
        self.stages * self.stage_bytes()
    }

    /// Where the barriers begin: a full and an empty one for every stage, and one for the other parts' sums.
    ///
    /// Results leave for the copy engine through two panels of each warpgroup; those of the other parts come as sums.
    pub const fn barriers(&self, staged: bool) -> u32 {
        let bytes = if staged {
            2 * PANEL_BYTES * self.groups
        } else {
            (self.parts - 1) * self.sums() * 512
        };
        self.exchange() + bytes
    }

    /// Bytes of shared memory.
    pub const fn shared_bytes(&self, staged: bool) -> u32 {
        self.barriers(staged) + 16 * self.stages + 8
    }

    /// Cubes that send their sums to the first of their cluster; 1 where there is none, as a barrier must have arrivals.
    pub const fn senders(&self) -> u32 {
        if self.parts > 1 { self.parts - 1 } else { 1 }
    }

    /// Sums that one thread holds.
    pub const fn sums(&self) -> u32 {
        self.columns / 2
    }

    /// The constant part of a matrix descriptor: swizzle of 128 bytes, 1024 bytes between groups of 8 rows, and between
    /// panels, where the storage runs along the rows or columns of the result, the size of one.
    pub const fn descriptor(along: bool) -> u64 {
        let panels = if along { (PANEL_BYTES / 16) as u64 } else { 1 };
        (1 << 62) | (64 << 32) | (panels << 16)
    }

    /// How far a descriptor moves for the next 16 elements of the summed dimension, in its units of 16 bytes.
    pub const fn advance(along: bool) -> u32 {
        if along { 128 } else { 2 }
    }

    /// PTX's name of the element type.
    pub const fn element(&self) -> &'static str {
        if self.half { "f16" } else { "bf16" }
    }
}
