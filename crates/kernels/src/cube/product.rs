//! The seam through which every matrix product of the GPU forms goes.

use burn::tensor::DType;
use burn_cubecl::kernel::cast;
use burn_cubecl::tensor::CubeTensor;
#[cfg(feature = "vulkan")]
use burn_std::Metadata;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level::Strategy as MultiLevel;
use cubek::matmul::strategy::Strategy;
use cubek::std::InputBinding;

#[cfg(feature = "vulkan")]
use super::columns::add_up;
use super::columns::{Summands, Window, part_sums};
#[cfg(feature = "vulkan")]
use super::cooperative;
#[cfg(feature = "cuda")]
use super::elementwise::copy;
use super::elementwise::times;
#[cfg(feature = "cuda")]
use super::hopper;
use super::low_rank::{MOST_RANKS, add_low_rank, outer as outer_by_rows};
#[cfg(feature = "vulkan")]
use super::memory::rows;
use super::memory::{contiguous, elem, empty, reshaped, transposed, width};
#[cfg(feature = "vulkan")]
use super::plane_product;
#[cfg(feature = "vulkan")]
use super::thin_product;
use super::tuned::product_by_fastest;
use super::unit_product;

/// `a b` in this dtype, of two matrices or as many of each, or views of them.
///
/// # Shapes
/// - a: `[..., m, k]`, b: `[..., k, n]`, output: `[..., m, n]` without gaps
pub(crate) fn product(a: CubeTensor, b: CubeTensor, dtype: DType) -> CubeTensor {
    let b = cast(b, a.dtype);
    #[cfg(feature = "cuda")]
    {
        if hopper::takes_thin(&a, &b) {
            return hopper::thin(&a, &b, 1.0, dtype);
        }
        if hopper::takes(&a, &b, None, None) {
            if dtype == a.dtype {
                return hopper::product(&a, &b, None, None);
            }
            if dtype == DType::F32 {
                return hopper::unrounded(&a, &b);
            }
        }
    }
    #[cfg(feature = "vulkan")]
    if dtype == a.dtype || dtype == DType::F32 {
        if let Some(chosen) = plane_product::chosen(&a, &b, None) {
            let out = result(&a, &b, dtype);
            by_planes(&chosen, &a, &b, &out);
            return out;
        }
        if let Some(chosen) = cooperative::chosen(&a, &b) {
            let out = result(&a, &b, dtype);
            cooperative::product_into(&chosen, &a, &b, &out);
            return out;
        }
    }
    let out = result(&a, &b, dtype);
    if !unit_product::product_into(&a, &b, &out) {
        by_cubek(&a, &b, &out);
    }
    out
}

/// By the matrices of planes: a long sum of too few tiles for a GPU in parts, which are added up.
#[cfg(feature = "vulkan")]
fn by_planes(chosen: &plane_product::Chosen, a: &CubeTensor, b: &CubeTensor, out: &CubeTensor) {
    let parts = plane_product::parts(a, b).and_then(|count| {
        let [a, b] = [in_parts(a, 1, count), in_parts(b, 0, count)];
        let chosen = plane_product::chosen(&a, &b, None)?;
        let sums = result(&a, &b, DType::F32);
        plane_product::product_into(&chosen, &a, &b, None, &sums);
        Some(sums)
    });
    let Some(sums) = parts else {
        return plane_product::product_into(chosen, a, b, None, out);
    };
    let [count, m, n] = [0, 1, 2].map(|dim| sums.meta.shape()[dim]);
    let summands = Summands {
        parts: reshaped(sums, &[count, m * n]),
        columns: n,
        window: Window {
            from: [0, 0],
            size: [m, n],
        },
    };
    add_up(&[&summands], &[out]);
}

