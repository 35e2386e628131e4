//! One adapted projection, forward and backward, on the CPU: by activations, by the composed weight, and by Burn's own
//! `apply_lora`, which composes too. The three take turns, so that a drift of the machine meets them all; what is printed
//! is the median of the rounds and its ratio to the first.
//!
//! ```text
//! cargo bench --bench projection
//! ```
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use burn::module::{Lora, Module};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Distribution, Tensor};
use burn_lora::prelude::*;

/// Rows, input width and output width of the products in a small decoder, and the rank.
const SHAPES: [[usize; 4]; 3] = [
    [1024, 384, 384, 8],
    [1024, 384, 1536, 8],
    [512, 768, 2304, 8],
];
const ROUNDS: usize = 31;

type Forward = fn(&Linear, Tensor<2>) -> Tensor<2>;

/// Seconds of a forward and a backward pass. The input is tracked, as inside a network.
fn step(layer: &Linear, x: &Tensor<2>, forward: Forward) -> f64 {
    let started = Instant::now();
    let loss = forward(layer, x.clone().require_grad()).sum();
    black_box(loss.backward());
    started.elapsed().as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let device = Device::flex().autodiff();
    println!("rows x in x out, rank      path               ms     ratio");
    for [rows, d_in, d_out, rank] in SHAPES {
        let x = Tensor::<2>::random([rows, d_in], Distribution::Normal(0.0, 1.0), &device);
        let layer = LinearConfig::new(d_in, d_out)
            .with_bias(false)
            .init(&device);
        let alpha = 2.0 * rank as f64;
        let burn = layer.clone().apply_lora(Lora::new(rank, alpha));
        let ours = attach(layer, DEFAULT_NAME, &LoraConfig::new(rank, alpha)).expect("fits");
        let paths: [(&str, &Linear, Forward); 3] = [
            ("activations", &ours, project),
            ("composed", &ours, Linear::forward),
            ("Burn apply_lora", &burn, Linear::forward),
        ];
        let mut times = paths.map(|_| Vec::with_capacity(ROUNDS));
        for round in 0..=ROUNDS {
            for (times, (_, layer, forward)) in times.iter_mut().zip(paths) {
                let seconds = step(layer, &x, forward);
                // The first round warms the caches up.
                if round > 0 {
                    times.push(seconds);
                }
            }
        }
        let medians = times.map(median);
        for ((name, ..), seconds) in paths.iter().zip(medians) {
            let (shape, ratio) = (
                format!("{rows} x {d_in} x {d_out}, {rank}"),
                seconds / medians[0],
            );
            println!("{shape:24}  {name:16} {:8.3}  {ratio:8.2}", seconds * 1e3);
        }
    }
}
