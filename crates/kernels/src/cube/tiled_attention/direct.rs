//! Scores where a plane's units hold them, without a way through shared memory: on devices that compute with each number of a
//! matrix in the unit that holds it, and hold matrices [as it is known](super::super::planes::holds_pairs): a unit has numbers of
//! two rows, eight apart, and of four columns, two next to each other and two eight behind them.

use cubecl::cmma::{self, Matrix};
use cubecl::prelude::*;

use super::seen::Sizes;
use super::tile::{Kind, Plan};

/// A block of scores.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Block {
    /// Its first query and key.
    pub(super) query: u32,
    pub(super) key: u32,
    /// The keys of the row of the batch: from one to before another.
    pub(super) from: u32,
    pub(super) end: u32,
}

/// Whether a query of the block sees a key of it.
#[cube]
pub(super) fn sees(
    block: &Block,
    query: u32,
    key: u32,
    size: &Sizes,
    #[comptime] kind: Kind,
) -> bool {
    let key = block.key + key;
    let mut sees = key < block.end;
    if comptime!(kind.padded) {
        sees = sees && key >= block.from;
    }
    if comptime!(kind.causal) {
        let limit = size.causal_from + block.query + query + 1;
        sees = sees && key < limit;
        if comptime!(kind.windowed) {
            sees = sees && key + size.window >= limit;
        }
    }
    sees
}

/// Whether every query of the block sees every key of it.
#[cube]
pub(super) fn all_see_all(block: &Block, size: &Sizes, #[comptime] plan: Plan) -> bool {
    let kind = comptime!(plan.kind);
    let side = comptime!(plan.side() as u32);
    let mut end = block.end;
    if comptime!(kind.causal) {
        end = min(end, size.causal_from + block.query + 1);
    }
    let mut all = block.key + side <= end;
    if comptime!(kind.padded) {
        all = all && block.key >= block.from;
    }
    if comptime!(kind.windowed) {
        all = all && block.key + size.window >= size.causal_from + block.query + side;
    }
    all
}

/// A number of each of a unit's two rows.
#[derive(CubeType, Clone, Copy)]
pub(super) struct OfRows {
    pub(super) low: f32,
    pub(super) high: f32,
}

/// What the units that have a row of their own know of it, for those that hold its numbers.
#[cube]
pub(super) fn of_rows(own: f32, #[comptime] plan: Plan) -> OfRows {
    let lane = UNIT_POS_X % comptime!(plan.planes.units as u32);
    OfRows {
        low: plane_shuffle(own, lane / 4),
        high: plane_shuffle(own, lane / 4 + 8),
    }
}

#[cube]
pub(super) fn of_row(numbers: &OfRows, row: u32) -> f32 {
    select(row < 8u32, numbers.low, numbers.high)
}

/// A number of each of a unit's four columns.
#[derive(CubeType, Clone, Copy)]
pub(super) struct OfColumns {
    first: f32,
    second: f32,
    third: f32,
    fourth: f32,
}

/// Those of a block of the numbers of a tile's rows.
#[cube]
pub(super) fn of_columns<N: Size>(
    numbers: &Shared<[Vector<f32, N>]>,
    #[comptime] block: usize,
    #[comptime] plan: Plan,
) -> OfColumns {
    let lane = UNIT_POS_X % comptime!(plan.planes.units as u32);
    let four = comptime!((block * plan.side() / 4) as u32) + lane % 4 / 2;
    let (near, far) = (numbers[four as usize], numbers[(four + 2) as usize]);
    let odd = lane % 2 == 1;
    OfColumns {
        first: select(odd, near.extract(2usize), near.extract(0usize)),
        second: select(odd, near.extract(3usize), near.extract(1usize)),
        third: select(odd, far.extract(2usize), far.extract(0usize)),
        fourth: select(odd, far.extract(3usize), far.extract(1usize)),
    }
}

#[cube]
fn of_column(numbers: &OfColumns, column: u32) -> f32 {
    let even = column % 2 == 0;
    let near = select(even, numbers.first, numbers.second);
    let far = select(even, numbers.third, numbers.fourth);
    select(column < 8u32, near, far)
}