/// A matrix as a batch of so many, next to each other along this dimension.
#[cfg(feature = "vulkan")]
fn in_parts(x: &CubeTensor, dim: usize, count: usize) -> CubeTensor {
    let (mut size, strides) = ([0, 1].map(|dim| x.meta.shape()[dim]), x.meta.strides());
    size[dim] /= count;
    let between = size[dim] * strides[dim];
    let meta = Metadata::new([count, size[0], size[1]], [between, strides[0], strides[1]]);
    CubeTensor {
        meta: Box::new(meta),
        ..x.clone()
    }
}

/// Where `a b` goes.
fn result(a: &CubeTensor, b: &CubeTensor, dtype: DType) -> CubeTensor {
    let mut shape = a.meta.shape().to_vec();
    if let (Some(last), Some(n)) = (shape.last_mut(), b.meta.shape().last()) {
        *last = *n;
    }
    empty(a, &shape, dtype)
}

/// `scale * a b` in this dtype, scaled before it is rounded.
///
/// # Shapes
/// As [`product`].
pub(crate) fn product_times(a: CubeTensor, b: CubeTensor, scale: f32, dtype: DType) -> CubeTensor {
    let b = cast(b, a.dtype);
    #[cfg(feature = "cuda")]
    if hopper::takes_thin(&a, &b) {
        return hopper::thin(&a, &b, scale, dtype);
    }
    #[cfg(feature = "vulkan")]
    if let Some(out) = thin_product::product(&a, &b, scale, dtype) {
        return out;
    }
    match scale == 1.0 {
        true => product(a, b, dtype),
        false => times(product(a, b, DType::F32), scale, dtype),
    }
}

/// `a b`, written to a matrix without gaps.
///
/// # Shapes
/// As [`product`].
pub(crate) fn product_into(a: CubeTensor, b: CubeTensor, out: &CubeTensor) {
    let b = cast(b, a.dtype);
    #[cfg(feature = "cuda")]
    if out.dtype == a.dtype && hopper::takes(&a, &b, None, None) {
        return copy(&hopper::product(&a, &b, None, None), out);
    }
    #[cfg(feature = "vulkan")]
    if out.dtype == a.dtype || out.dtype == DType::F32 {
        if let Some(chosen) = plane_product::chosen(&a, &b, None) {
            return by_planes(&chosen, &a, &b, out);
        }
        if let Some(chosen) = cooperative::chosen(&a, &b) {
            return cooperative::product_into(&chosen, &a, &b, out);
        }
    }
    if !unit_product::product_into(&a, &b, out) {
        by_cubek(&a, &b, out);
    }
}

/// `a b + c d + bias` in the dtype of a, where c and d share a short side; d and the bias may be in another dtype.
///
/// # Shapes
/// - a: `[m, k]`, b: `[k, n]`, or views; c: `[m, rank]` without gaps, d: `[rank, n]`, or a view; bias: `[n]`
/// - output: `[m, n]` without gaps
pub(crate) fn product_plus(
    a: CubeTensor,
    b: CubeTensor,
    more: Option<(CubeTensor, CubeTensor)>,
    bias: Option<CubeTensor>,
) -> CubeTensor {
    #[cfg(feature = "cuda")]
    if hopper::takes(&a, &b, None, None) {
        let narrow = |x: &CubeTensor| cast(x.clone(), a.dtype);
        let (c, d) = (more.as_ref()).map_or((None, None), |(c, d)| (Some(c), Some(narrow(d))));
        let term = c.zip(d.as_ref());
        let bias = bias.as_ref().map(narrow);
        if hopper::takes(&a, &b, term, bias.as_ref()) {
            return hopper::product(&a, &b, term, bias.as_ref());
        }
    }
    let dtype = a.dtype;
    #[cfg(feature = "vulkan")]
    if let Some((c, d)) = &more {
        let d = cast(d.clone(), dtype);
        let term = Some((c, &d));
        if let Some(chosen) = plane_product::chosen(&a, &b, term) {
            let out = result(&a, &b, dtype);
            plane_product::product_into(&chosen, &a, &b, term, &out);
            return add_low_rank(out, None, bias.map(contiguous));
        }
    }
    let more = more.map(|(c, d)| (c, contiguous(d)));
    add_low_rank(product(a, b, dtype), more, bias.map(contiguous))
}

