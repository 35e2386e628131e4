//! Steps and products against the clock.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Int, Tensor};
use burn_lora::adapter::ParameterSummary;
use burn_lora::kernels::adamw_together;
use burn_lora::prelude::*;
use burn_lora::train::{CausalLm, LossScale, Pages, optimizer, scaled_gradients};
use burn_lora::transformer::{DecoderConfig, EncoderBatch, EncoderConfig, SequenceClassifier};
use serde_json::{Value, json};

use crate::memory::{Memory, reset_peak};
use crate::pools::Watch;
use crate::shape::Shape;
use crate::{Method, Options};

const LEARNING_RATE: f64 = 1e-4;
const SEED: u64 = 7;

/// Rows, inner and columns of the product, and how often it is run.
const PRODUCT: usize = 2048;
const PRODUCT_ROUNDS: usize = 20;

/// Median step, throughput and memory of one shape.
pub(crate) fn steps(
    shape: &Shape,
    options: &Options,
    device: &Device,
) -> Result<Value, Box<dyn Error>> {
    let (method, steps) = (options.method, options.steps);
    if steps == 0 {
        return Err("there is no step to measure".into());
    }
    let start_rss_bytes = Memory::Now.bytes();
    let (parameters, run) = match shape.is_encoder() {
        true => encoder(shape, options, device)?,
        false => decoder(shape, options, device)?,
    };
    let mut settled = run.step_ms[steps / 2..].to_vec();
    settled.sort_by(f64::total_cmp);
    let [low, high] = [(settled.len() - 1) / 2, settled.len() / 2];
    let median_ms = (settled[low] + settled[high]) / 2.0;
    Ok(json!({
        "method": method.name(),
        "recompute": options.recompute,
        "steps": steps,
        "median_ms": median_ms,
        "step_ms": run.step_ms,
        "tokens_per_second": shape.tokens() as f64 / (median_ms / 1e3),
        "start_rss_bytes": start_rss_bytes,
        "loaded_rss_bytes": run.loaded_rss_bytes,
        "step_peak_bytes": run.step_peak_bytes,
        "peak_rss_bytes": run.build_peak_bytes.max(run.step_peak_bytes),
        "trainable_params": parameters.trainable,
        "total_params": parameters.total,
        "first_loss": run.losses.first(),
        "last_loss": run.losses.last(),
        "losses": run.losses,
        "pools": run.pools,
    }))
}

/// The recipe's step: the adapters alone are shown to the optimizer, or all of the model.
fn decoder(
    shape: &Shape,
    options: &Options,
    device: &Device,
) -> Result<(ParameterSummary, Run), Box<dyn Error>> {
    let base = match &options.prepared {
        Some(folder) => {
            let load = LoadOptions::new(options.dtype.into(), device.clone());
            Decoder::load(&folder.join("model"), &load)?
        }
        None => {
            let config = DecoderConfig::from_json(&shape.config.to_string())?;
            Decoder::init(config, device, SEED)?
        }
    };
    let base = base.with_recompute(options.recompute);
    match options.method {
        Method::Lora => {
            let model = match &options.prepared {
                Some(folder) => peft::load(base, DEFAULT_NAME, &folder.join("adapter"))?.0,
                None => attach(base, DEFAULT_NAME, &shape.lora)?,
            };
            let parameters = summary(&model);
            let run = decoder_steps(shape, options, AdapterOnly::new(model))?;
            Ok((parameters, run))
        }
        Method::Full => {
            let model = base.set_require_grad(true);
            let parameters = summary(&model);
            Ok((parameters, decoder_steps(shape, options, model)?))
        }
    }
}

fn decoder_steps<M: CausalLm>(
    shape: &Shape,
    options: &Options,
    model: M,
) -> Result<Run, Box<dyn Error>> {
    let model = model.train();
    let device = model.devices().remove(0);
    let batches = match &options.prepared {
        Some(folder) => shape.prepared_batches(&folder.join("ids.bin"))?,
        None => vec![shape.batch()?],
    };
    let batches: Vec<_> = batches
        .iter()
        .map(|batch| batch.to_device(&device))
        .collect();
    let mut next = batches.chunks(1).cycle();
    let scale = LossScale::new();
    Ok(run(model, options, &device, |model| {
        let batches = next.next().expect("there is a batch");
        let (grads, loss) = scaled_gradients(model, batches, &scale);
        (scale.unscale(model, grads).unwrap_or_default(), loss)
    }))
}