/// A unit's numbers of a matrix, for a computation with another matrix. The driver knows the place of each, so that they stay in
/// registers.
#[cube]
pub(super) fn cells() -> Sequence<RuntimeCell<f32>> {
    let mut cells = Sequence::<RuntimeCell<f32>>::new();
    #[unroll]
    for _ in 0..8usize {
        cells.push(RuntimeCell::<f32>::new(0.0f32));
    }
    cells
}

#[cube]
fn place_of(row: u32, column: u32) -> u32 {
    row / 8 * 4 + column / 8 * 2 + column % 2
}

#[cube]
fn keep(cells: &Sequence<RuntimeCell<f32>>, place: u32, number: f32) {
    #[unroll]
    for i in 0..8usize {
        let cell = cells.index(i);
        cell.store(select(place == comptime!(i as u32), number, cell.read()));
    }
}

#[cube]
fn recall(cells: &Sequence<RuntimeCell<f32>>, place: u32) -> f32 {
    let mut number = cells.index(0).read();
    #[unroll]
    for i in 1..8usize {
        number = select(place == comptime!(i as u32), cells.index(i).read(), number);
    }
    number
}

/// Makes probabilities of products, queries down, and keeps them.
#[cube]
pub(super) fn probabilities_by_row(
    products: &Matrix<f32>,
    logs: &OfRows,
    kept: &Sequence<RuntimeCell<f32>>,
    block: &Block,
    size: &Sizes,
    #[comptime] plan: Plan,
) {
    let scale = size.scale;
    if all_see_all(block, size, plan) {
        cmma::execute_elementwise_op(products, products, |row, column, product| {
            let p = (product * scale - of_row(logs, row)).exp();
            keep(kept, place_of(row, column), p);
            p
        });
    } else {
        let kind = comptime!(plan.kind);
        cmma::execute_elementwise_op(products, products, |row, column, product| {
            let p = (product * scale - of_row(logs, row)).exp();
            let p = select(sees(block, row, column, size, kind), p, 0.0f32);
            keep(kept, place_of(row, column), p);
            p
        });
    }
}

/// The same, keys down.
#[cube]
pub(super) fn probabilities_by_column(
    products: &Matrix<f32>,
    logs: &OfColumns,
    kept: &Sequence<RuntimeCell<f32>>,
    block: &Block,
    size: &Sizes,
    #[comptime] plan: Plan,
) {
    let scale = size.scale;
    if all_see_all(block, size, plan) {
        cmma::execute_elementwise_op(products, products, |row, column, product| {
            let p = (product * scale - of_column(logs, column)).exp();
            keep(kept, place_of(row, column), p);
            p
        });
    } else {
        let kind = comptime!(plan.kind);
        cmma::execute_elementwise_op(products, products, |row, column, product| {
            let p = (product * scale - of_column(logs, column)).exp();
            let p = select(sees(block, column, row, size, kind), p, 0.0f32);
            keep(kept, place_of(row, column), p);
            p
        });
    }
}

/// Makes the gradients of products, `s p (dp - D)`, of those of probabilities, queries down.
#[cube]
pub(super) fn slopes_by_row(
    gradients: &Matrix<f32>,
    deltas: &OfRows,
    kept: &Sequence<RuntimeCell<f32>>,
    scale: f32,
) {
    cmma::execute_elementwise_op(gradients, gradients, |row, column, gradient| {
        let p = recall(kept, place_of(row, column));
        p * scale * (gradient - of_row(deltas, row))
    });
}

/// The same, keys down.
#[cube]
pub(super) fn slopes_by_column(
    gradients: &Matrix<f32>,
    deltas: &OfColumns,
    kept: &Sequence<RuntimeCell<f32>>,
    scale: f32,
) {
    cmma::execute_elementwise_op(gradients, gradients, |row, column, gradient| {
        let p = recall(kept, place_of(row, column));
        p * scale * (gradient - of_column(deltas, column))
    });
}