/// Parts of `x^T d`, or of its transpose, where d is narrow.
///
/// # Shapes
/// - x: `[m, c]`, d: `[m, rank]`, without gaps
/// - the product: `[c, rank]`, or `[rank, c]`
pub(crate) struct Outer<'a> {
    pub(crate) x: &'a CubeTensor,
    pub(crate) d: &'a CubeTensor,
    pub(crate) transpose: bool,
    /// What is wanted of the product.
    pub(crate) windows: Vec<Window>,
}

#[cfg(all(test, feature = "flex", feature = "vulkan"))]
impl<'a> Outer<'a> {
    /// All of the product.
    pub(crate) fn whole(x: &'a CubeTensor, d: &'a CubeTensor, transpose: bool) -> Self {
        let mut outer = Self {
            x,
            d,
            transpose,
            windows: Vec::new(),
        };
        let size = outer.shape();
        outer.windows.push(Window { from: [0, 0], size });
        outer
    }
}

impl Outer<'_> {
    fn shape(&self) -> [usize; 2] {
        let (c, rank) = (width(self.x), width(self.d));
        match self.transpose {
            false => [c, rank],
            true => [rank, c],
        }
    }

    /// What is to be added up: `[parts, c * rank]`.
    fn parts(&self) -> CubeTensor {
        let &Self {
            x, d, transpose, ..
        } = self;
        let (left, right) = match transpose {
            false => (transposed(x.clone()), d.clone()),
            true => (transposed(d.clone()), x.clone()),
        };
        let whole = |product: CubeTensor| reshaped(product, &[1, width(x) * width(d)]);
        #[cfg(feature = "cuda")]
        if hopper::takes_thin(&left, &right) {
            return whole(hopper::thin(&left, &right, 1.0, DType::F32));
        }
        #[cfg(feature = "vulkan")]
        if let Some(parts) = thin_product::outer_parts(x, d, transpose) {
            return parts;
        }
        #[cfg(feature = "vulkan")]
        if let Some(parts) = self.parts_by_cubes() {
            return parts;
        }
        whole(match width(d) <= MOST_RANKS {
            true => outer_by_rows(x, d, transpose),
            false => product(left, right, DType::F32),
        })
    }

    /// As a batch of products: one of so few tiles would leave most of a GPU idle.
    #[cfg(feature = "vulkan")]
    fn parts_by_cubes(&self) -> Option<CubeTensor> {
        let &Self {
            x, d, transpose, ..
        } = self;
        let (m, c, rank) = (rows(x), width(x), width(d));
        let parts = [32, 16, 8, 4, 2, 1].into_iter();
        let parts = parts
            .into_iter()
            .find(|parts| m.is_multiple_of(64 * parts))?;
        let in_parts = |x: &CubeTensor| reshaped(x.clone(), &[parts, m / parts, width(x)]);
        let (x, d) = (in_parts(x), in_parts(d));
        let (left, right) = match transpose {
            false => (transposed(x), d),
            true => (transposed(d), x),
        };
        let chosen = cooperative::chosen(&left, &right)?;
        let sums = result(&left, &right, DType::F32);
        cooperative::product_into(&chosen, &left, &right, &sums);
        Some(reshaped(sums, &[parts, c * rank]))
    }
}

/// The windows of these products in `f32`, one product's behind the other's.
pub(crate) fn outers(products: &[Outer]) -> Vec<CubeTensor> {
    let mut all = Vec::new();
    for outer in products {
        let (parts, [_, columns]) = (outer.parts(), outer.shape());
        all.extend(outer.windows.iter().map(|window| Summands {
            parts: parts.clone(),
            columns,
            window: *window,
        }));
    }
    part_sums(&all)
}

