//! The seam through which every matrix product of the GPU forms goes.

use burn::tensor::DType;
use burn_cubecl::kernel::cast;
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level::Strategy as MultiLevel;
use cubek::matmul::strategy::Strategy;
use cubek::std::InputBinding;

use super::memory::{elem, empty};

/// `a b` in this dtype, of two matrices or as many of each, or views of them.
///
/// # Shapes
/// - a: `[..., m, k]`, b: `[..., k, n]`, output: `[..., m, n]` without gaps
pub(crate) fn product(a: CubeTensor, b: CubeTensor, dtype: DType) -> CubeTensor {
    let mut shape = a.meta.shape().to_vec();
    if let (Some(last), Some(n)) = (shape.last_mut(), b.meta.shape().last()) {
        *last = *n;
    }
    let out = empty(&a, &shape, dtype);
    product_into(a, b, out.clone());
    out
}

/// `a b`, written to a matrix without gaps.
///
/// # Shapes
/// As [`product`].
pub(crate) fn product_into(a: CubeTensor, b: CubeTensor, out: CubeTensor) {
    let b = cast(b, a.dtype);
    let wanted = strategies(&a, &b);
    let last = wanted.len() - 1;
    for (index, strategy) in wanted.into_iter().enumerate() {
        match launch(&strategy, &a, &b, &out) {
            Ok(()) => return,
            Err(_) if index < last => {}
            // The plain kernel takes everything.
            Err(error) => panic!("no kernel for this product: {error}"),
        }
    }
}

fn launch(
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
    let tensor_cores = |a: &CubeTensor| matches!(a.dtype, DType::F16 | DType::BF16);
    let mut wanted: Vec<MultiLevel> = Vec::new();
    if tensor_cores(a) {
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

/// Whether two buffers of a tile pay: all sides are long.
fn is_large(a: &CubeTensor, b: &CubeTensor) -> bool {
    let last = a.meta.rank() - 1;
    let sides = [
        a.meta.shape()[last - 1],
        a.meta.shape()[last],
        b.meta.shape()[last],
    ];
    sides.iter().all(|side| *side >= 256)
}
