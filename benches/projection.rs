//! One adapted projection, forward and backward, on the CPU: by activations, by the composed weight, and by Burn's own
//! `apply_lora`, which composes too.
//!
//! ```text
//! cargo bench --bench projection
//! ```

use burn::module::{Lora, Module};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Distribution, Tensor};
use burn_lora::prelude::*;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// Rows, input width and output width of the products in a small decoder, and the rank.
const SHAPES: [[usize; 4]; 2] = [[1024, 384, 384, 8], [1024, 384, 1536, 8]];

/// A loss of the output and its gradients. The input is tracked, as inside a network.
fn step(layer: &Linear, x: &Tensor<2>, forward: impl Fn(&Linear, Tensor<2>) -> Tensor<2>) {
    let loss = forward(layer, x.clone().require_grad()).sum();
    std::hint::black_box(loss.backward());
}

fn projection(criterion: &mut Criterion) {
    let device = Device::flex().autodiff();
    let mut group = criterion.benchmark_group("projection");
    for [rows, d_in, d_out, rank] in SHAPES {
        let x = Tensor::<2>::random([rows, d_in], Distribution::Normal(0.0, 1.0), &device);
        let layer = LinearConfig::new(d_in, d_out)
            .with_bias(false)
            .init(&device);
        let alpha = 2.0 * rank as f64;
        let burn = layer.clone().apply_lora(Lora::new(rank, alpha));
        let ours = attach(layer, DEFAULT_NAME, &LoraConfig::new(rank, alpha)).expect("fits");
        let shape = format!("{rows}x{d_in}x{d_out} r={rank}");
        let mut measure = |name, layer: &Linear, forward: fn(&Linear, Tensor<2>) -> Tensor<2>| {
            group.bench_function(BenchmarkId::new(name, &shape), |bencher| {
                bencher.iter(|| step(layer, &x, forward));
            });
        };
        measure("activations", &ours, project);
        measure("composed", &ours, Linear::forward);
        measure("burn apply_lora", &burn, Linear::forward);
    }
    group.finish();
}

criterion_group!(benches, projection);
criterion_main!(benches);