/// By one of CubeK's kernels.
fn by_cubek(a: &CubeTensor, b: &CubeTensor, out: &CubeTensor) {
    match on_tensor_cores(a) && is_large(a, b) {
        true => product_by_fastest(a, b, out),
        false => first_that_fits(a, b, out),
    }
}

/// By the first kernel that the device and the layouts allow.
pub(super) fn first_that_fits(a: &CubeTensor, b: &CubeTensor, out: &CubeTensor) {
    let wanted = strategies(a, b);
    let last = wanted.len() - 1;
    for (index, strategy) in wanted.iter().enumerate() {
        match launch(strategy, a, b, out) {
            Ok(()) => return,
            Err(_) if index < last => {}
            // The plain kernel takes everything.
            Err(error) => panic!("no kernel for this product: {error}"),
        }
    }
}

pub(super) fn launch(
    strategy: &Strategy,
    a: &CubeTensor,
    b: &CubeTensor,
    out: &CubeTensor,
) -> Result<(), String> {
    let globals = MatmulGlobalElems {
        lhs: elem(a),
        rhs: elem(b),
        out: elem(out),
    };
    launch_ref(
        strategy,
        &out.client,
        InputBinding::new(a.clone().binding(), elem(a)),
        InputBinding::new(b.clone().binding(), elem(b)),
        out.clone().binding(),
        &mut MatmulElems::from_globals(&globals),
    )
    .map_err(|error| format!("{error:?}"))
}

/// What to try, the best first: a kernel refuses what its device or its layout cannot do.
fn strategies(a: &CubeTensor, b: &CubeTensor) -> Vec<Strategy> {
    let mut wanted: Vec<MultiLevel> = Vec::new();
    if on_tensor_cores(a) {
        if is_large(a, b) {
            wanted.push(MultiLevel::SpecializedTmaMma(Default::default()));
            wanted.push(MultiLevel::DoubleCyclicMma(Default::default()));
            wanted.push(MultiLevel::DoubleCyclicCmma(Default::default()));
        }
        wanted.push(MultiLevel::SimpleCyclicMma(Default::default()));
        wanted.push(MultiLevel::SimpleCyclicCmma(Default::default()));
    }
    // In f32 there are tensor cores only for 10 bits of a number (TF32).
    wanted.push(MultiLevel::DoubleUnit(Default::default()));
    wanted.push(MultiLevel::SimpleUnit(Default::default()));
    wanted.push(MultiLevel::Naive);
    wanted.into_iter().map(Strategy::MultiLevel).collect()
}

/// Whether tensor cores multiply numbers of this type as they are.
fn on_tensor_cores(a: &CubeTensor) -> bool {
    matches!(a.dtype, DType::F16 | DType::BF16)
}

