//! Large products by the fastest of a few of CubeK's kernels: measured at the first product of a class of shapes, types and
//! layouts, and remembered on disk by CubeCL, beside its compiled kernels.

use burn_cubecl::CubeTuneId;
use burn_cubecl::tensor::CubeTensor;
use cubecl::tune::{LocalTuner, Tunable, TunableSet, local_tuner};
use cubek::matmul::multi_level::Strategy as MultiLevel;
use cubek::matmul::multi_level::routines::batch::double_buffering::DoubleBufferingArgs;
use cubek::matmul::multi_level::routines::batch::ordered_double_buffering::OrderedSelectionArgs;
use cubek::matmul::multi_level::routines::batch::simple::SimpleArgs;
use cubek::matmul::routine::BlueprintStrategy::Inferred;
use cubek::matmul::strategy::Strategy;
use cubek::matmul::tune_key::MatmulAutotuneKey;

use super::memory::elem;
use super::product::{first_that_fits, launch};

/// Left, right, and where the product goes.
type Operands = (CubeTensor, CubeTensor, CubeTensor);

static TUNER: LocalTuner<MatmulAutotuneKey, CubeTuneId> = local_tuner!("products");

/// What is measured, of kernels on tensor cores: few, since each is compiled for every class.
fn candidates() -> Vec<MultiLevel> {
    let multi_rows = || SimpleArgs {
        multi_rows: true,
        ..Default::default()
    };
    let ordered = || OrderedSelectionArgs {
        partition_k: Some(2),
        row_count: Some(8),
        rows_per_plane: Some(2),
        ..Default::default()
    };
    vec![
        MultiLevel::SimpleCyclicCmma(Inferred(multi_rows())),
        MultiLevel::DoubleCyclicCmma(Inferred(DoubleBufferingArgs::default())),
        MultiLevel::OrderedDoubleCmma(Inferred(ordered())),
        // Where the device has the instructions; elsewhere refused before anything is compiled.
        MultiLevel::SpecializedTmaMma(Default::default()),
        MultiLevel::OrderedDoubleMma(Inferred(ordered())),
    ]
}

/// `a b`, written to `out`.
///
/// # Shapes
/// - a: `[..., m, k]`, b: `[..., k, n]`, or views; out: `[..., m, n]` without gaps
pub(super) fn product_by_fastest(a: &CubeTensor, b: &CubeTensor, out: &CubeTensor) {
    let id = CubeTuneId::new(&a.client, &a.device);
    let set = TUNER.init(&id, || {
        let mut set: TunableSet<MatmulAutotuneKey, Operands, ()> = TunableSet::new(key, to_measure);
        // The first must take everything.
        set = set.with(Tunable::new("first that fits", |(a, b, out)| {
            first_that_fits(&a, &b, &out);
            Ok::<(), String>(())
        }));
        for strategy in candidates().into_iter().map(Strategy::MultiLevel) {
            let name = strategy.to_string();
            set = set.with(Tunable::new(&name, move |(a, b, out)| {
                launch(&strategy, &a, &b, &out)
            }));
        }
        set
    });
    TUNER.execute(&id, &a.client, set, (a.clone(), b.clone(), out.clone()));
}

/// What is measured writes to a copy.
fn to_measure(_: &MatmulAutotuneKey, (a, b, out): &Operands) -> Operands {
    (a.clone(), b.clone(), out.copy())
}

fn key((a, b, out): &Operands) -> MatmulAutotuneKey {
    MatmulAutotuneKey::generate(
        &a.client,
        a.meta.shape(),
        b.meta.shape(),
        a.meta.strides(),
        b.meta.strides(),
        a.meta.tiling,
        b.meta.tiling,
        elem(a),
        elem(b),
        elem(out),
        None,
        None,
    )
}
