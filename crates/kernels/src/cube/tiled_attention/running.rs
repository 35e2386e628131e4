//! The forward's softmax where a plane's units hold its scores (see [`direct`](super::direct)).

use cubecl::cmma::{self, Matrix};
use cubecl::prelude::*;

use super::direct::{Block, OfRows, all_see_all, of_row, sees};
use super::forward::{NOTHING, SLACK};
use super::seen::{INFINITE, Sizes};
use super::tile::{Place, Plan};

/// Numbers of a unit's two rows of a strip, which functions of a matrix's numbers may change.
#[derive(CubeType)]
struct Pair {
    low: RuntimeCell<f32>,
    high: RuntimeCell<f32>,
}

#[cube]
fn pair(number: f32) -> Pair {
    Pair {
        low: RuntimeCell::<f32>::new(number),
        high: RuntimeCell::<f32>::new(number),
    }
}

#[cube]
fn read(pair: &Pair) -> OfRows {
    OfRows {
        low: pair.low.read(),
        high: pair.high.read(),
    }
}

#[cube]
fn store(pair: &Pair, numbers: &OfRows) {
    pair.low.store(numbers.low);
    pair.high.store(numbers.high);
}

#[cube]
fn raise(pair: &Pair, row: u32, number: f32) {
    let (low, high) = (pair.low.read(), pair.high.read());
    pair.low.store(select(row < 8u32, max(low, number), low));
    pair.high.store(select(row < 8u32, high, max(high, number)));
}

#[cube]
fn add(pair: &Pair, row: u32, number: f32) {
    let (low, high) = (pair.low.read(), pair.high.read());
    pair.low.store(select(row < 8u32, low + number, low));
    pair.high.store(select(row < 8u32, high, high + number));
}

/// Of the scores of a strip so far, for a unit's two rows: what their exponentials are relative to, which is the row's, and the
/// sum of this unit's.
#[derive(CubeType)]
pub(super) struct Running {
    top: Pair,
    sum: Pair,
}

#[cube]
pub(super) fn nothing_yet(#[comptime] plan: Plan) -> Sequence<Running> {
    let mut strips = Sequence::<Running>::new();
    #[unroll]
    for _ in 0..comptime!(plan.strips) {
        strips.push(Running {
            top: pair(comptime!(NOTHING).runtime()),
            sum: pair(0.0f32),
        });
    }
    strips
}

/// The largest number, or the sum, of the four units that hold a row.
#[cube]
fn largest_of_row(number: f32) -> f32 {
    let number = max(number, plane_shuffle_xor(number, 1u32));
    max(number, plane_shuffle_xor(number, 2u32))
}

#[cube]
fn sum_of_row(number: f32) -> f32 {
    let number = number + plane_shuffle_xor(number, 1u32);
    number + plane_shuffle_xor(number, 2u32)
}

/// Makes exponentials of a strip's products. Where a score exceeds by far what the exponentials were relative to, the strip's
/// results so far are scaled.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn exponentials(
    products: &Matrix<f32>,
    running: &Running,
    results: &Sequence<Matrix<f32>>,
    has_results: bool,
    block: &Block,
    size: &Sizes,
    #[comptime] strip: usize,
    #[comptime] plan: Plan,
) {
    let largest = pair(comptime!(NOTHING).runtime());
    scores(products, &largest, block, size, plan);
    let (largest, tops) = (read(&largest), read(&running.top));
    let slack = comptime!(SLACK);
    // Rarely more than once.
    if plane_any(largest.low > tops.low + slack || largest.high > tops.high + slack) {
        let larger = OfRows {
            low: max(tops.low, largest_of_row(largest.low)),
            high: max(tops.high, largest_of_row(largest.high)),
        };
        let factors = OfRows {
            low: (tops.low - larger.low).exp(),
            high: (tops.high - larger.high).exp(),
        };
        let sums = read(&running.sum);
        store(&running.top, &larger);
        store(
            &running.sum,
            &OfRows {
                low: sums.low * factors.low,
                high: sums.high * factors.high,
            },
        );
        if has_results {
            #[unroll]
            for j in 0..comptime!(plan.depth()) {
                let result = results.index(comptime!(strip * plan.depth() + j));
                cmma::execute_elementwise_op(result, result, |row, _column, number| {
                    number * of_row(&factors, row)
                });
            }
        }
    }
    let tops = read(&running.top);
    let sum = &running.sum;
    cmma::execute_elementwise_op(products, products, |row, _column, score| {
        let p = (score - of_row(&tops, row)).exp();
        add(sum, row, p);
        p
    });
}

/// Makes scores of products, and keeps the largest of each row.
#[cube]
fn scores(
    products: &Matrix<f32>,
    largest: &Pair,
    block: &Block,
    size: &Sizes,
    #[comptime] plan: Plan,
) {
    let scale = size.scale;
    if all_see_all(block, size, plan) {
        cmma::execute_elementwise_op(products, products, |row, _column, product| {
            let score = product * scale;
            raise(largest, row, score);
            score
        });
    } else {
        let kind = comptime!(plan.kind);
        cmma::execute_elementwise_op(products, products, |row, column, product| {
            let unseen = comptime!(-INFINITE).runtime();
            let score = select(
                sees(block, row, column, size, kind),
                product * scale,
                unseen,
            );
            raise(largest, row, score);
            score
        });
    }
}

/// What a unit's own row of a strip is relative to, and its sum.
#[derive(CubeType, Clone, Copy)]
pub(super) struct OfOwnRow {
    pub(super) top: f32,
    pub(super) sum: f32,
}

#[cube]
pub(super) fn of_own_row(running: &Running, place: &Place) -> OfOwnRow {
    let (top, sum) = (read(&running.top), read(&running.sum));
    let (low, high) = (sum_of_row(sum.low), sum_of_row(sum.high));
    let from = place.own_row % 8 * 4;
    let is_low = place.own_row < 8;
    OfOwnRow {
        top: select(
            is_low,
            plane_shuffle(top.low, from),
            plane_shuffle(top.high, from),
        ),
        sum: select(is_low, plane_shuffle(low, from), plane_shuffle(high, from)),
    }
}
