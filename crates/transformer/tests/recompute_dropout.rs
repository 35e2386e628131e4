//! Alone in its process: other tests would draw from the same device meanwhile.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use burn_lora_adapter::{DEFAULT_NAME, LoraConfig, Targets, attach};
use burn_lora_transformer::{Decoder, LlamaConfig};

struct Reader<'a> {
    grads: &'a Gradients,
    read: Vec<TensorData>,
}

impl ModuleVisitor for Reader<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = param.base().grad(self.grads) {
            self.read.push(grad.into_data());
        }
    }
}

/// The loss by the first forward, and the gradients, which the second one gives.
fn step(decoder: &Decoder, device: &Device) -> (TensorData, Vec<TensorData>) {
    let ids = Tensor::<2, Int>::from_data([[1, 2, 3, 4, 5, 6, 7, 8]], device);
    let logits = decoder.logits(ids);
    let loss = (logits.clone() * logits).mean();
    let grads = loss.backward();
    let mut reader = Reader {
        grads: &grads,
        read: Vec::new(),
    };
    decoder.visit(&mut reader);
    (loss.into_data(), reader.read)
}

/// With B of an adapter at zero, dropout shows in the gradient of B alone: it is `(dropout(x) A)^T g`.
#[test]
fn the_second_forward_drops_what_the_first_dropped() {
    let device = Device::flex();
    let config = LlamaConfig {
        vocab_size: 31,
        hidden_size: 16,
        intermediate_size: 24,
        // With one block, the seed that the forward draws is the only one.
        num_hidden_layers: 1,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 4,
        ..LlamaConfig::default()
    };
    let decoder = Decoder::init(config, &device, 3).expect("valid");
    let lora = LoraConfig::new(2, 4.0)
        .with_targets(Targets::AllLinear)
        .with_dropout(0.5);
    let model = attach(decoder, DEFAULT_NAME, &lora)
        .expect("attached")
        .train();
    let device = model.device();
    let recomputed = model.clone().with_recompute(usize::MAX);

    device.seed(5);
    let first = step(&recomputed, &device);
    device.seed(5);
    assert_eq!(first, step(&recomputed, &device), "a run repeats itself");
    device.seed(6);
    assert_ne!(first.1, step(&recomputed, &device).1, "dropout acts");

    // The same numbers without recomputation: the seed that the forward draws, set by hand.
    device.seed(5);
    let drawn = Tensor::<1>::random(
        [1],
        burn::tensor::Distribution::Uniform(0.0, (1 << 24) as f64),
        &device,
    );
    device.seed((drawn.into_scalar::<f32>() as u64) << 24);
    assert_eq!(first, step(&model, &device));
}
