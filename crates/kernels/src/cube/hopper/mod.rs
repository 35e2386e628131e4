//! Matrix products on NVIDIA's Hopper by its own instructions, written in CubeCL with inline PTX.
//!
//! The copy engine (TMA) brings tiles to shared memory, warpgroups multiply them from there (`wgmma`), and what is loaded
//! is some stages ahead of what is multiplied. Sums are `f32`. Each side may be stored row after row or column after
//! column: a transposed view costs nothing.

mod extent;
mod kernel;
mod launch;
mod plan;
mod ptx;
mod results;
mod ring;
#[cfg(all(test, feature = "flex"))]
mod tests;

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;

pub(super) use launch::is_hopper;
use launch::{MOST_COLUMNS, Side, pairs, run_thin, run_unrounded, run_wide};

#[cfg(test)]
thread_local! {
    /// The products that this thread launched, by the copy engine's stores and by plain ones: tests see who computed.
    static LAUNCHED: std::cell::Cell<[usize; 2]> = const { std::cell::Cell::new([0; 2]) };
}

#[cfg(test)]
fn count_launch(kind: usize) {
    let mut all = LAUNCHED.get();
    all[kind] += 1;
    LAUNCHED.set(all);
}

/// A second product that is added to the first.
pub(crate) type Term<'a> = (&'a CubeTensor, &'a CubeTensor);

/// Whether [`product`] computes it: on Hopper, all operands matrices of one 16-bit dtype whose rows (in memory) start at
/// multiples of 16 bytes, a multiple of 8 columns in the result, and the sides of the second term stored as those of the
/// first.
pub(crate) fn takes(
    a: &CubeTensor,
    b: &CubeTensor,
    more: Option<Term<'_>>,
    bias: Option<&CubeTensor>,
) -> bool {
    let Some((left, right)) = sides(a, b) else {
        return false;
    };
    let ([m, _], [_, n]) = (pairs(a).0, pairs(b).0);
    let more_fits = more.is_none_or(|(c, d)| {
        let stored_alike = sides(c, d).is_some_and(|(more_left, more_right)| {
            more_left.transposed == left.transposed && more_right.transposed == right.transposed
        });
        stored_alike && c.dtype == a.dtype && pairs(c).0[0] == m && pairs(d).0[1] == n
    });
    let bias_fits = bias.is_none_or(|bias| {
        let aligned = bias.handle.offset_start.unwrap_or(0).is_multiple_of(4);
        aligned && bias.dtype == a.dtype && bias.is_contiguous() && bias.meta.num_elements() == n
    });
    n.is_multiple_of(8) && more_fits && bias_fits
}

/// `a b [+ c d] [+ bias]` in the dtype of the operands, summed in `f32`. The second term, of a low rank, costs next to
/// nothing: its ranks are summed with the first term's.
///
/// # Shapes
/// - a: `[m, k]`, b: `[k, n]`, c: `[m, rank]`, d: `[rank, n]`, or views of matrices stored the other way round
/// - bias: `[n]`
/// - output: `[m, n]`
///
/// # Panics
/// Where [`takes`] is false.
pub(crate) fn product(
    a: &CubeTensor,
    b: &CubeTensor,
    more: Option<Term<'_>>,
    bias: Option<&CubeTensor>,
) -> CubeTensor {
    let (left, right) = sides(a, b).expect("a product that it takes");
    let more = more.map(|(c, d)| sides(c, d).expect("a second term that it takes"));
    let more = more.as_ref().map(|(left, right)| (left, right));
    run_wide(&left, &right, more, bias)
}

/// `a b` in `f32`, of operands that [`takes`] knows: the sums as they are.
///
/// # Shapes
/// As [`product`].
///
/// # Panics
/// Where [`takes`] is false.
pub(crate) fn unrounded(a: &CubeTensor, b: &CubeTensor) -> CubeTensor {
    let (left, right) = sides(a, b).expect("a product that it takes");
    run_unrounded(&left, &right)
}

/// Whether [`thin`] computes it: as [`takes`], but for any number of columns, at most 128 of them or at most 64 rows.
pub(crate) fn takes_thin(a: &CubeTensor, b: &CubeTensor) -> bool {
    sides(a, b).is_some() && (pairs(b).0[1] <= MOST_COLUMNS || pairs(a).0[0] <= 64)
}

/// `scale * a b` in this dtype (`f32`, `f16` or `bf16`), of few columns or rows, as fast as the wide operand is read.
///
/// # Shapes
/// - a: `[m, k]`, b: `[k, n]`, or views of matrices stored the other way round
/// - output: `[m, n]`
///
/// # Panics
/// Where [`takes_thin`] is false.
pub(crate) fn thin(a: &CubeTensor, b: &CubeTensor, scale: f32, dtype: DType) -> CubeTensor {
    let (left, right) = sides(a, b).expect("a product that it takes");
    run_thin(&left, &right, scale, dtype)
}

/// The sides of a product, if they are ones that the kernels read.
fn sides<'a>(a: &'a CubeTensor, b: &'a CubeTensor) -> Option<(Side<'a>, Side<'a>)> {
    let (left, right) = (Side::of(a)?, Side::of(b)?);
    let fits = is_hopper(a) && a.dtype == b.dtype && pairs(a).0[1] == pairs(b).0[0];
    fits.then_some((left, right))
}