/// Whether two buffers of a tile pay: all sides are long.
pub(super) fn is_large(a: &CubeTensor, b: &CubeTensor) -> bool {
    let last = a.meta.rank() - 1;
    let sides = [
        a.meta.shape()[last - 1],
        a.meta.shape()[last],
        b.meta.shape()[last],
    ];
    sides.iter().all(|side| *side >= 256)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use std::time::Instant;

    use burn::tensor::{DType, Distribution, Tensor};
    use cubek::matmul::multi_level::routines::batch::double_buffering::DoubleBufferingArgs;
    use cubek::matmul::multi_level::routines::batch::ordered_double_buffering::OrderedSelectionArgs;
    use cubek::matmul::multi_level::routines::batch::simple::SimpleArgs;
    use cubek::matmul::routine::BlueprintStrategy::Inferred;
    use cubek::matmul::tiled::Strategy as Tiled;

    use super::*;
    use crate::comparison::{gpus, has};
    use crate::cube::apply::primitive;
    use crate::cube::memory::transposed;

    /// What the choice of strategies rests on: run it with `--ignored --nocapture` on a device of each class.
    #[test]
    #[ignore = "a measurement"]
    #[expect(clippy::print_stdout, reason = "its result")]
    fn speed_of_each_strategy() {
        let double = |specialized| DoubleBufferingArgs {
            specialized,
            ..Default::default()
        };
        let simple = |multi_rows| SimpleArgs {
            multi_rows,
            ..Default::default()
        };
        let ordered = |row_count| OrderedSelectionArgs {
            partition_k: Some(2),
            row_count: Some(row_count),
            rows_per_plane: Some(2),
            ..Default::default()
        };
        let all: Vec<Strategy> = vec![
            MultiLevel::SimpleCyclicCmma(Inferred(simple(false))).into(),
            MultiLevel::SimpleCyclicCmma(Inferred(simple(true))).into(),
            MultiLevel::SimpleCyclicMma(Inferred(simple(true))).into(),
            MultiLevel::SimpleTmaMma(Inferred(simple(true))).into(),
            MultiLevel::DoubleCyclicCmma(Inferred(double(false))).into(),
            MultiLevel::DoubleCyclicCmma(Inferred(double(true))).into(),
            MultiLevel::DoubleCyclicMma(Inferred(double(false))).into(),
            MultiLevel::DoubleTmaMma(Inferred(double(true))).into(),
            MultiLevel::SpecializedTmaMma(Default::default()).into(),
            MultiLevel::SpecializedTmaCmma(Default::default()).into(),
            MultiLevel::OrderedDoubleCmma(Inferred(ordered(8))).into(),
            MultiLevel::OrderedDoubleMma(Inferred(ordered(8))).into(),
            Tiled::Cmma(Default::default()).into(),
            MultiLevel::SimpleUnit(Default::default()).into(),
            MultiLevel::DoubleUnit(Default::default()).into(),
        ];
        // m, k, n, and which side is a transposed view.
        let shapes = [
            (4096, 2048, 2048, ' '),
            (4096, 8192, 2048, 'b'),
            (4096, 2048, 16, ' '),
            (4096, 2048, 16, 'b'),
        ];
        for gpu in gpus() {
            let gpu = gpu.inner();
            for (m, k, n, turned) in shapes {
                let dtype = match has(&gpu, DType::BF16) {
                    true => DType::BF16,
                    false => DType::F16,
                };
                let matrix = |rows: usize, cols: usize, turned: bool| {
                    let shape = if turned { [cols, rows] } else { [rows, cols] };
                    let x = Tensor::<2>::random(shape, Distribution::Default, &gpu).cast(dtype);
                    let x = primitive(x);
                    if turned { transposed(x) } else { x }
                };
                let (a, b) = (matrix(m, k, turned == 'a'), matrix(k, n, turned == 'b'));
                let out = empty(&a, &[m, n], dtype);
                for strategy in &all {
                    let started = Instant::now();
                    let run = |times: usize| -> Result<f64, String> {
                        let started = Instant::now();
                        for _ in 0..times {
                            launch(strategy, &a, &b, &out)?;
                        }
                        gpu.sync().map_err(|error| format!("{error:?}"))?;
                        Ok(started.elapsed().as_secs_f64() / times as f64)
                    };
                    let name = strategy.to_string();
                    let first = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(2)));
                    match first {
                        Ok(Ok(_)) => {
                            let compiled = started.elapsed().as_secs_f64();
                            let seconds = run(20).unwrap_or(f64::NAN);
                            let rate = 2e-12 * (m * k * n) as f64 / seconds;
                            println!(
                                "{m}x{k}x{n}{turned} {name}: {rate:.1} TFLOP/s, {:.3} ms, compiled {compiled:.1} s",
                                seconds * 1e3
                            );
                        }
                        Ok(Err(error)) => {
                            let error: String = error.chars().take(90).collect();
                            println!("{m}x{k}x{n}{turned} {name}: {error}");
                        }
                        Err(_) => println!("{m}x{k}x{n}{turned} {name}: panic"),
                    }
                }
            }
        }
    }
}
