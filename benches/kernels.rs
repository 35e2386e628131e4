//! Every kernel, forward and backward, in our form and in the portable one, at the llama shape of the side-by-side benches.
//!
//! ```text
//! cargo bench --bench kernels
//! ```
//!
//! Tracked is what a LoRA step tracks: activations and adapters, but no weight. A backward starts at the sum of the
//! result, whose gradient is as dense as that of a step; `sum/...` is what that alone takes, at the widths of the model.

use std::hint::black_box;
use std::time::Duration;

use burn::tensor::{Device, Distribution, Int, Tensor};
use burn_lora::kernels::{self, AttentionMask, LowRank, Rope, RopeScaling, portable};
use burn_lora::prelude::DType;
use criterion::{Criterion, SamplingMode};
use serde_json::Value;

const EPS: f64 = 1e-5;

/// The sizes of a step of the llama shape.
struct Sizes {
    batch: usize,
    seq: usize,
    width: usize,
    ff: usize,
    heads: usize,
    vocab: usize,
    rank: usize,
}

impl Sizes {
    fn read() -> Self {
        let shapes: Value =
            serde_json::from_str(include_str!("side_by_side/shapes.json")).expect("JSON");
        let size = |at: &str| {
            let size = shapes["llama"].pointer(at).and_then(Value::as_u64);
            size.expect(at) as usize
        };
        Self {
            batch: size("/batch_size"),
            seq: size("/seq_len"),
            width: size("/config/hidden_size"),
            ff: size("/config/intermediate_size"),
            heads: size("/config/num_attention_heads"),
            vocab: size("/config/vocab_size"),
            rank: size("/rank"),
        }
    }
}

/// Where and by what a form is measured.
struct Bench {
    criterion: Criterion,
    device: Device,
}

impl Bench {
    fn frozen<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &self.device)
    }

    fn tracked<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        self.frozen(shape).require_grad()
    }

    fn form<const D: usize>(&mut self, name: &str, form: &str, operation: impl Fn() -> Tensor<D>) {
        let step = || black_box(operation().sum().backward());
        let mut group = self.criterion.benchmark_group(name);
        group.sampling_mode(SamplingMode::Flat);
        group.bench_function(form, |timer| timer.iter(step));
    }

    fn kernel<const D: usize>(
        &mut self,
        name: &str,
        ours: impl Fn() -> Tensor<D>,
        portable: impl Fn() -> Tensor<D>,
    ) {
        self.form(name, "ours", ours);
        self.form(name, "portable", portable);
    }
}

fn rows(bench: &mut Bench, s: &Sizes) {
    let tokens = s.batch * s.seq;
    let x = bench.tracked([tokens, s.width]);
    let (weight, bias) = (bench.frozen([s.width]), bench.frozen([s.width]));
    let (gate, up) = (bench.tracked([tokens, s.ff]), bench.tracked([tokens, s.ff]));

    bench.form("sum", "width", || x.clone());
    bench.form("sum", "ff", || gate.clone());
    bench.kernel(
        "rms_norm",
        || kernels::rms_norm(x.clone(), weight.clone(), EPS),
        || portable::rms_norm(x.clone(), weight.clone(), EPS),
    );
    bench.kernel(
        "layer_norm",
        || kernels::layer_norm(x.clone(), weight.clone(), bias.clone(), EPS),
        || portable::layer_norm(x.clone(), weight.clone(), bias.clone(), EPS),
    );
    bench.kernel(
        "silu_mul",
        || kernels::silu_mul(gate.clone(), up.clone()),
        || portable::silu_mul(gate.clone(), up.clone()),
    );
    bench.kernel(
        "gelu",
        || kernels::gelu(up.clone()),
        || portable::gelu(up.clone()),
    );
    bench.kernel(
        "gelu_tanh",
        || kernels::gelu_tanh(up.clone()),
        || portable::gelu_tanh(up.clone()),
    );
}

fn heads(bench: &mut Bench, s: &Sizes) {
    let d = s.width / s.heads;
    // As the projections leave them; attention sees them with heads and tokens exchanged.
    let [q, k, v] = [(); 3].map(|()| bench.tracked([s.batch, s.seq, s.heads, d]));
    let swapped = || [&q, &k, &v].map(|x| x.clone().swap_dims(1, 2));

    let positions: Vec<usize> = (0..s.seq).collect();
    let rope = Rope::new(d, 10_000.0, RopeScaling::None);
    let tables = rope.tables(&positions, 1, DType::F32, &bench.device);
    // The crate keeps its portable form to itself: the same operations, with any angles.
    let halves = [s.batch, s.seq, s.heads, 2, d / 2];
    let [cos, sin] = [(); 2].map(|()| bench.frozen([1, s.seq, 1, 2, d / 2]));
    bench.kernel(
        "rotation",
        || tables.apply(q.clone()),
        || {
            let x = q.clone().reshape(halves);
            let y = x.clone() * cos.clone() + x.flip([3]) * sin.clone();
            y.reshape(q.dims())
        },
    );

    let mask = AttentionMask::causal(s.seq, 0, &bench.device);
    bench.kernel(
        "attention",
        || {
            let [q, k, v] = swapped();
            kernels::attention(q, k, v, &mask)
        },
        || {
            let [q, k, v] = swapped();
            portable::attention(q, k, v, &mask)
        },
    );
}

fn products(bench: &mut Bench, s: &Sizes) {
    let tokens = s.batch * s.seq;
    let x = bench.tracked([tokens, s.width]);
    let weight = bench.frozen([s.width, s.width]);
    let low_rank = LowRank {
        a: bench.tracked([s.width, s.rank]),
        b: bench.tracked([s.rank, s.width]),
        scale: 2.0,
    };
    for (name, low_rank) in [
        ("projection_frozen", None),
        ("projection_adapted", Some(low_rank)),
    ] {
        bench.kernel(
            name,
            || kernels::projection(x.clone(), weight.clone(), None, low_rank.clone()),
            || portable::projection(x.clone(), weight.clone(), None, low_rank.clone()),
        );
    }

    let head = bench.frozen([s.width, s.vocab]);
    let targets = Tensor::<1, Int>::arange(0..tokens as i64, &bench.device);
    let weights = Tensor::ones([tokens], &bench.device);
    bench.kernel(
        "linear_cross_entropy",
        || {
            let (head, targets, weights) = (head.clone(), targets.clone(), weights.clone());
            kernels::linear_cross_entropy(x.clone(), head, targets, weights)
        },
        || {
            let (head, targets, weights) = (head.clone(), targets.clone(), weights.clone());
            portable::linear_cross_entropy(x.clone(), head, targets, weights)
        },
    );
}

fn main() {
    let criterion = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let device = Device::flex().autodiff();
    let (mut bench, sizes) = (Bench { criterion, device }, Sizes::read());
    for part in [rows, heads, products] {
        part(&mut bench, &sizes);
    }
    bench.criterion.final_summary();
}
