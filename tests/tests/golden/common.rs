//! What the comparisons share.

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_lora::adapter::AdapterOnly;
use burn_lora::kernels::cross_entropy;
use burn_lora::transformer::Decoder;
use burn_lora_tests::{Golden, floats, on_each_device};

/// What f32 sums in another order may differ by, in logits of up to 10.
pub const LOGITS: f32 = 1e-4;
pub const LOSS: f32 = 1e-5;
pub const GRADIENT: f32 = 1e-5;
/// Steps are of the gradient's sign at first, so where a gradient is near 0 rounding shows more.
pub const STEPPED: f32 = 2e-5;

pub fn on_each_case(test: impl Fn(&Golden, Device)) {
    on_each_device(|device| {
        for golden in Golden::all() {
            test(&golden, device.clone());
        }
    });
}

pub fn logits(golden: &Golden, model: &Decoder, device: &Device) -> Vec<f32> {
    golden.at_tokens(&floats(model.logits(golden.input_ids(device))))
}

/// The mean cross-entropy at the learned positions of the golden batch.
pub fn loss(golden: &Golden, model: &Decoder, device: &Device) -> Tensor<1> {
    let batch = golden.batch().to_device(device);
    let hidden = model.hidden(batch.ids, None).flatten::<2>(0, 1); // [batch * seq, d_model]
    let logits = model.logits_of(hidden.select(0, batch.rows)); // [learned, vocab]
    let weights = Tensor::ones([batch.learned], (device, DType::F32));
    cross_entropy(logits, batch.targets, weights).div_scalar(batch.learned as f64)
}

/// The adapter after the reference's AdamW steps, and the loss before each of them.
pub fn optimized(golden: &Golden, device: &Device) -> (AdapterOnly<Decoder>, Vec<f32>) {
    stepped(golden, golden.initial(device), |model| {
        loss(golden, model, device)
    })
}

/// A model after the reference's AdamW steps, and the loss before each of them.
pub fn stepped<M: Module>(
    golden: &Golden,
    model: M,
    loss: impl Fn(&M) -> Tensor<1>,
) -> (AdapterOnly<M>, Vec<f32>) {
    let mut model = AdapterOnly::new(model).with_saved_modules(golden.modules_to_save());
    let mut optimizer = AdamWConfig::new()
        .with_epsilon(1e-8)
        .with_weight_decay(golden.number("adamw.weight_decay") as f32)
        .init();
    let learning_rate = golden.number("adamw.learning_rate");
    let mut losses = Vec::new();
    for _ in golden.floats("adamw.losses") {
        let loss = loss(model.inner());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        losses.extend(floats(loss));
        model = optimizer.step(learning_rate, model, gradients);
    }
    (model, losses)
}

pub fn values(data: &TensorData) -> Vec<f32> {
    data.try_to_vec().unwrap()
}