/// Classification, with the head trained beside the adapters.
fn encoder(
    shape: &Shape,
    options: &Options,
    device: &Device,
) -> Result<(ParameterSummary, Run), Box<dyn Error>> {
    let config = EncoderConfig::from_json(&shape.config.to_string())?;
    let base = SequenceClassifier::init(config, device, SEED)?.with_recompute(options.recompute);
    let model = match options.method {
        Method::Lora => {
            let mut model = attach(base, DEFAULT_NAME, &shape.lora)?;
            model.head.output = model.head.output.set_require_grad(true);
            model
        }
        Method::Full => base.set_require_grad(true),
    };
    let parameters = summary(&model);

    let model = model.train();
    let device = model.devices().remove(0);
    let batch = shape.batch()?.to_device(&device);
    let labels = Tensor::<1, Int>::from_data(shape.labels()?.as_slice(), &device);
    let cross_entropy = CrossEntropyLossConfig::new().init(&device);
    let rows = EncoderBatch::new(batch.ids, batch.lengths);
    let run = run(model, options, &device, |model| {
        let logits = model.forward(&rows); // [batch, labels]
        let loss = cross_entropy.forward(logits, labels.clone());
        let grads = GradientsParams::from_grads(loss.backward(), model);
        (grads, loss.inner())
    });
    Ok((parameters, run))
}

/// What the steps took.
struct Run {
    step_ms: Vec<f64>,
    losses: Vec<f32>,
    /// Before the first step, with the model, its adapters and the batch in memory.
    loaded_rss_bytes: Option<u64>,
    build_peak_bytes: Option<u64>,
    step_peak_bytes: Option<u64>,
    /// What the device's allocator says.
    pools: Option<Value>,
}

/// Runs steps against the clock.
fn run<M: Module>(
    mut model: M,
    options: &Options,
    device: &Device,
    mut gradients: impl FnMut(&M) -> (GradientsParams, Tensor<1>),
) -> Run {
    let steps = options.steps;
    let config = TrainConfig {
        learning_rate: LEARNING_RATE,
        ..TrainConfig::default()
    };
    let mut optimizer = optimizer(&model, &config);
    let mut run = Run {
        step_ms: Vec::with_capacity(steps),
        losses: Vec::with_capacity(steps),
        loaded_rss_bytes: Memory::Now.bytes(),
        build_peak_bytes: Memory::Peak.bytes(),
        step_peak_bytes: None,
        pools: None,
    };
    let mut pages = match options.plain_pages {
        true => None,
        false => Some(Pages::new(device)),
    };
    let watch = options.pools.then(|| Watch::start(device));
    reset_peak();
    for _ in 0..steps {
        let started = Instant::now();
        let (grads, loss) = gradients(&model);
        model = adamw_together(|| optimizer.step(config.learning_rate, model, grads));
        if let Some(pages) = &mut pages {
            pages.stepped(device);
        }
        device.sync().expect("the steps ran");
        run.step_ms.push(started.elapsed().as_secs_f64() * 1e3);
        run.losses.push(loss.into_scalar());
    }
    run.step_peak_bytes = Memory::Peak.bytes();
    run.pools = watch.map(Watch::stop);
    run
}

/// The rate of one large product, by Burn's own operation.
pub(crate) fn product(device: &Device) -> Value {
    let random = || Tensor::<2>::random([PRODUCT, PRODUCT], Distribution::Normal(0.0, 1.0), device);
    let (a, b) = (random(), random());
    let mut best = f64::INFINITY;
    for _ in 0..PRODUCT_ROUNDS {
        let started = Instant::now();
        black_box(a.clone().matmul(b.clone()));
        device.sync().expect("the CPU has nothing to wait for");
        best = best.min(started.elapsed().as_secs_f64());
    }
    // The best round: a rate that the machine reaches, whatever else it did meanwhile.
    let flops = 2.0 * (PRODUCT as f64).powi(3);
    let name = format!("{PRODUCT}x{PRODUCT}x{PRODUCT}");
    json!({ "gflops_per_second": { name: flops / best / 1e9 } })
}
