//! LoRA on a module of your own.
//!
//! The module below knows nothing of adapters. It is trained for one function, then frozen and adapted to another: first
//! as it is, through Burn's own `Linear::forward`, then with the one change that takes the activation path.
//!
//! ```text
//! cargo run --release --example own_module
//! ```

#![allow(clippy::print_stdout)]

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Tensor, activation::relu};
use burn_lora::prelude::*;

#[derive(Module, Debug)]
struct Regressor {
    input: Linear,
    hidden: Linear,
    output: Linear,
}

impl Regressor {
    fn new(device: &Device) -> Self {
        Self {
            input: LinearConfig::new(1, 32).init(device),
            hidden: LinearConfig::new(32, 32).init(device),
            output: LinearConfig::new(32, 1).init(device),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = relu(self.input.forward(x)); // [n, 32]
        let x = relu(self.hidden.forward(x)); // [n, 32]
        self.output.forward(x) // [n, 1]
    }

    /// The same with [`project`]: no dense delta in the forward pass, no weight-shaped gradient in the backward pass.
    fn forward_by_activations(&self, x: Tensor<2>) -> Tensor<2> {
        let x = relu(project(&self.input, x)); // [n, 32]
        let x = relu(project(&self.hidden, x)); // [n, 32]
        project(&self.output, x) // [n, 1]
    }
}

/// Fits a model to a function of the points, and returns it with its last loss.
fn fit(
    mut model: Regressor,
    forward: impl Fn(&Regressor, Tensor<2>) -> Tensor<2>,
    x: &Tensor<2>,
    y: &Tensor<2>,
) -> (Regressor, f32) {
    let mut optimizer = AdamWConfig::new().init();
    let mut last = f32::INFINITY;
    for _ in 0..400 {
        let loss = (forward(&model, x.clone()) - y.clone()).square().mean();
        last = loss.clone().into_scalar();
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(1e-2, model, grads);
    }
    (model, last)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = DeviceChoice::resolve(None)?.open()?;
    device.seed(1);
    let device = device.autodiff();
    let x = Tensor::<1>::from_floats(
        std::array::from_fn::<f32, 64, _>(|i| i as f32 / 16.0 - 2.0).as_slice(),
        &device,
    )
    .reshape([64, 1]);
    let (sine, cosine) = (x.clone().sin(), x.clone().cos());

    let (base, loss) = fit(Regressor::new(&device), Regressor::forward, &x, &sine);
    println!("the base learned the sine, loss {loss:.5}");

    // Rank 1 for the two layers with a side of 1, rank 4 for the one between them.
    let mut config = LoraConfig::new(1, 2.0).with_targets(Targets::AllLinear);
    config.rank_pattern = vec![("hidden".to_string(), 4)];
    config.alpha_pattern = vec![("hidden".to_string(), 8.0)];
    let adapted = attach(base.clone(), "cosine", &config)?;
    println!("{}", summary(&adapted));

    let (composed, loss) = fit(adapted.clone(), Regressor::forward, &x, &cosine);
    println!("the adapter learned the cosine through Burn's own layers, loss {loss:.5}");
    let (projected, loss) = fit(adapted, Regressor::forward_by_activations, &x, &cosine);
    println!("and by activations, loss {loss:.5}");

    let distance =
        |left: Tensor<2>, right: Tensor<2>| (left - right).abs().max().into_scalar::<f32>();
    let expected = composed.forward(x.clone());
    let apart = distance(expected, projected.forward(x.clone()));
    println!("the two adapters compute the same up to {apart:.1e}");
    let off = set_enabled(projected.clone(), false)?;
    let apart = distance(off.forward(x.clone()), base.forward(x.clone()));
    println!("switched off, the model is its base: difference {apart:.1e}");
    let expected = projected.forward(x.clone());
    let merged = merge_and_unload(projected)?;
    let apart = distance(expected, merged.forward(x));
    println!("merged into plain weights: difference {apart:.1e}");
    Ok(())
}
